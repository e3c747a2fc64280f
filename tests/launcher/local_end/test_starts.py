"""Who waits for a cell to reach the kernel."""

from __future__ import annotations

import asyncio

import pytest

from farkernel.launcher.local_end import starts
from farkernel.launcher.local_end.request_log import Request
from farkernel.launcher.local_end.starts import Starts
from farkernel.launcher.messages import Message, pack


def request() -> Request:
    header = {"msg_id": "m", "msg_type": "execute_request", "session": "s"}
    return Request(
        1, "shell", [b"client", b"<IDS|MSG>", b"", pack(header), b"{}", b"{}", b'{"code": "x"}'], 1
    )


def said(msg_type: str) -> Message:
    return Message(
        [], b"", [pack({"msg_id": "k", "msg_type": msg_type, "session": "k"}), b"{}", b"{}", b"{}"]
    )


def test_an_interrupt_comes_once_its_cell_has_got_going(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_GETS_GOING", 0.01)

    async def act() -> None:
        cell, called = request(), asyncio.Event()
        waiting = Starts(lambda: cell)
        waiting.when_running(called.set)
        waiting.note(cell, said("status"))
        assert not cell.started
        waiting.note(cell, said("execute_input"))
        assert cell.started
        assert not called.is_set()
        await called.wait()

    asyncio.run(act())


def test_not_for_a_cell_that_has_ended_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_GETS_GOING", 0.01)

    async def act() -> None:
        running: list[Request] = [request()]
        called = asyncio.Event()
        waiting = Starts(lambda: running[0] if running else None)
        waiting.when_running(called.set)
        waiting.note(running[0], said("execute_input"))
        running.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(called.wait(), 0.1)

    asyncio.run(act())


def test_at_once_where_nothing_is_on_its_way() -> None:
    async def act() -> None:
        calls: list[int] = []
        Starts(lambda: None).when_running(lambda: calls.append(1))
        running = request()
        running.started = True
        Starts(lambda: running).when_running(lambda: calls.append(2))
        assert calls == [1, 2]

    asyncio.run(act())
