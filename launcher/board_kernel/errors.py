"""What can go wrong with a cell, apart from the board itself (`launcher.board.errors`)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..errors import FarkernelError
from ..text import one_line
from . import tracebacks


class CellFailed(Exception):
    """The cell's own program raised on the board: shown as it is, with no advice of ours."""

    def __init__(self, traceback: tracebacks.Traceback, lines: list[str]) -> None:
        super().__init__(f"{traceback.ename}: {traceback.evalue}")
        self.ename = traceback.ename
        self.evalue = traceback.evalue
        self.lines = lines


class UnknownMagic(FarkernelError):
    kind = "unknown-magic"

    def __init__(self, name: str, known: Iterable[str], hint: str = "") -> None:
        near = difflib.get_close_matches(name.lower(), list(known), n=1)
        super().__init__(
            f"there is no magic %{one_line(name)[:40]}",
            hint or (f"Did you mean %{near[0]}?" if near else "%lsmagic lists them all"),
        )


class MagicUsage(FarkernelError):
    """A magic was written in a way that it does not understand."""

    kind = "magic-usage"

    def __init__(self, problem: str, name: str, usage: str) -> None:
        super().__init__(problem, f"Usage: %{name} {usage}".rstrip() + f"   (%{name}? explains it)")


class NoBoard(FarkernelError):
    """A notebook without a board, or with none of that name."""

    kind = "no-board"

    def __init__(self, name: str = "", known: Iterable[str] = ()) -> None:
        names = ", ".join(known)
        if name:
            super().__init__(
                f"no board is called {one_line(name)[:60]!r} here",
                f"Connected are: {names}" if names else "Connect one: %connect ADDRESS --as NAME",
            )
        else:
            super().__init__("no board is connected", "Connect one: %connect serial:///dev/ttyUSB0")


class BoardAway(FarkernelError):
    """It did not come (back) while a cell waited for it."""

    kind = "board-away"

    def __init__(self, where: str, why: str, waited: float) -> None:
        super().__init__(
            f"the board at {where} did not come within {waited:.0f} s ({one_line(why) or 'it does not answer'})",
            "Plug it in and run the cell again; `%connect` waits for another time with --wait SECONDS",
        )


class InBootloader(FarkernelError):
    """It was put there by %reset --bootloader: its port is others'."""

    kind = "board-bootloader"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{one_line(name)} is in its bootloader and runs no programs",
            "When another firmware is on it, or after its reset button: %connect",
        )


class NotConnectedHere(FarkernelError):
    """An address that is no board's, or that this notebook cannot reach by itself."""

    kind = "address"

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{one_line(address)[:80]!r} is neither the address of a board nor the name of a target with one",
            "Write for example %connect /dev/ttyUSB0, %connect webrepl://192.168.4.1, or a target's name",
        )


class NoClock(FarkernelError):
    """A board without a real-time clock, or with one of another kind."""

    kind = "no-clock"

    def __init__(self, where: str) -> None:
        super().__init__(
            f"the firmware of the board at {one_line(where)} has no clock that can be set (machine.RTC)",
            "A program there can count with `time.ticks_ms()` or `time.monotonic()`",
        )


class LocalFileError(FarkernelError):
    """A file on this side cannot be read or written."""

    kind = "local-file"

    def __init__(self, path: object, error: OSError | str) -> None:
        why = error if isinstance(error, str) else error.strerror or type(error).__name__
        super().__init__(
            f"{one_line(path)}: {why}", "Paths on this side count from the notebook's directory (%pwd)"
        )
