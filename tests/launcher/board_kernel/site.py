"""A kernel with fake boards, served from a thread of this process, and a client of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from jupyter_client.blocking.client import BlockingKernelClient

from farkernel.launcher.address import Address, parse_address
from farkernel.launcher.board.contract import OnState, SerialOptions
from farkernel.launcher.board_kernel.held import Boards
from farkernel.launcher.board_kernel.kernel import Kernel
from farkernel.launcher.board_kernel.wire import Wire
from farkernel.launcher.local_end.contract import CHANNELS, ConnectionInfo

from ...sites.engine import DEADLINE, connected
from .fake_board import FakeBoard

T = TypeVar("T")


class KernelSite:
    """`fakes`: the boards by their addresses; `prepare` changes one before the kernel connects to it."""

    def __init__(self, directory: Path) -> None:
        self.fakes: dict[str, FakeBoard] = {}
        self.prepare: Callable[[FakeBoard], None] = lambda board: None
        self.file = directory / "kernel.json"
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._directory = directory

    def _make(self, address: Address, options: SerialOptions, password: str, on_state: OnState) -> FakeBoard:
        board = self.fakes[str(address)] = FakeBoard(on_state)
        self.prepare(board)
        return board

    async def _serve(self, patience: float) -> None:
        self.loop = asyncio.get_running_loop()
        boards = Boards(self._make)
        boards.add("board", parse_address("serial:///dev/fake"), SerialOptions(), patience=patience)
        self.kernel = Kernel(boards)
        ports = {channel: number for number, channel in enumerate(CHANNELS, 1)}
        connection = ConnectionInfo("ipc", str(self._directory / "k"), ports, b"secret")
        self.file.write_text(json.dumps(connection.as_dict()))
        await self.kernel.open(await Wire.open(connection, self.kernel.on_request))
        self._ready.set()
        await self.kernel.ended.wait()
        await self.kernel.close(reset=True)

    def run(self, patience: float) -> None:
        asyncio.run(self._serve(patience))
        self._ended.set()

    @property
    def board(self) -> FakeBoard:
        return self.fakes["serial:///dev/fake"]

    def in_loop(self, act: Callable[[], T]) -> T:
        """Do it where the kernel lives."""

        async def do() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(do(), self.loop).result(DEADLINE)

    def ended(self) -> bool:
        return self._ended.wait(DEADLINE)


@contextlib.contextmanager
def kernel_site(
    directory: Path, patience: float = 30.0, prepare: Callable[[FakeBoard], Any] | None = None
) -> Iterator[tuple[KernelSite, BlockingKernelClient]]:
    site = KernelSite(directory)
    if prepare is not None:
        site.prepare = prepare
    thread = threading.Thread(target=site.run, args=(patience,))
    thread.start()
    assert site._ready.wait(DEADLINE)
    try:
        with connected(site.file) as client:
            yield site, client
    finally:
        site.in_loop(site.kernel.ended.set) if not site._ended.is_set() else None
        thread.join(DEADLINE)
