"""The raw REPL of MicroPython and CircuitPython, sans-I/O: bytes from the board in, events out.

The protocol is that of ``shared/runtime/pyexec.c`` (MicroPython's reference manual, "The internal REPL"): Ctrl-A enters
the raw REPL from the friendly one, code ends with Ctrl-D, the answer is ``OK``, the output, Ctrl-D, the traceback,
Ctrl-D, ``>``.  Raw-paste mode (Ctrl-E A Ctrl-A) has a window: the board says how much it takes, and adds as much with
each Ctrl-A; a Ctrl-D of its own in between means that it wants no more.

Nothing here knows time: how long to wait, and what then, is `session`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum, auto

from .tail import Verdict, judge_tail, starts_late

RAW_BANNER = b"raw REPL; CTRL-B to exit\r\n>"
CTRL_A, CTRL_B, CTRL_C, CTRL_D, CTRL_E = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"

# Both end what runs or is half typed; nothing that could run a half-typed line (a carriage return) is sent.
ENTER = CTRL_C + CTRL_C + CTRL_A
ASK = CTRL_E + b"A" + CTRL_A

#: Where there is no window, so much fits into the input ring of any board (DESIGN §4).
PIECE = 256
#: Code up to this size goes without asking for raw-paste: it fits into the ring, and saves a round trip.
SMALL = 127

KEYBOARD_INTERRUPT = b"Traceback (most recent call last):\r\nKeyboardInterrupt: \r\n"

_MOST_SEEN = 64 * 1024
_LONGEST_BANNER = 700
_RESTARTED = re.compile(
    rb"(?:MicroPython|Adafruit CircuitPython) [^\r\n]{1,200} on [^\r\n]{1,200}\r\n(?:[^\r\n]{0,200}\r\n)?>>> \Z"
)
_RESETS = b"OK\r\n"
_ANSWER = re.compile(rb"R\x01(..)|R\x00>|" + re.escape(RAW_BANNER), re.DOTALL)
_FORBIDDEN = re.compile(rb"[\x01-\x05]")


class ReplState(IntEnum):  # of numbers, because their hash costs nothing: each run looks four of them up
    UNKNOWN = auto()  # whatever the board may be doing
    ENTERING = auto()  # Ctrl-A was sent: waiting for the raw REPL's banner
    READY = auto()  # at its `>`
    ASKING = auto()  # for raw-paste
    PASTING = auto()  # code goes out as the window allows
    SENDING = auto()  # code goes out in pieces
    STARTING = auto()  # all was sent: waiting for OK
    OUTPUT = auto()  # it runs
    RESETTING = auto()  # soft reset: waiting for the banner


_S = ReplState
MOVES: dict[ReplState, frozenset[ReplState]] = {
    # From everywhere to ENTERING (somebody wants to begin again) and UNKNOWN (the board restarted, or went away).
    _S.UNKNOWN: frozenset(),
    _S.ENTERING: frozenset({_S.READY}),
    _S.READY: frozenset({_S.ASKING, _S.PASTING, _S.SENDING, _S.RESETTING}),
    _S.ASKING: frozenset({_S.PASTING, _S.SENDING}),
    _S.PASTING: frozenset({_S.OUTPUT}),
    _S.SENDING: frozenset({_S.STARTING}),
    _S.STARTING: frozenset({_S.OUTPUT}),
    _S.OUTPUT: frozenset({_S.READY, _S.RESETTING, _S.ASKING}),
    _S.RESETTING: frozenset({_S.READY}),
}


class ReplError(Exception):
    """The caller's fault: a command that the state does not allow."""


@dataclass(frozen=True)
class Entered:
    """In the raw REPL; ``seen``: what came before (prompts, a banner, output of what was interrupted)."""

    seen: bytes


@dataclass(frozen=True)
class Output:
    """Of the program that runs; while none does, of a timer or an interrupt handler on the board."""

    data: bytes


@dataclass(frozen=True)
class Finished:
    """The code has run, or never will.  After `sys.exit()` the board resets itself, and ``reset`` is true."""

    traceback: bytes
    reset: bool = False


@dataclass(frozen=True)
class SoftReset:
    """A soft reset is over, and the board is in its raw REPL again."""


@dataclass(frozen=True)
class Restarted:
    """The board has started afresh by itself and stands at its friendly prompt; ``banner`` says what it is."""

    banner: bytes


Event = Entered | Output | Finished | SoftReset | Restarted


class RawRepl:
    """One board's raw REPL.  Feed `receive`, and write what `next_piece` gives, until it gives nothing.

    ``raw_paste``: whether the board has it; None: not known yet, it is asked with the first code that is not small.
    ``windowed``: whoever writes for us runs the window: `next_piece` gives nothing of code in raw-paste mode, and
    `paste` has to be written by other means.
    """

    def __init__(self, windowed: bool = False) -> None:
        self.state = ReplState.UNKNOWN
        self.raw_paste: bool | None = None
        self.windowed = windowed
        self.paste: bytes | None = None
        self._following: bytes | None = None
        self._buffer = bytearray()
        self._seen = bytearray()  # before the raw REPL was entered
        self._recent = bytearray()  # the last that came, in whatever events it went out
        self._commands = bytearray()
        self._code = memoryview(b"")
        self._window = 0
        self._free = 0
        self._interrupted = False
        self._exited = False
        self._unanswered = False

    def __repr__(self) -> str:
        return f"<RawRepl {self.state.name}, {len(self._buffer)} bytes held, {len(self._code)} to send>"

    # -- commands -----------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Into the raw REPL, from whatever the board is doing; may be called again when nothing comes of it."""
        self._begin_again(ENTER)

    def leave(self) -> None:
        """To the friendly prompt, having ended what runs."""
        self._begin_again(CTRL_C + CTRL_B)
        self.state = ReplState.UNKNOWN

    def lost(self) -> None:
        """The connection is gone: nothing is known any more."""
        self._begin_again(b"")
        self.state = ReplState.UNKNOWN

    def run(self, code: bytes, clear: bool = False) -> None:
        """Run code; ends with `Finished` (or `Restarted`).  ``clear``: what stands at the prompt already is removed."""
        self._must_be_ready("run code")
        if found := _FORBIDDEN.search(code):
            raise ReplError(f"code cannot hold the control character {found[0]!r} (at byte {found.start()})")
        code = code or b"\n"  # nothing and a Ctrl-D would be a soft reset
        self._forget_received()
        self._code = memoryview(code)
        self._interrupted = False
        self._commands += CTRL_C if clear else b""
        if len(code) <= SMALL or self.raw_paste is False:
            self._send_plain()
        elif self.windowed:  # it asks as well; the code is kept for a board that has no raw-paste
            self.paste = code
            self._move(ReplState.ASKING)
        else:
            self._commands += ASK
            self._move(ReplState.ASKING)

    def follow(self, code: bytes) -> bool:
        """Code that comes after what runs now: write `paste` at once, and it runs as soon as the board is ready for it.

        False: that is not possible here (it needs raw-paste, and somebody else who runs the window).
        """
        if not self.windowed or not self.raw_paste or len(code) <= SMALL or self.state is ReplState.READY:
            return False
        self.paste = self._following = code
        return True

    def interrupt(self) -> None:
        """Ctrl-C for what runs; code that is still being sent is not sent to its end, and will not run.

        While the board compiles, it takes Ctrl-C for the program's input: an interrupt that comes early may be lost.
        """
        if self.state is ReplState.READY:
            return
        if self.state is ReplState.SENDING or (self.state is ReplState.ASKING and not self.raw_paste):
            # Nothing answers a Ctrl-C here: the line is cleared, and Ctrl-A makes the board say so.
            self._begin_again(CTRL_C + CTRL_A)
            self._interrupted = True
            return
        if self.state in (ReplState.ASKING, ReplState.PASTING):  # ends raw-paste mode, with a traceback
            self._window = self._free = 0
            self._interrupted = True
        self._commands += CTRL_C

    def soft_reset(self) -> None:
        """A fresh interpreter; ends with `SoftReset`."""
        self._must_be_ready("reset")
        self._forget_received()
        self._commands += CTRL_D
        self._exited = False
        self._unanswered = True
        self._move(ReplState.RESETTING)

    # -- to the board -------------------------------------------------------------------------------------------

    @property
    def paced(self) -> bool:
        """Wait after the piece that `next_piece` gave last before the next one is asked for."""
        return self.state is ReplState.SENDING

    def next_piece(self) -> bytes:
        """What to write now; b"": nothing, until something was received or commanded."""
        piece = bytes(self._commands)
        self._commands.clear()
        if self.state is ReplState.SENDING:
            room = PIECE - len(piece)
            piece += self._code[:room]
            self._code = self._code[room:]
            if len(piece) < PIECE:
                piece += CTRL_D
                self._move(ReplState.STARTING)
        if piece:
            return piece
        if self.state is ReplState.PASTING and self._free > 0 and self._window:
            return self._paste_piece()
        return b""

    def _paste_piece(self) -> bytes:
        piece = bytes(self._code[: self._free])
        self._code = self._code[len(piece) :]
        self._free -= len(piece)
        if not self._code and self._free >= 0:
            # The end mark needs no room: the board reads it before it counts (mp_reader_stdin_readbyte).
            self._window = 0
            piece += CTRL_D
        return piece

    # -- from the board -----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        self._buffer += data
        self._recent += data
        del self._recent[:-_LONGEST_BANNER]
        while self._step(events):
            pass
        return events

    def _step(self, events: list[Event]) -> bool:
        """Take one thing off the buffer; False: more must come first."""
        if not self._buffer:
            return False
        if self.state is not ReplState.ENTERING and self._has_restarted(events):
            return False
        match self.state:
            case ReplState.ENTERING:
                return self._entering(events)
            case ReplState.ASKING:
                return self._asking()
            case ReplState.PASTING:
                return self._pasting()
            case ReplState.SENDING | ReplState.STARTING:
                return self._starting()
            case ReplState.OUTPUT:
                return self._output(events)
            case ReplState.RESETTING:
                return self._resetting(events)
            case _:
                events.append(Output(self._take(len(self._buffer))))
                return False

    def _entering(self, events: list[Event]) -> bool:
        place = self._buffer.rfind(RAW_BANNER)
        if place < 0:
            keep = starts_late(self._buffer, RAW_BANNER)
            self._see(self._take(len(self._buffer) - keep))
            return False
        self._see(self._take(place))
        self._buffer.clear()
        self._move(ReplState.READY)
        if self._interrupted:
            self._interrupted = False
            events.append(Finished(KEYBOARD_INTERRUPT))
        else:
            events.append(Entered(bytes(self._seen)))
        self._seen.clear()
        return False

    def _asking(self) -> bool:
        """``R\\x01`` and the window; ``R\\x00`` or the banner: it has no raw-paste."""
        found = _ANSWER.search(self._buffer)
        if found is None:
            return False
        window = found[1]  # now: a match looks into the buffer when it is asked
        self._take(found.end())
        if window is None:
            self.raw_paste = False
            self._send_plain()
            return True
        self.raw_paste = True
        if self.windowed:
            self._code = memoryview(b"")
        elif not self._interrupted:
            self._window = self._free = int.from_bytes(window, "little")
        self._move(ReplState.PASTING)
        return True

    def _pasting(self) -> bool:
        byte = self._take(1)
        if byte == CTRL_A:
            self._free += self._window
        elif byte == CTRL_D:
            if self._window:  # it wants no more: a syntax error, no memory, Ctrl-C
                self._commands += CTRL_D
            self._code = memoryview(b"")
            self._move(ReplState.OUTPUT)
        return True

    def _starting(self) -> bool:
        place = self._buffer.find(b"OK")
        if place < 0:
            return False
        self._take(place + 2)
        if self.state is ReplState.SENDING:  # noise: nothing was asked yet
            return True
        self._move(ReplState.OUTPUT)
        return True

    def _output(self, events: list[Event]) -> bool:
        place = self._buffer.find(CTRL_D)
        if place:
            events.append(Output(self._take(place if place > 0 else len(self._buffer))))
            return place > 0
        tail = judge_tail(self._buffer)
        if tail.verdict is Verdict.MORE:
            return False
        if tail.verdict is Verdict.NO:
            events.append(Output(self._take(1)))
            return True
        self._take(tail.size)
        following, self._following = self._following, None
        if tail.verdict is Verdict.EXITED:
            self._exited = True
            self._move(ReplState.RESETTING)
            return True
        self._move(ReplState.READY if following is None else ReplState.ASKING)
        self._code = memoryview(following or b"")
        events.append(Finished(tail.traceback))
        return True

    def _resetting(self, events: list[Event]) -> bool:
        if self._unanswered:
            if len(self._buffer) < len(_RESETS) and _RESETS.startswith(self._buffer):
                return False
            self._unanswered = False
            if self._buffer.startswith(_RESETS):
                self._take(len(_RESETS))
                return True
        place = self._buffer.find(RAW_BANNER)
        size = place if place >= 0 else len(self._buffer) - starts_late(self._buffer, RAW_BANNER)
        if size:
            events.append(Output(self._take(size)))
        if place < 0:
            return False
        self._take(len(RAW_BANNER))
        self._move(ReplState.READY)
        events.append(Finished(b"", reset=True) if self._exited else SoftReset())
        self._exited = False
        return True

    def _has_restarted(self, events: list[Event]) -> bool:
        """The banner of a fresh start and the friendly prompt, and nothing after it."""
        if not self._recent.endswith(b">>> "):
            return False
        found = _RESTARTED.search(self._recent)
        if found is None:
            return False
        banner = bytes(found[0]).partition(b"\r\n")[0]
        events += [Output(bytes(self._buffer)), Restarted(banner)]
        self._begin_again(b"")
        self.state = ReplState.UNKNOWN
        return True

    # -- inside -------------------------------------------------------------------------------------------------

    def _send_plain(self) -> None:
        self._move(ReplState.SENDING)

    def _must_be_ready(self, to_do: str) -> None:
        if self.state is not ReplState.READY:
            raise ReplError(f"cannot {to_do} while {self.state.name}")

    def _begin_again(self, commands: bytes) -> None:
        self._code = memoryview(b"")
        self._commands[:] = commands
        self._forget_received()
        self._seen.clear()
        self._window = self._free = 0
        self.paste = self._following = None
        self._interrupted = self._exited = self._unanswered = False
        self.state = ReplState.ENTERING

    def _forget_received(self) -> None:
        self._buffer.clear()
        self._recent.clear()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _see(self, data: bytes) -> None:
        self._seen += data
        del self._seen[:-_MOST_SEEN]

    def _move(self, state: ReplState) -> None:
        if state is not ReplState.ENTERING and state not in MOVES[self.state]:
            raise ReplError(f"no way from {self.state.name} to {state.name}")
        self.state = state
