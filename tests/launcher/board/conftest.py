"""Boards in QEMU, one of each kind for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from farkernel.launcher.board.contract import BoardState
from farkernel.launcher.board.serial_line import SerialLine
from farkernel.launcher.board.session import Board

from ...sites.boards import VirtualBoard, microbit, mps2

Said = list[tuple[BoardState, str]]
Connect = Callable[[], AbstractAsyncContextManager[tuple[Board, Said]]]
Test = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture
def old(tmp_path: Path) -> Iterator[VirtualBoard]:
    """MicroPython 1.9.2, without raw-paste."""
    with microbit(tmp_path) as board:
        yield board


@pytest.fixture
def new(tmp_path: Path) -> Iterator[VirtualBoard]:
    """MicroPython 1.25, with raw-paste and littlefs."""
    with mps2(tmp_path) as board:
        yield board


@pytest.fixture(params=["old", "new"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VirtualBoard]:
    """Each of them."""
    with (microbit if request.param == "old" else mps2)(tmp_path) as board:
        yield board


@asynccontextmanager
async def connected(site: VirtualBoard) -> AsyncIterator[tuple[Board, Said]]:
    """A board in its raw REPL, and the states that it goes through."""
    said: Said = []
    board = Board(SerialLine(str(site.device)), lambda state, why: said.append((state, why)))
    await board.connect()
    try:
        yield board, said
    finally:
        await board.close()
