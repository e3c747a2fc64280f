"""The boards that a notebook holds: connecting, waiting for one that is away, and keeping it ready for cells."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator

from ..address import Address
from ..board.contract import BoardInfo, BoardState, OnState, SerialOptions
from ..board.errors import BoardError, BoardException, BoardGone, BoardUnreachable, NotABoard
from ..board.files import BoardFiles
from ..board.mounting import mount, unmount
from ..board.session import Board
from ..board.shared_folder import SharedFolder
from ..board.webrepl import WrongPassword
from ..text import one_line
from . import board_source, documentation, source
from .errors import BoardAway, InBootloader, NoBoard

Say = Callable[[str], None]
"""Takes a sentence for people, shown in the cell that waits."""

MakeBoard = Callable[[Address, SerialOptions, str, OnState], Board]
"""From address, options and password."""

PATIENCE = 60.0
_RETRY = 1.0
_ENOUGH_MEMORY = 20_000  # bytes free, for conveniences of ours on the board
_MENTIONS = re.compile(r"\bfarkernel\b|\b_repr_[a-z]+_\b")
_RESET_DEADLINE = 3.0


class HeldBoard:
    """One board, from its address; everything about it that a notebook wants."""

    def __init__(
        self,
        name: str,
        address: Address,
        options: SerialOptions,
        make: MakeBoard,
        password: str = "",
        patience: float = PATIENCE,
        keep_memory: bool = False,
    ) -> None:
        self.name = name
        self.address = address
        self.options = options
        self.patience = patience
        self.board = make(address, options, password, self._on_state)
        self.files = BoardFiles(self.board)
        self.said = ""
        self.rich = False  # it has our module: results are shown as pictures and tables, if their types can
        self.small = True
        self.in_bootloader = False  # left alone until somebody says %connect
        self.folder: SharedFolder | None = None  # of this side, mounted there
        self._keep_memory = keep_memory
        self._modules: tuple[str, ...] = ()
        self._fresh = True  # the interpreter there has none of our helpers
        self._away_since: float | None = None
        self._news: list[str] = []
        self._changed = asyncio.Event()
        self._connecting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<HeldBoard {self.name} {self.board.state.value}{', fresh' if self._fresh else ''}>"

    @property
    def where(self) -> str:
        return one_line(self.board.transport.describe())

    @property
    def info(self) -> BoardInfo | None:
        return self.board.info

    def describe(self) -> str:
        """One line for people."""
        info = self.board.info
        what = f"{one_line(info.machine)}, {one_line(info.firmware)}" if info else "not seen yet"
        return f"{self.name}: {what} at {self.where} ({self.board.state.value})"

    # -- coming and going

    def _on_state(self, state: BoardState, said: str) -> None:
        self.said = one_line(said)
        if state is BoardState.LOST:
            self._fresh = True
            self._away_since = self._away_since or time.time()
        elif state is BoardState.READY and self._away_since is not None:
            clock = time.strftime("%H:%M:%S", time.localtime(self._away_since))
            self._news.append(
                f"{self.name} was away from {clock} to {time.strftime('%H:%M:%S')} and is back; "
                "its variables may be gone"
            )
            self._away_since = None
        self._changed.set()

    def news(self) -> list[str]:
        """What happened since the last cell; each is told once."""
        news, self._news = self._news, []
        return news

    async def ready(self, say: Say, patience: float | None = None) -> Board:
        """Connected, with our helpers on it.  A board that is away is waited for, and that is said.

        Raises `BoardAway`, `BoardBusy`, `BoardPermission` and others that waiting does not mend.
        """
        if self.in_bootloader:
            raise InBootloader(self.name)
        patience = self.patience if patience is None else patience
        deadline = asyncio.get_running_loop().time() + patience
        async with self._connecting:
            told = ""
            while self.board.state in (
                BoardState.CLOSED,
                BoardState.LOST,
                BoardState.OPENING,
                BoardState.RESETTING,
            ):
                why = await self._try() if self.board.state is BoardState.CLOSED else self.said
                if not self._is_away():
                    continue
                self._changed.clear()  # after our own try, which changes it too
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    raise BoardAway(self.where, why, patience)
                if why != told:
                    say(f"waiting for the board: {why}")
                    told = why
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _RETRY)):
                        await self._changed.wait()
            if told:
                say(f"{self.name} is there: {self.describe()}")
            if self._fresh:
                await self._prepare()
                await self._mount_again(say)
        return self.board

    def _is_away(self) -> bool:
        return self.board.state not in (BoardState.READY, BoardState.RUNNING)

    async def _try(self) -> str:
        """Why it is not there; empty when it is."""
        try:
            await self.board.connect()
        except WrongPassword:
            raise
        except (BoardGone, NotABoard, BoardUnreachable) as error:
            return one_line(error.what)
        self._away_since = None
        if not self._keep_memory:
            await self.board.soft_reset(lambda data: None)
        self._keep_memory = False
        return ""

    async def _prepare(self) -> None:
        """Our input(); what else is needed comes when a cell needs it."""
        self._fresh = False
        self.rich = False
        await self.board.execute(source.INPUT, _ignore)
        try:
            self.small = int(await self.board.evaluate("__import__('gc').mem_free()")) < _ENOUGH_MEMORY
        except (BoardException, TypeError, ValueError):
            self.small = True  # a firmware that cannot say has little

    async def mount(self, folder: SharedFolder) -> None:
        """Instead of one that is mounted already; raises what `mounting.mount` raises."""
        if self.folder is not None:
            await self.unmount()
        await mount(self.board, folder)
        self.folder = folder

    async def unmount(self) -> None:
        folder, self.folder = self.folder, None
        try:
            await unmount(self.board)
        finally:
            if folder is not None:
                folder.close()

    async def _mount_again(self, say: Say) -> None:
        """A fresh interpreter has lost it."""
        folder, self.folder = self.folder, None
        if folder is None:
            return
        try:
            await self.mount(folder)
        except BoardError as error:
            say(f"{one_line(folder.folder)} is no longer mounted on {self.name}: {error}")

    async def prepare(self, code: str) -> str:
        """The code as the board shall run it; the module ``farkernel`` is put there if it speaks of that."""
        if _MENTIONS.search(code):
            await self._put_module()
            if self.small:
                code = source.without_import(code)
        return source.with_result(code, self.rich)

    async def _put_module(self) -> None:
        if self.rich:
            return
        module = board_source.install_small_code() if self.small else board_source.install_code()
        traceback = await self.board.execute(module, _ignore)
        if traceback:
            raise BoardException(traceback)
        self.rich = True

    async def firmware_modules(self) -> tuple[str, ...]:
        """The modules that are built in; asked once, since they come with the firmware."""
        if not self._modules:
            said: list[bytes] = []
            await self.board.execute("help('modules')", said.append)
            self._modules = listed_modules(b"".join(said).decode("utf-8", "replace"))
        return self._modules

    async def names(self, lists: str, prefix: str) -> list[str]:
        """Those that begin with `prefix`; ``lists``: expressions for lists of names.

        Chosen by the board, one at a time: little memory there, and little to send.  Raises `BoardException`.
        """
        said: list[bytes] = []
        failed = await self.board.execute(
            f"{source.NAMES}_fk_names({prefix!r},{lists})\ndel _fk_names", said.append
        )
        if failed:
            raise BoardException(failed)
        return b"".join(said).decode("utf-8", "replace").split()

    async def free_memory(self) -> int:
        """Bytes; raises `BoardException` where the firmware cannot say."""
        await self.board.execute("import gc\ngc.collect()", _ignore)
        return int(await self.board.evaluate("__import__('gc').mem_free()"))

    async def release(self, reset: bool) -> None:
        """Give the port free; with ``reset`` the board forgets what the notebook did."""
        if reset and self.board.state in (BoardState.READY, BoardState.RUNNING):
            with contextlib.suppress(TimeoutError, BoardError):  # it is given free all the same
                async with asyncio.timeout(_RESET_DEADLINE):
                    await self.board.interrupt()
                    await self.board.soft_reset(_ignore)
        await self.board.close()
        if self.folder is not None:
            self.folder.close()
        self.folder = None
        self._fresh = True
        self._away_since = None

    async def bootloader(self) -> None:
        """Into its bootloader, and off its port: others write to it now.  Raises `Unsupported`."""
        await self.board.bootloader()
        await self.board.close()
        self.in_bootloader = True
        self.forgotten()

    def forgotten(self) -> None:
        """The interpreter there is a new one: after a reset."""
        self._fresh = True
        self._away_since = None


def listed_modules(text: str) -> tuple[str, ...]:
    """What `help('modules')` shows; firmware that explains the word "modules" instead is the micro:bit's."""
    names, found, _ = text.partition("Plus any")
    if not found:
        return documentation.MICROBIT_MODULES
    words = (word.replace("/", ".").removesuffix(".__init__") for word in names.split())
    return tuple(word for word in words if re.fullmatch(r"[\w.]+", word) and word != "__main__")


def _ignore(data: bytes) -> None:
    return


class Boards:
    """All of a notebook's boards by name; one of them is the present one."""

    def __init__(self, make: MakeBoard) -> None:
        self._make = make
        self._held: dict[str, HeldBoard] = {}
        self._current = ""

    def __iter__(self) -> Iterator[HeldBoard]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    @property
    def names(self) -> list[str]:
        return list(self._held)

    @property
    def current(self) -> HeldBoard:
        """Raises `NoBoard`."""
        return self.named(self._current) if self._current else self.named("")

    @property
    def present(self) -> HeldBoard | None:
        return self._held.get(self._current)

    def named(self, name: str) -> HeldBoard:
        """Raises `NoBoard`."""
        held = self._held.get(name)
        if held is None:
            raise NoBoard(name, self._held)
        return held

    def choose(self, name: str) -> HeldBoard:
        held = self.named(name)
        self._current = name
        return held

    def add(
        self,
        name: str,
        address: Address,
        options: SerialOptions,
        password: str = "",
        patience: float = PATIENCE,
        keep_memory: bool = False,
    ) -> HeldBoard:
        """The present one from now on.  Not connected yet; a former one of that name must have been removed."""
        held = HeldBoard(name, address, options, self._make, password, patience, keep_memory)
        self._held[name] = held
        self._current = name
        return held

    async def remove(self, name: str, reset: bool = False) -> None:
        held = self.named(name)
        await held.release(reset)
        del self._held[name]
        if self._current == name:
            self._current = next(iter(self._held), "")

    async def release_all(self, reset: bool) -> None:
        await asyncio.gather(*(held.release(reset) for held in self), return_exceptions=True)
