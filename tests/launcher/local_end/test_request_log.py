"""The request log: what was open is open again, whatever moment the keeper was killed at."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farkernel.launcher.local_end.request_log import RequestLog


def open_in(path: Path) -> list[tuple[str, list[bytes], int]]:
    log = RequestLog(path)
    found = [(each.channel, each.frames, each.number) for each in log.open.values()]
    log.close()
    return found


def test_what_is_open_is_found_again_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "requests"
    log = RequestLog(path)
    log.add("shell", [b"client", b"one"])
    second = log.add("control", [b"client", b"two", b""])
    assert log.number(second) == 1
    log.close()
    assert open_in(path) == [("shell", [b"client", b"one"], 0), ("control", [b"client", b"two", b""], 1)]


def test_numbers_go_on_after_everything_was_struck_out(tmp_path: Path) -> None:
    path = tmp_path / "requests"
    log = RequestLog(path)
    for _ in range(3):
        request = log.add("shell", [b"x" * 30_000])
        log.number(request)
        log.done(request)
    log.close()
    assert path.stat().st_size < 200  # it was emptied, not only marked
    again = RequestLog(path)
    assert not again.open
    assert again.number(again.add("shell", [b"y"])) == 4
    again.close()


def test_a_request_that_goes_at_once_is_written_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "requests"
    log = RequestLog(path)
    log.add("shell", [b"waits"])
    assert log.add("shell", [b"goes"], numbered=True).number == 1
    log.close()
    assert open_in(path) == [("shell", [b"waits"], 0), ("shell", [b"goes"], 1)]


def test_a_torn_entry_is_cut_off_and_the_next_one_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "requests"
    log = RequestLog(path)
    log.add("shell", [b"whole"])
    whole = path.stat().st_size
    log.add("shell", [b"torn" * 100])
    log.close()
    for cut in range(whole, path.stat().st_size):
        data = path.read_bytes()[:cut]
        torn = tmp_path / f"torn-{cut}"
        torn.write_bytes(data)
        again = RequestLog(torn)
        again.add("shell", [b"after"])
        again.close()
        assert [frames for _, frames, _ in open_in(torn)] == [[b"whole"], [b"after"]]


def test_a_full_disk_loses_no_request_of_this_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RequestLog(tmp_path / "requests")
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    request = log.add("shell", [b"still here"])
    assert log.open == {request.serial: request}
    monkeypatch.setattr(os, "write", real)
    log.add("shell", [b"written again"])
    log.close()
    assert open_in(tmp_path / "requests") == [("shell", [b"written again"], 0)]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "number", "done", "reopen"]), st.binary(max_size=40)), max_size=40
    )
)
def test_any_history_reads_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "requests"
    log = RequestLog(path)
    for step, data in steps:
        oldest = next(iter(log.open.values()), None)
        if step == "add":
            log.add("shell", [data, b""])
        elif step == "number" and oldest is not None and not oldest.number:
            log.number(oldest)
        elif step == "done" and oldest is not None:
            log.done(oldest)
        elif step == "reopen":
            expected = [(each.frames, each.number) for each in log.open.values()]
            numbers = dict(log.numbers)
            log.close()
            log = RequestLog(path)
            assert [(each.frames, each.number) for each in log.open.values()] == expected
            assert log.numbers == numbers
    log.close()
