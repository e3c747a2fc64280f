"""The raw REPL's protocol by its bytes, as pyexec.c sends them; and for any split of the reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.board.raw_repl import (
    KEYBOARD_INTERRUPT,
    RAW_BANNER,
    Entered,
    Event,
    Finished,
    Output,
    RawRepl,
    ReplError,
    ReplState,
    Restarted,
    SoftReset,
)

LARGE = b"x = 1\n" * 50  # more than goes without raw-paste
TRACEBACK = (
    b'Traceback (most recent call last):\r\n  File "<stdin>", line 1, in <module>\r\nValueError: no\r\n'
)
BANNER = b"MicroPython v1.25.0 on 2025-04-15; ESP module with ESP8266"
FRESH = BANNER + b'\r\nType "help()" for more information.\r\n>>> '


def ready(raw_paste: bool | None = None, windowed: bool = False) -> RawRepl:
    repl = RawRepl(windowed)
    repl.enter()
    assert pieces(repl) == [b"\x03\x03\x01"]
    assert repl.receive(b"\r\n>>> \r\n" + RAW_BANNER) == [Entered(b"\r\n>>> \r\n")]
    repl.raw_paste = raw_paste
    return repl


def pieces(repl: RawRepl) -> list[bytes]:
    found = []
    while piece := repl.next_piece():
        found.append(piece)
    return found


def running(repl: RawRepl) -> RawRepl:
    repl.run(b"pass")
    assert pieces(repl) == [b"pass\x04"]
    assert repl.receive(b"OK") == []
    assert repl.state is ReplState.OUTPUT
    return repl


def printed(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Output))


# -- entering --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\r\n>>> \r\n>>> \r\n",
        b"Traceback (most recent call last):\r\nKeyboardInterrupt: \r\n" + FRESH + b"\r\n",
        b"\x04\x04KeyboardInterrupt: \r\n\x04>",
        b"=== \r\n>>> ",
        bytes(range(256)) * 300,
    ],
    ids=["raw already", "prompt", "program", "raw-paste", "paste mode", "flood"],
)
def test_entering_from(before: bytes) -> None:
    repl = RawRepl()
    repl.enter()
    assert repl.next_piece() == b"\x03\x03\x01"
    assert repl.next_piece() == b""
    assert repl.receive(before) == []
    assert repl.receive(RAW_BANNER) == [Entered(before[-65536:])]
    assert repl.state is ReplState.READY


def test_entering_again_forgets_what_came() -> None:
    repl = RawRepl()
    repl.enter()
    repl.receive(b"noise raw REPL; CT")
    repl.enter()
    assert pieces(repl) == [b"\x03\x03\x01"]
    assert repl.receive(b"RL-B to exit\r\n>") == []
    assert repl.receive(RAW_BANNER) == [Entered(b"RL-B to exit\r\n>")]


def test_leaving_ends_what_runs() -> None:
    repl = running(ready())
    repl.leave()
    assert pieces(repl) == [b"\x03\x02"]
    assert repl.state is ReplState.UNKNOWN


# -- small code, and boards without raw-paste ------------------------------------------------------


def test_small_code_costs_one_round_trip() -> None:
    repl = ready()
    repl.run(b"print(1)")
    assert pieces(repl) == [b"print(1)\x04"]
    assert repl.receive(b"OK1\r\n\x04\x04>") == [Output(b"1\r\n"), Finished(b"")]
    assert repl.state is ReplState.READY


def test_a_traceback() -> None:
    repl = running(ready())
    assert repl.receive(b"some\x04" + TRACEBACK + b"\x04>") == [Output(b"some"), Finished(TRACEBACK)]


@pytest.mark.parametrize("answer", [RAW_BANNER, b"R\x00>"], ids=["too old", "switched off"])
def test_without_raw_paste_code_goes_in_pieces(answer: bytes) -> None:
    repl = ready()
    repl.run(LARGE)
    assert pieces(repl) == [b"\x05A\x01"]
    assert repl.receive(answer) == []
    assert repl.raw_paste is False
    first = repl.next_piece()
    assert first == LARGE[:256]
    assert repl.paced
    assert repl.next_piece() == LARGE[256:] + b"\x04"
    assert not repl.paced
    assert repl.next_piece() == b""
    assert repl.receive(b"OK\x04\x04>") == [Finished(b"")]
    repl.run(LARGE)
    assert pieces(repl) == [LARGE[:256], LARGE[256:] + b"\x04"]  # it is not asked again


def test_code_that_fills_its_last_piece_ends_all_the_same() -> None:
    repl = ready(raw_paste=False)
    repl.run(b"#" * 512)
    assert pieces(repl) == [b"#" * 256, b"#" * 256, b"\x04"]


def test_no_code_is_not_a_soft_reset() -> None:
    repl = ready()
    repl.run(b"")
    assert pieces(repl) == [b"\n\x04"]


@pytest.mark.parametrize("control", [b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"])
def test_code_cannot_hold_control_characters(control: bytes) -> None:
    with pytest.raises(ReplError, match=r"at byte 7"):
        ready().run(b"print('" + control + b"')")


# -- raw-paste -------------------------------------------------------------------------------------


def test_raw_paste_goes_as_the_window_allows() -> None:
    repl = ready()
    repl.run(LARGE)
    assert pieces(repl) == [b"\x05A\x01"]
    assert repl.receive(b"R\x01\x80\x00\x01") == []
    assert repl.raw_paste is True
    assert pieces(repl) == [LARGE[:256]]
    assert repl.receive(b"\x01") == []
    assert pieces(repl) == [LARGE[256:] + b"\x04"]
    assert repl.receive(b"\x01\x01\x04") == []
    assert repl.state is ReplState.OUTPUT
    assert repl.receive(b"out\x04\x04>") == [Output(b"out"), Finished(b"")]


def test_the_end_mark_needs_no_room() -> None:
    repl = ready(raw_paste=True)
    repl.run(b"#" * 128)
    pieces(repl)
    repl.receive(b"R\x01\x80\x00")
    assert pieces(repl) == [b"#" * 128 + b"\x04"]


def test_a_window_may_look_like_anything() -> None:
    repl = ready(raw_paste=True)
    repl.run(LARGE)
    pieces(repl)
    repl.receive(b"R\x01\x04")
    assert pieces(repl) == []
    repl.receive(b"\x04")
    assert pieces(repl) == [LARGE + b"\x04"]


def test_the_board_wants_no_more() -> None:
    """A syntax error in the middle: the board says Ctrl-D, and waits for ours."""
    repl = ready(raw_paste=True)
    repl.run(LARGE)
    pieces(repl)
    repl.receive(b"R\x01\x80\x00")
    assert pieces(repl) == [LARGE[:128]]
    repl.receive(b"\x04")
    assert pieces(repl) == [b"\x04"]
    assert repl.receive(b"\x04" + TRACEBACK + b"\x04>") == [Finished(TRACEBACK)]


def test_it_stops_reading_just_when_all_was_sent() -> None:
    repl = ready(raw_paste=True)
    repl.run(LARGE)
    pieces(repl)
    repl.receive(b"R\x01\x00\x08")
    assert pieces(repl) == [LARGE + b"\x04"]
    repl.receive(b"\x04\x04" + TRACEBACK + b"\x04>")
    assert pieces(repl) == []  # another Ctrl-D would reset it


def test_somebody_else_runs_the_window() -> None:
    repl = ready(raw_paste=True, windowed=True)
    repl.run(LARGE)
    assert repl.paste == LARGE
    assert pieces(repl) == []
    assert repl.receive(b"R\x01\x80\x00\x01") == []
    assert pieces(repl) == []  # also no end mark
    assert repl.receive(b"\x01\x01\x04hello\x04\x04>") == [Output(b"hello"), Finished(b"")]
    assert pieces(repl) == []


def test_somebody_else_asks_a_board_that_has_no_raw_paste() -> None:
    repl = ready(windowed=True)
    repl.run(LARGE)
    assert repl.paste == LARGE
    assert pieces(repl) == []
    repl.receive(RAW_BANNER)
    assert pieces(repl) == [LARGE[:256], LARGE[256:] + b"\x04"]
    repl.receive(b"OK\x04\x04>")
    repl.paste = None  # as who writes for us does
    repl.run(LARGE)
    assert repl.paste is None
    assert pieces(repl) == [LARGE[:256], LARGE[256:] + b"\x04"]


def test_code_that_is_sent_ahead() -> None:
    repl = ready(raw_paste=True, windowed=True)
    repl.run(LARGE)
    repl.paste = None
    assert repl.follow(LARGE * 2)
    assert repl.paste == LARGE * 2
    repl.paste = None
    events = repl.receive(
        b"R\x01\x80\x00\x01\x04one\x04\x04>R\x01\x80\x00\x01\x01\x04two\x04" + TRACEBACK + b"\x04>"
    )
    assert events == [Output(b"one"), Finished(b""), Output(b"two"), Finished(TRACEBACK)]
    assert repl.state is ReplState.READY
    assert pieces(repl) == []


def test_code_that_cannot_be_sent_ahead() -> None:
    assert not running(ready(raw_paste=True)).follow(LARGE)
    repl = ready(raw_paste=False, windowed=True)
    repl.run(LARGE)
    assert not repl.follow(LARGE)
    repl = ready(raw_paste=True, windowed=True)
    assert not repl.follow(LARGE)
    repl.run(LARGE)
    assert not repl.follow(b"pass")


# -- interrupt -------------------------------------------------------------------------------------


def test_interrupting_what_runs() -> None:
    repl = running(ready())
    repl.interrupt()
    assert pieces(repl) == [b"\x03"]
    assert repl.receive(b"\x04" + KEYBOARD_INTERRUPT + b"\x04>") == [Finished(KEYBOARD_INTERRUPT)]


def test_interrupting_nothing_sends_nothing() -> None:
    repl = ready()
    repl.interrupt()
    assert pieces(repl) == []


def test_interrupting_while_code_goes_out_in_pieces() -> None:
    """The line is cleared; that nothing ran is said by the banner."""
    repl = ready(raw_paste=False)
    repl.run(LARGE)
    assert repl.next_piece() == LARGE[:256]
    repl.interrupt()
    assert pieces(repl) == [b"\x03\x01"]
    assert repl.receive(RAW_BANNER) == [Finished(KEYBOARD_INTERRUPT)]
    assert repl.state is ReplState.READY


def test_interrupting_before_it_is_known_whether_there_is_raw_paste() -> None:
    for answer in (RAW_BANNER, b"R\x01\x80\x00\x01\x04\x04KeyboardInterrupt: \r\n\x04>"):
        repl = ready()
        repl.run(LARGE)
        repl.interrupt()
        assert pieces(repl) == [b"\x03\x01"]  # nothing was sent yet: the asking is left out
        assert repl.receive(answer + RAW_BANNER) == [Finished(KEYBOARD_INTERRUPT)]


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("heard", [b"", b"R\x01\x80\x00\x01"])
def test_interrupting_raw_paste_sends_no_end_mark(windowed: bool, heard: bytes) -> None:
    """After Ctrl-C the board is at its prompt: a Ctrl-D would reset it."""
    repl = ready(raw_paste=True, windowed=windowed)
    repl.run(LARGE * 10)
    pieces(repl)
    repl.receive(heard)
    pieces(repl)
    repl.interrupt()
    assert pieces(repl) == [b"\x03"]
    events = repl.receive(b"R\x01\x80\x00\x01"[len(heard) :] + b"\x04\x04KeyboardInterrupt: \r\n\x04>")
    assert events == [Finished(b"KeyboardInterrupt: \r\n")]
    assert pieces(repl) == []


def test_interrupting_just_after_all_was_sent() -> None:
    repl = ready()
    repl.run(b"while True: pass")
    pieces(repl)
    repl.interrupt()
    assert pieces(repl) == [b"\x03"]
    assert repl.receive(b"OK\x04" + TRACEBACK + b"\x04>") == [Finished(TRACEBACK)]


# -- what programs print ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        b"\x04\x00",
        b"\x04\x01binary",
        bytes(range(256)) * 3,
        b"\x04\x04\x04\x04.",
        b"\x04not a traceback\r\n",
        b"abc\x04Error: but no end\r\nof a line\x04.",
        b"\x04>",
    ],
)
def test_a_ctrl_d_in_the_output_is_output(output: bytes) -> None:
    repl = running(ready())
    events = repl.receive(output + b"\x04\x04>")
    assert (printed(events), events[-1]) == (output, Finished(b""))


@pytest.mark.parametrize(
    "traceback",
    [
        b"KeyboardInterrupt: \r\n",
        b"MemoryError: memory allocation failed, allocating 3000 bytes\r\n",
        b"board.Broken: \r\n",
        b'Traceback (most recent call last):\r\n  File "<stdin>", line 1\r\nValueError: a \x04 b\r\n\x04\r\n',
        "Rückverfolgung (jüngste Aufforderung zuletzt):\r\nValueError: ä\r\n".encode(),
    ],
)
def test_tracebacks_of_every_kind(traceback: bytes) -> None:
    repl = running(ready())
    assert repl.receive(b"\x04" + traceback + b"\x04>") == [Finished(traceback)]


def test_output_when_nothing_runs() -> None:
    """Of a timer on the board."""
    repl = running(ready())
    assert repl.receive(b"\x04\x04>tick\r\n") == [Finished(b""), Output(b"tick\r\n")]
    assert repl.receive(b"tick\r\n") == [Output(b"tick\r\n")]


# -- resets ----------------------------------------------------------------------------------------


def test_a_soft_reset() -> None:
    repl = ready()
    repl.soft_reset()
    assert pieces(repl) == [b"\x04"]
    events = repl.receive(b"OK\r\nMPY: soft reboot\r\nboot.py ran\r\n" + RAW_BANNER)
    assert events == [Output(b"MPY: soft reboot\r\nboot.py ran\r\n"), SoftReset()]
    assert repl.state is ReplState.READY


@pytest.mark.parametrize("reboot", [b"MPY: soft reboot\r\n", b"\r\nsoft reboot\r\n", b"soft reboot\r\n"])
def test_sys_exit_is_a_reset_too(reboot: bytes) -> None:
    repl = running(ready())
    events = repl.receive(b"bye\x04\x04" + reboot + RAW_BANNER)
    assert events == [Output(b"bye"), Output(reboot), Finished(b"", reset=True)]


def test_a_board_that_starts_afresh() -> None:
    repl = running(ready())
    events = repl.receive(b"working\x00\xffets Jan  8 2013\r\n" + FRESH)
    assert events[-1] == Restarted(BANNER)
    assert printed(events) == b"working\x00\xffets Jan  8 2013\r\n" + FRESH
    assert repl.state is ReplState.UNKNOWN


def test_a_board_that_starts_afresh_while_its_traceback_comes() -> None:
    repl = running(ready())
    assert repl.receive(b"\x04Traceback (most rec" + FRESH)[-1] == Restarted(BANNER)


def test_a_program_may_print_a_banner() -> None:
    repl = running(ready())
    events = repl.receive(FRESH + b"and more\r\n\x04\x04>")
    assert (printed(events), events[-1]) == (FRESH + b"and more\r\n", Finished(b""))


def test_circuitpython_starts_afresh() -> None:
    repl = running(ready())
    banner = b"Adafruit CircuitPython 9.2.1 on 2024-11-20; Raspberry Pi Pico with rp2040"
    assert repl.receive(b"\r\n" + banner + b"\r\n>>> ")[-1] == Restarted(banner)


# -- misuse ----------------------------------------------------------------------------------------


def test_one_at_a_time() -> None:
    with pytest.raises(ReplError, match="cannot run code while OUTPUT"):
        running(ready()).run(b"pass")
    with pytest.raises(ReplError, match="cannot reset while UNKNOWN"):
        RawRepl().soft_reset()


def test_its_repr_says_where_it_stands() -> None:
    assert repr(running(ready())) == "<RawRepl OUTPUT, 0 bytes held, 0 to send>"


# -- any split of the reads ------------------------------------------------------------------------


def fed(repl: RawRepl, data: bytes, sizes: list[int]) -> list[Event]:
    events = []
    place = 0
    for size in [*sizes, len(data)]:
        events += repl.receive(data[place : place + size])
        place += size
    return events


SIZES = st.lists(st.integers(1, 40), max_size=60)


@given(output=st.binary(max_size=300), sizes=SIZES, error=st.sampled_from([b"", TRACEBACK]))
def test_output_comes_as_it_is_however_it_is_split(output: bytes, sizes: list[int], error: bytes) -> None:
    repl = running(ready())
    events = fed(repl, output + b"\x04" + error + b"\x04>", sizes)
    assert printed(events) == output
    assert [event for event in events if not isinstance(event, Output)] == [Finished(error)]


@given(before=st.binary(max_size=100), sizes=SIZES)
def test_a_fresh_start_is_seen_however_it_is_split(before: bytes, sizes: list[int]) -> None:
    for repl in (ready(), running(ready())):
        events = fed(repl, before + b"\r\n" + FRESH, sizes)
        assert events[-1] == Restarted(BANNER)


@pytest.mark.parametrize("heard", [b"", b"R\x01\x80\x00\x01"])
def test_a_fresh_start_instead_of_taking_code(heard: bytes) -> None:
    repl = ready(raw_paste=True)
    repl.run(LARGE)
    pieces(repl)
    repl.receive(heard)
    assert repl.receive(FRESH)[-1] == Restarted(BANNER)


@given(noise=st.binary(max_size=200), sizes=SIZES)
def test_the_raw_repl_is_found_in_any_noise(noise: bytes, sizes: list[int]) -> None:
    repl = RawRepl()
    repl.enter()
    assert fed(repl, noise + RAW_BANNER, sizes) == [Entered(noise)]


@given(
    code=st.text(st.characters(min_codepoint=32, codec="utf-8"), min_size=200, max_size=900),
    window=st.integers(1, 300),
    sizes=SIZES,
)
def test_any_window_gets_all_the_code(code: str, window: int, sizes: list[int]) -> None:
    """The board's side of raw-paste, as mp_reader_stdin_readbyte does it."""
    data = code.encode()
    repl = ready(raw_paste=True)
    repl.run(data)
    pieces(repl)
    said = b"R\x01" + window.to_bytes(2, "little") + b"\x01"
    taken, left = b"", window
    while not taken.endswith(b"\x04"):
        fed(repl, said, sizes)
        came = b"".join(pieces(repl))
        assert len(came.rstrip(b"\x04")) <= left + window
        taken += came
        said = b""
        for _ in came.rstrip(b"\x04"):
            left -= 1
            if left == 0:
                said, left = said + b"\x01", window
        assert came
    assert taken == data + b"\x04"


@given(st.binary(max_size=400), SIZES)
def test_no_bytes_at_all_make_it_raise(data: bytes, sizes: list[int]) -> None:
    for repl in (RawRepl(), ready(), running(ready())):
        fed(repl, data, sizes)
        pieces(repl)
