"""Who waits for a cell to begin, or to be over."""

from __future__ import annotations

import asyncio

import pytest

from farkernel.launcher.local_end.request_log import Request
from farkernel.launcher.local_end.starts import Starts
from farkernel.launcher.messages import Message, pack


def request(silent: bool = False) -> Request:
    header = {"msg_id": "m", "msg_type": "execute_request", "session": "s"}
    content = {"code": "x", "silent": silent}
    return Request(1, "shell", [b"client", b"<IDS|MSG>", b"", pack(header), b"{}", b"{}", pack(content)], 1)


def said(msg_type: str) -> Message:
    return Message(
        [], b"", [pack({"msg_id": "k", "msg_type": msg_type, "session": "k"}), b"{}", b"{}", b"{}"]
    )


@pytest.mark.parametrize(("silent", "sign"), [(False, "execute_input"), (True, "status")])
def test_begun(silent: bool, sign: str) -> None:
    """`busy` is no sign yet, except where there will be no other."""

    async def act() -> None:
        cell = request(silent)
        starts = Starts(lambda _: True)
        waits = asyncio.create_task(starts.begun(cell, None))
        if not silent:
            starts.note(cell, said("status"))
            assert not cell.started
        await asyncio.sleep(0)
        assert not waits.done()
        starts.note(cell, said(sign))
        assert cell.started
        await waits
        await starts.begun(cell, None)  # at once

    asyncio.run(act())


@pytest.mark.parametrize("what", ["begun", "over"])
def test_the_end_of_a_cell_ends_both(what: str) -> None:
    async def act() -> None:
        open_cells = [request()]
        cell = open_cells[0]
        starts = Starts(open_cells.__contains__)
        waits = asyncio.create_task(getattr(starts, what)(cell, None))
        await asyncio.sleep(0)
        open_cells.clear()
        starts.look()
        await waits
        await getattr(starts, what)(cell, None)

    asyncio.run(act())


def test_a_start_does_not_end_waiting_for_the_end() -> None:
    async def act() -> None:
        cell = request()
        starts = Starts(lambda _: True)
        waits = asyncio.create_task(starts.over(cell, None))
        await asyncio.sleep(0)
        starts.note(cell, said("execute_input"))
        await asyncio.sleep(0)
        assert not waits.done()
        waits.cancel()

    asyncio.run(act())


@pytest.mark.parametrize("what", ["begun", "over"])
def test_no_longer_than_patience(what: str) -> None:
    async def act() -> None:
        await getattr(Starts(lambda _: True), what)(request(), 0.01)

    asyncio.run(act())
