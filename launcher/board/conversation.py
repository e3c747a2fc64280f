"""A transport and a raw REPL put together: what `session.Board` waits for, with the clock that `raw_repl` has not."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from .contract import OnOutput, Transport
from .errors import BoardLost, NotABoard
from .folder_server import FolderServer
from .raw_repl import PIECE, Entered, Event, Finished, Output, RawRepl, ReplState, Restarted, SoftReset

E = TypeVar("E", Entered, Finished, Restarted, SoftReset)

#: A board that was reset by opening its port hears nothing while it boots: it is called again after these pauses.
_PATIENCE = (0.4, 0.5, 0.6, 1.0, 1.0, 2.0, 3.0)
#: After the second call some answers may still be on their way; they must not be taken for later ones.
_QUIET = 0.15
#: So long a board that was told to reload may take before its program begins.
_RELOAD = 1.0
#: A board that has not taken the code by then is not there any more.
SILENCE = 10.0

_TAKING = (ReplState.ASKING, ReplState.PASTING, ReplState.STARTING)


class Conversation:
    """One at a time: each of the coroutines must have ended before the next is called.

    ``on_closed`` is told why the transport ended by itself, ``on_restarted`` that the board began afresh while nobody
    waited for that.
    """

    def __init__(
        self, transport: Transport, on_closed: Callable[[str], None], on_restarted: Callable[[], None]
    ) -> None:
        self.transport = transport
        self.repl = RawRepl(transport.windowed)
        self.folder: FolderServer | None = None  # what a program on the board may ask for, whenever it does
        self._on_closed = on_closed
        self._on_restarted = on_restarted
        self._on_output: OnOutput = _ignore
        self._waiter: asyncio.Future[Event] | None = None
        self._seen = bytearray()
        self._early: deque[Event] = deque()
        self._input = bytearray()
        self._unsure = False
        self._resume: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._watching: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Conversation over {self.transport.describe()}, {self.repl!r}>"

    async def open(self) -> None:
        self.repl.lost()
        await self.transport.open(self)

    def close(self) -> None:
        self._stop_pacing()
        self._stop_watching()
        self.transport.close()
        self.repl.lost()
        self._fail("was closed")

    # -- Receiver -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._heard = asyncio.get_running_loop().time()
        if self.repl.state is ReplState.ENTERING:
            self._see(data)
        for event in self.repl.receive(data):
            self._take(event)
        self.pump()

    def writable(self) -> None:
        self.pump()

    def closed(self, said: str) -> None:
        self._stop_pacing()
        self._stop_watching()
        self.repl.lost()
        self._fail("went away")
        self._on_closed(said)

    def _take(self, event: Event) -> None:
        if isinstance(event, Output):
            data = event.data if self.folder is None else self.folder.feed(event.data)
            if data:
                self._on_output(data)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(event)
        elif self._waiter is not None:  # code that was sent ahead has ended before the first was looked at
            self._early.append(event)
        elif isinstance(event, Restarted):
            self._on_restarted()

    def _see(self, data: bytes) -> None:
        self._seen += data
        del self._seen[:-4096]

    def _fail(self, how: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(BoardLost(self.transport.describe(), how))

    # -- to the board -------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Write what the protocol wants to say, pieces with pauses between them."""
        while self._resume is None and (piece := self.repl.next_piece()):
            self.transport.write(piece)
            if self.repl.paced and self.transport.pause:
                loop = asyncio.get_running_loop()
                self._resume = loop.call_later(self.transport.pause, self._go_on)
        if self.repl.paste is not None:
            code, self.repl.paste = self.repl.paste, None
            self.transport.paste(code)

    def send_input(self, data: bytes) -> None:
        """For the program's stdin: the board's ring takes no more of it at a time than of code."""
        self._input += data
        self._pump_input()

    def answer(self, data: bytes) -> None:
        """For a program that has asked, and so has taken all that was sent before."""
        if not self._input:
            self._stop_pacing()
        self.send_input(data)

    def _pump_input(self) -> None:
        while self._input and self._resume is None:
            piece = bytes(self._input[:PIECE])
            del self._input[:PIECE]
            self.transport.write(piece)
            if self.transport.pause:
                self._resume = asyncio.get_running_loop().call_later(self.transport.pause, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self.pump()
        self._pump_input()

    def _stop_pacing(self) -> None:
        self._input.clear()
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def interrupt(self) -> None:
        self._stop_pacing()
        self.repl.interrupt()
        self.pump()

    # -- what is waited for -------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """Into the raw REPL; raises `NotABoard`, `BoardLost`."""
        self._seen.clear()
        self._early.clear()
        self._unsure = False
        for attempt, patience in enumerate(_PATIENCE):
            self._stop_pacing()
            self.repl.enter()
            try:
                async with asyncio.timeout(patience):
                    await self._event(Entered)
            except TimeoutError:
                continue
            if attempt:
                await self._quiet()
            if self.repl.state is ReplState.READY:
                return
        raise NotABoard(self.transport.describe(), bytes(self._seen))

    async def _quiet(self) -> None:
        """Until nothing has come for a while, but not for ever: a timer on the board may print all the time."""
        loop = asyncio.get_running_loop()
        for _ in range(10):
            left = self._heard + _QUIET - loop.time()
            if left <= 0:
                return
            await asyncio.sleep(left)

    async def run(self, code: bytes, on_output: OnOutput) -> Finished | Restarted:
        """Raises `BoardLost`."""
        await self._make_sure()
        self._on_output = on_output
        self._begin(code)
        try:
            return await self._run_to_its_end()
        finally:
            self._on_output = _ignore

    async def run_all(
        self, codes: Sequence[bytes], on_done: Callable[[int], None], on_output: OnOutput
    ) -> Finished | Restarted:
        """One after the other, until one has a traceback.  They must read nothing.

        Where the way is long, each is sent while the one before runs.
        ``on_done`` is told how many have run.  When it is cancelled, `enter` must follow.  Raises `BoardLost`.
        """
        await self._make_sure()
        self._on_output = on_output
        try:
            return await self._run_each(codes, on_done)
        finally:
            self._on_output = _ignore

    async def _run_each(self, codes: Sequence[bytes], on_done: Callable[[int], None]) -> Finished | Restarted:
        event: Finished | Restarted = Finished(b"")
        under_way = 0
        for place, code in enumerate(codes):
            if place >= under_way:
                self._begin(code)
                self.pump()
                under_way = place + 1
            # What is sent ahead could be taken for an answer by a program that asks for a folder of ours.
            ahead = self.folder is None and under_way < len(codes) and under_way == place + 1
            if ahead and self.repl.follow(codes[under_way]):
                self.pump()
                under_way += 1
            event = await self._run_to_its_end()
            if isinstance(event, Restarted) or event.traceback:
                if under_way > place + 1:
                    await self._run_to_its_end()
                break
            on_done(place + 1)
        return event

    async def _make_sure(self) -> None:
        """A program that was interrupted may have left an answer unread, so much that the ring takes nothing more."""
        if self._unsure:
            await self.enter()

    def _begin(self, code: bytes) -> None:
        """What the program before has not read any more (an answer that came too late) must not stand in the code."""
        self._input.clear()
        if self.folder is not None:
            self.folder.begin()
        self.repl.run(code, clear=self.folder is not None)

    async def _run_to_its_end(self) -> Finished | Restarted:
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        if self._watching is None:
            self._watching = loop.call_later(SILENCE, self._watch)
        event = await self._ended(Finished)
        self._unsure = self.folder is not None and isinstance(event, Finished) and bool(event.traceback)
        return event

    async def settled(self) -> bool:
        """Wait until what runs has ended; False: it became something else than READY."""
        if self.repl.state is not ReplState.READY:
            await self._any_event()
        return self.repl.state is ReplState.READY

    async def soft_reset(self, on_output: OnOutput) -> SoftReset | Restarted:
        self._on_output = on_output
        self.repl.soft_reset()
        try:
            return await self._ended(SoftReset)
        finally:
            self._on_output = _ignore

    async def reload(self, on_output: OnOutput) -> None:
        """A fresh interpreter where the board's own program is run after a soft reset, as CircuitPython does.

        It is interrupted as soon as it may have begun; ends in the raw REPL.  Raises `NotABoard`, `BoardLost`.
        """
        begun = asyncio.Event()
        seen = bytearray()

        def take(data: bytes) -> None:
            seen.extend(data)
            if b"reboot" in seen:  # in other languages than English it says something else
                begun.set()
            on_output(data)

        self._on_output = take
        self.repl.soft_reset()
        self.pump()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RELOAD):
                    await begun.wait()
            await self.enter()
        finally:
            self._on_output = _ignore

    async def restarted(self, patience: float) -> bool:
        """Wait for a fresh start's prompt; False: none came in that time.  Raises `BoardLost`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._event(Restarted)
                return True
        return False

    async def _event(self, kind: type[E]) -> E:
        while not isinstance(event := await self._any_event(), kind):
            pass
        return event

    async def _ended(self, kind: type[E]) -> E | Restarted:
        while not isinstance(event := await self._any_event(), (kind, Restarted)):
            pass
        return event

    async def _any_event(self) -> Event:
        self.pump()
        if self._early:
            return self._early.popleft()
        if not self.transport.is_open:
            raise BoardLost(self.transport.describe(), "went away")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _watch(self) -> None:
        """Nothing is heard of a board that should take code: it is not there any more.

        One timer for many runs, because making one takes as long as ten bytes take on the line.
        """
        loop = asyncio.get_running_loop()
        self._watching = None
        if self._waiter is None:
            return
        if self.repl.state is ReplState.SENDING:  # then the board has nothing to say
            self._heard = loop.time()
        left = self._heard + SILENCE - loop.time()
        if left <= 0 and self.repl.state in _TAKING:
            self._fail("does not answer any more")
        else:
            self._watching = loop.call_later(left if left > 0 else SILENCE, self._watch)


def _ignore(data: bytes) -> None:
    """Nobody asked for it."""
