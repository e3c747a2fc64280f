"""One board that we hold: run code on it, interrupt, reset, and take it up again when it comes back."""

from __future__ import annotations

from typing import Any

from .contract import BoardInfo, BoardState, OnOutput, OnState, Transport


class Board:
    """A board behind a transport.  All methods are called in one event loop.

    `execute`, `evaluate` and `soft_reset` wait for each other: one at a time, in the order of their calls.
    Cancelling the task that awaits one interrupts the board's program (Ctrl-C), and the board stays usable.
    """

    def __init__(self, transport: Transport, on_state: OnState | None = None) -> None:
        self.transport = transport
        self.on_state: OnState = on_state or (lambda state, said: None)
        self.state = BoardState.CLOSED
        self.info: BoardInfo | None = None  # of the last `connect`; kept while the board is away

    async def connect(self) -> BoardInfo:
        """Open the transport and get into the raw REPL, whatever the board is doing (an endless main.py included).

        Nothing is reset: what is in the board's memory stays (but a program that runs is interrupted).
        Raises `BoardGone`, `BoardBusy`, `BoardPermission`, `NotABoard`, `BoardUnreachable`.
        After it has succeeded once, a board that goes away is `LOST` and is taken up again by itself.
        """
        raise NotImplementedError

    async def execute(self, code: str | bytes, on_output: OnOutput) -> bytes:
        """Run code; returns the traceback, b"" if there was none.  Takes as long as the program does.

        Raises `BoardLost` when the board goes away or restarts meanwhile, `BoardGone` when it is away now.
        """
        raise NotImplementedError

    def send_input(self, data: bytes) -> None:
        """Bytes for the running program's stdin (`input()` wants a line that ends with \\r or \\n), in paced pieces."""
        raise NotImplementedError

    async def interrupt(self) -> None:
        """Ctrl-C for the running program, which then ends with KeyboardInterrupt in its traceback.

        Returns at once; nothing happens when nothing runs.
        """
        raise NotImplementedError

    async def soft_reset(self, on_output: OnOutput) -> None:
        """A fresh interpreter: boot.py runs, main.py does not (where the firmware lets us); ends READY.

        ``on_output`` takes what boot.py prints, and the board's own words.
        """
        raise NotImplementedError

    async def hard_reset(self) -> BoardInfo:
        """As if its reset button was pressed: by `machine.reset()`, or by DTR and RTS where nothing answers.

        Waits until it is back, and interrupts its main.py; ends READY.
        """
        raise NotImplementedError

    async def bootloader(self) -> None:
        """Into the firmware's bootloader (`machine.bootloader()`): the board is LOST until it is reset."""
        raise NotImplementedError

    async def evaluate(self, expression: str) -> Any:
        """An expression's value, if its repr is a literal.  Raises `BoardException`, and what `execute` raises."""
        raise NotImplementedError

    async def close(self) -> None:
        """Leave the board at its friendly prompt and give the port free.  May be called again, in every state."""
        raise NotImplementedError
