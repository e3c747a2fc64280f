"""One board that we hold: run code on it, interrupt, reset, and take it up again when it comes back."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from .contract import BoardInfo, BoardState, OnOutput, OnState, Transport
from .conversation import Conversation
from .errors import BoardError, BoardException, BoardGone, BoardLost, NotABoard, TooMuchCode, Unsupported
from .folder_server import FolderServer
from .identity import identify
from .raw_repl import PIECE, Finished, ReplError, ReplState, Restarted
from .shared_folder import SharedFolder

log = logging.getLogger(__name__)

_PAUSES = (
    0.1,
    0.2,
    0.3,
    0.5,
    0.5,
    1.0,
)  # between two tries to open a board that went away; the last one again and again
_SETTLE = 3.0  # seconds that a cancelled program gets to end after Ctrl-C
_RESTART = 3.0  # seconds until a board that was told to reset shows its prompt, if main.py lets it
_BACK = 20.0  # seconds that a board with USB of its own may take to come back after a reset
#: An interrupt that comes while the board still compiles is lost (`raw_repl`); so an early one is said twice.
_EARLY, _AGAIN = 0.5, 0.5

_RESET = """\
try:
 import machine as _m
 _m.reset
except (ImportError,AttributeError):
 try:
  import microcontroller as _m
 except ImportError:
  import microbit as _m
_m.reset()
"""
_BOOTLOADER = """\
try:
 import machine as _m
 _m.bootloader
except (ImportError,AttributeError):
 import microcontroller as _m
 _m.on_next_reset(_m.RunMode.BOOTLOADER)
 _m.bootloader=_m.reset
_m.bootloader()
"""

#: Code up to this size goes without a question to boards that hold it as a whole.
_MUCH = 1500
_FREE = b"import gc\ngc.collect()\nprint(gc.mem_free())"

_UNREADABLE = re.compile(rb'Traceback [^\n]*\n  File "<stdin>", line \d+\r\n(?:Syntax|Indentation)Error: ')

_B = BoardState
MOVES: dict[BoardState, frozenset[BoardState]] = {
    _B.CLOSED: frozenset({_B.OPENING}),
    _B.OPENING: frozenset({_B.READY, _B.LOST, _B.CLOSED}),
    _B.READY: frozenset({_B.RUNNING, _B.RESETTING, _B.OPENING, _B.LOST, _B.CLOSED}),
    _B.RUNNING: frozenset({_B.READY, _B.OPENING, _B.LOST, _B.CLOSED}),
    _B.RESETTING: frozenset({_B.READY, _B.OPENING, _B.LOST, _B.CLOSED}),
    _B.LOST: frozenset({_B.OPENING, _B.CLOSED}),
}


class Board:
    """A board behind a transport.  All methods are called in one event loop.

    `execute`, `evaluate` and the resets wait for each other: one at a time, in the order of their calls.
    Cancelling the task that awaits one interrupts the board's program (Ctrl-C), and the board stays usable.
    """

    def __init__(self, transport: Transport, on_state: OnState | None = None) -> None:
        self.transport = transport
        self.on_state: OnState = on_state or (lambda state, said: None)
        self.state = BoardState.CLOSED
        self.info: BoardInfo | None = None  # of the last `connect`; kept while the board is away
        self._talk = Conversation(transport, self._closed, self._restarted)
        self._turn = asyncio.Lock()
        self._coming_back: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._obstacle = ""
        self._began = 0.0

    def __repr__(self) -> str:
        return f"<Board at {self.transport.describe()}, {self.state.value}>"

    async def connect(self) -> BoardInfo:
        """Open the transport and get into the raw REPL, whatever the board is doing (an endless main.py included).

        Nothing is reset: what is in the board's memory stays (but a program that runs is interrupted).
        Raises `BoardGone`, `BoardBusy`, `BoardPermission`, `NotABoard`, `BoardUnreachable`.
        After it has succeeded once, a board that goes away is `LOST` and is taken up again by itself.
        """
        await self._stop_coming_back()
        async with self._turn:
            if self.state in (BoardState.READY, BoardState.RUNNING) and self.info is not None:
                return self.info
            return await self._open()

    async def execute(self, code: str | bytes, on_output: OnOutput) -> bytes:
        """Run code; returns the traceback, b"" if there was none.  Takes as long as the program does.

        Raises `BoardLost` when the board goes away or restarts meanwhile, `BoardGone` when it is away now, and
        `BoardError` for code with control characters (Ctrl-A to Ctrl-E) in it.
        """
        async with self._holding(BoardState.RUNNING):
            return (await self._run(code, on_output)).traceback

    async def execute_all(
        self, codes: Sequence[str], on_done: Callable[[int], None], on_output: OnOutput
    ) -> bytes:
        """Run them one after the other until one has a traceback, which is returned; nobody comes in between.

        They must read nothing.  ``on_done`` is told how many have run; over a long way it is faster than `execute`
        for each of them.  (After one that failed, the next may have run as well.)  Raises what `execute` raises.
        """
        async with self._holding(BoardState.RUNNING):
            return self._finished(
                await self._talk.run_all([code.encode() for code in codes], on_done, on_output)
            ).traceback

    def serve(self, folder: SharedFolder | None) -> None:
        """What the board's programs may ask for (`mounting.mount`); None: nothing."""
        self._talk.folder = None if folder is None else FolderServer(folder, self._talk.answer)

    def send_input(self, data: bytes) -> None:
        """Bytes for the running program's stdin (`input()` wants a line that ends with \\r), in paced pieces."""
        if self.state is BoardState.RUNNING:
            self._talk.send_input(data)

    async def interrupt(self) -> None:
        """Ctrl-C for the running program, which then ends with KeyboardInterrupt in its traceback.

        Returns at once; nothing happens when nothing runs.
        """
        if self.state not in (BoardState.RUNNING, BoardState.RESETTING):
            return
        self._talk.interrupt()
        loop = asyncio.get_running_loop()
        if self._again is None and loop.time() < self._began + _EARLY:
            self._again = loop.call_later(_AGAIN, self._talk.interrupt)

    async def soft_reset(self, on_output: OnOutput) -> None:
        """A fresh interpreter: boot.py runs, main.py does not (where the firmware lets us); ends READY.

        ``on_output`` takes what boot.py prints, and the board's own words.
        """
        async with self._holding(BoardState.RESETTING):
            if self._known().implementation == "circuitpython":  # it runs code.py, whatever the REPL
                await self._talk.reload(on_output)
            elif isinstance(await self._talk.soft_reset(on_output), Restarted):
                await self._talk.enter()

    async def hard_reset(self) -> BoardInfo:
        """As if its reset button was pressed: by `machine.reset()`, or by DTR and RTS where it has no such function.

        Waits until it is back, and interrupts its main.py; ends READY.
        """
        async with self._holding(BoardState.RESETTING):
            try:
                await self._reset_by_code()
            except BoardLost:
                await self._until_back()
                return self._known()
            await self._talk.enter()
            self.info = await identify(self._talk)
        return self._known()

    async def bootloader(self) -> None:
        """Into the firmware's bootloader (`machine.bootloader()`), and let go of the port: flashing needs it.

        The board is LOST; call `connect` when it is back.  Raises `Unsupported`.
        """
        async with self._holding(BoardState.RESETTING):
            with contextlib.suppress(TimeoutError, BoardLost):
                async with asyncio.timeout(1.0):
                    event = await self._run_with_memory(_BOOTLOADER)
                    if isinstance(event, Finished) and event.traceback:
                        raise Unsupported(
                            f"the board at {self.transport.describe()} cannot start its bootloader by itself",
                            "Press the buttons that its manual names",
                        )
            await self._stop_coming_back()
            self._talk.close()
            self._set(BoardState.LOST, "it is in its bootloader")

    async def evaluate(self, expression: str) -> Any:
        """An expression's value, if its repr is a literal.  Raises `BoardException`, and what `execute` raises."""
        output = bytearray()
        traceback = await self.execute(f"print(repr({expression}))", output.extend)
        if traceback:
            raise BoardException(traceback)
        text = output.decode("utf-8", "replace").strip()
        try:
            return float(text) if text in ("inf", "-inf", "nan") else ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise BoardError(f"the board's answer is no literal: {text[:200]!r}", "") from None

    async def close(self) -> None:
        """Leave the board at its friendly prompt and give the port free.  May be called again, in every state."""
        await self._stop_coming_back()
        if self.state in (BoardState.READY, BoardState.RUNNING, BoardState.RESETTING):
            self._talk.repl.leave()
            self._talk.pump()
        self._talk.close()
        if self.state is not BoardState.CLOSED:
            self._set(BoardState.CLOSED, "")

    def _must_be_here(self) -> None:
        if self.state in (BoardState.LOST, BoardState.CLOSED):
            raise BoardGone(self.transport.describe(), "it went away" if self.info else "it was not opened")

    # -- inside -------------------------------------------------------------------------------------------------

    def _known(self) -> BoardInfo:
        if self.info is None:
            raise BoardGone(self.transport.describe())
        return self.info

    async def _open(self) -> BoardInfo:
        self._set(BoardState.OPENING, "")
        try:
            await self._talk.open()
            await self._talk.enter()
            self.info = await identify(self._talk)
        except BaseException:
            self._talk.close()
            self._set(BoardState.CLOSED, "")
            raise
        self._set(BoardState.READY, self.info.firmware)
        return self.info

    @contextlib.asynccontextmanager
    async def _holding(self, state: BoardState) -> AsyncIterator[None]:
        """Our turn, in that state; afterwards the board is READY, or taken up again if it was lost."""
        self._must_be_here()
        async with self._turn:
            self._must_be_here()
            self._set(state, "")
            try:
                yield
            except asyncio.CancelledError:
                await self._settle()
                raise
            finally:
                self._no_more_interrupts()
                if self.state is state:
                    if self._talk.repl.state is ReplState.READY:
                        self._set(BoardState.READY, "")
                    else:
                        self._take_up("the board does not answer any more")

    async def _run(self, code: str | bytes, on_output: OnOutput) -> Finished:
        data = code.encode() if isinstance(code, str) else code
        if len(data) > _MUCH and not self._talk.repl.raw_paste:
            await self._refuse_what_it_cannot_hold(len(data))
        self._began = asyncio.get_running_loop().time()
        try:
            event = await self._talk.run(data, on_output)
            if len(data) > PIECE and not self._talk.repl.raw_paste and _was_not_read(event):
                event = await self._talk.run(
                    data, on_output
                )  # nothing of it has run: bytes may have been lost
        except ReplError as error:
            raise BoardError(str(error), 'Write it as an escape, such as "\\x04"') from None
        return self._finished(event)

    def _finished(self, event: Finished | Restarted) -> Finished:
        if isinstance(event, Restarted):
            self._take_up("it has restarted by itself")
            raise BoardLost(self.transport.describe(), "has restarted by itself")
        return event

    async def _refuse_what_it_cannot_hold(self, size: int) -> None:
        """Without raw-paste the board collects all of it before it compiles, in memory that it moves as it grows.

        MicroPython 1.9 on a micro:bit took 0.68 of what was free, and stopped dead at 0.8 of it.
        """
        output = bytearray()
        event = await self._talk.run(_FREE, output.extend)
        said = output.strip()
        free = int(said) if said.isdigit() else 0
        knows = said.isdigit() or (isinstance(event, Finished) and b"MemoryError" in event.traceback)
        if knows and size > free * 2 // 3:
            raise TooMuchCode(self.transport.describe(), size, free)

    async def _settle(self) -> None:
        """End what was running for a task that was cancelled."""
        self._talk.interrupt()
        with contextlib.suppress(BoardError, TimeoutError):
            async with asyncio.timeout(_SETTLE):
                if await self._talk.settled():
                    return
            await self._talk.enter()

    async def _reset_by_code(self) -> None:
        """Raises `BoardLost` when it takes its USB with it."""
        with contextlib.suppress(TimeoutError):  # an endless main.py runs now: there is no prompt to be seen
            async with asyncio.timeout(_RESTART):
                event = await self._run_with_memory(_RESET)
                if isinstance(event, Restarted):
                    return
                if event.traceback:
                    await self._pulse_reset()
                await self._talk.restarted(_RESTART)

    async def _run_with_memory(self, code: str) -> Finished | Restarted:
        """Also on a board whose memory is so full that nothing can be compiled: what is in it goes anyway."""
        event = await self._talk.run(code.encode(), _ignore)
        if isinstance(event, Finished) and b"MemoryError" in event.traceback:
            await self._talk.soft_reset(_ignore)
            event = await self._talk.run(code.encode(), _ignore)
        return event

    async def _pulse_reset(self) -> None:
        """By the lines that most boards have wired to reset: RTS pulls it, DTR is the boot mode and stays up."""
        await self.transport.signals(dtr=False, rts=True)
        await asyncio.sleep(0.1)
        await self.transport.signals(dtr=False, rts=False)

    def _no_more_interrupts(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    # -- a board that goes away and comes back ------------------------------------------------------------------

    def _closed(self, said: str) -> None:
        if self.state in (BoardState.READY, BoardState.RUNNING):
            self._take_up(said or "it went away")

    def _restarted(self) -> None:
        if self.state is BoardState.READY:
            self._take_up("it has restarted by itself")

    def _take_up(self, why: str) -> None:
        """From now on it is looked for until it is back."""
        self._set(BoardState.LOST, why)
        if self._coming_back is None or self._coming_back.done():
            self._coming_back = asyncio.get_running_loop().create_task(self._come_back())

    async def _come_back(self) -> None:
        for attempt in range(1 << 30):
            async with self._turn:
                try:
                    await self._reopen()
                    return
                except BoardError as error:
                    self._not_back(error)
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])

    def _not_back(self, error: BoardError) -> None:
        """Say what is new: that it is not there is no news."""
        if not isinstance(error, BoardGone) and error.what != self._obstacle:
            self._obstacle = error.what
            log.info("%s", error)
            self._set(BoardState.LOST, error.what)
        elif self.state is not BoardState.LOST:
            self._set(BoardState.LOST, "")

    async def _reopen(self) -> None:
        """Raises a `BoardError` if it is not back."""
        if self._talk.repl.state is not ReplState.UNKNOWN or not self.transport.is_open:
            self._talk.close()
            await self._talk.open()
        self._set(BoardState.OPENING, "")
        await self._talk.enter()
        self.info = await identify(self._talk)
        self._obstacle = ""
        self._set(BoardState.READY, f"it is back: {self.info.firmware}")

    async def _until_back(self) -> None:
        """After a reset that took the device away; raises what the last try raised."""
        async with asyncio.timeout(_BACK):
            for attempt in range(1 << 30):
                try:
                    await self._reopen()
                    return
                except (BoardGone, NotABoard, BoardLost):
                    await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])

    async def _stop_coming_back(self) -> None:
        task, self._coming_back = self._coming_back, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])

    def _set(self, state: BoardState, said: str) -> None:
        if state is not self.state or said:
            if state is not self.state and state not in MOVES[self.state]:
                raise ReplError(f"a board that is {self.state.value} cannot become {state.value}")
            self.state = state
            self.on_state(state, said)


def _was_not_read(event: Finished | Restarted) -> bool:
    """The code itself could not be compiled (and not something that it imports or evaluates)."""
    return isinstance(event, Finished) and _UNREADABLE.match(event.traceback) is not None


def _ignore(data: bytes) -> None:
    """Nobody asked for it."""
