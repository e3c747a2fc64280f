"""The waiting room, with clients that only remember what they were told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from farkernel.launcher.local_end import waiting_room
from farkernel.launcher.local_end.request_log import Request, RequestLog
from farkernel.launcher.local_end.waiting_room import Question, WaitingRoom, kernel_ended_refusal
from farkernel.launcher.messages import Composer, Message, Signer

SIGNER = Signer(b"key")
CLIENT = Composer(SIGNER, "client-session")


class Recorder:
    """Clients that keep what they got; events are set when something comes."""

    def __init__(self) -> None:
        self.composer = Composer(SIGNER, "kernel-session")
        self.published: list[Message] = []
        self.replies: list[tuple[str, Message]] = []
        self.something = asyncio.Event()

    def publish(self, message: Message) -> None:
        SIGNER.verify(message)
        self.published.append(message)
        self.something.set()

    def reply(self, channel: str, message: Message) -> None:
        SIGNER.verify(message)
        self.replies.append((channel, message))
        self.something.set()

    def types(self) -> list[str]:
        return [
            message.msg_type
            + (f":{message.content['execution_state']}" if message.msg_type == "status" else "")
            for message in self.published
        ]


def held(
    log: RequestLog, msg_type: str, content: dict[str, Any] | None = None, channel: str = "shell"
) -> Request:
    message = CLIENT.request(msg_type, content or {}, [b"client"])
    return log.add(channel, [bytes(frame) for frame in message.frames()])


@pytest.fixture
def log(tmp_path: Path) -> RequestLog:
    return RequestLog(tmp_path / "requests")


def test_what_is_held_comes_out_in_order_and_is_busy_once(log: RequestLog) -> None:
    async def scenario() -> None:
        clients = Recorder()
        room = WaitingRoom(clients, "gpu")
        requests = [
            held(log, name) for name in ("execute_request", "complete_request", "comm_msg", "execute_request")
        ]
        for request in requests:
            room.hold(request)
        assert (
            clients.types() == ["status:busy"] * 3
        )  # a comm_msg gets none: it has no reply that could end it
        assert [request.busy_sent for request in requests] == [True, True, False, True]
        assert room.leave() == ([], requests)
        assert clients.types() == ["status:busy"] * 3  # nothing had been shown, so nothing is cleared

    asyncio.run(scenario())


def test_the_first_cell_shows_what_is_waited_for_and_is_cleared(
    log: RequestLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_room, "SILENT_FOR", 0.0)

    async def scenario() -> None:
        clients = Recorder()
        room = WaitingRoom(clients, "gpu")
        cell, second = held(log, "execute_request"), held(log, "execute_request")
        room.hold(cell)
        room.hold(second)
        clients.something.clear()
        await asyncio.wait_for(clients.something.wait(), 5)
        assert clients.types()[2:] == ["stream"]
        room.say("place 3 in the queue")
        room.say("place 3 in the queue")  # nothing new: nothing shown
        assert clients.types()[3:] == ["clear_output", "stream"]
        shown = clients.published[-1]
        assert shown.parent["msg_id"] == cell.message.msg_id
        assert shown.content["text"].startswith("gpu: place 3 in the queue (waiting since ")
        room.leave()
        assert clients.types()[5:] == ["clear_output"]
        assert clients.published[-1].content == {"wait": False}

    asyncio.run(scenario())


def test_a_second_line_stands_below_the_first(log: RequestLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_room, "SILENT_FOR", 0.0)

    async def scenario() -> None:
        clients = Recorder()
        room = WaitingRoom(clients, "gpu")
        room.say("job 2 is queued\n3 jobs are before it")
        room.hold(held(log, "execute_request"))
        clients.something.clear()
        await asyncio.wait_for(clients.something.wait(), 5)
        first, second, third = clients.published[-1].content["text"].splitlines()
        assert (first, second) == ("gpu: job 2 is queued", "  3 jobs are before it")
        assert third.startswith("  waiting since ")
        assert third.endswith("; interrupt takes the cell back")
        assert room.sentence == "job 2 is queued; 3 jobs are before it"
        room.asked_for = "gpus 2, time 4h"
        room.say("job 2 is queued")
        first, second, _ = clients.published[-1].content["text"].splitlines()
        assert (first, second) == ("gpu: job 2 is queued", "  asked for: gpus 2, time 4h")
        room.asked_for = ""
        room.say("job 2 is queued: jobs of higher priority are before it (Priority)")
        assert len(clients.published[-1].content["text"].splitlines()) == 2  # too long for one

    asyncio.run(scenario())


def test_while_somebody_is_asked_nothing_clears_the_box_away(
    log: RequestLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_room, "SILENT_FOR", 0.0)

    async def scenario() -> None:
        clients = Recorder()
        room = WaitingRoom(clients, "gpu")
        cell = held(log, "execute_request")
        room.hold(cell)
        await asyncio.sleep(0.05)
        assert clients.types()[1:] == ["stream"]
        room.hush(cell)  # what was shown goes before the question comes
        assert clients.types()[2:] == ["clear_output"]
        room.say("something else")
        await asyncio.sleep(0.05)
        assert clients.types()[3:] == []
        room.go_on()
        room.hush(cell)  # the next question: what was asked and answered stays
        await asyncio.sleep(0.05)
        assert clients.types()[3:] == []
        room.go_on()
        await asyncio.sleep(0.05)
        assert clients.types()[3:] == ["clear_output", "stream"]  # now it has been answered, and makes room
        assert clients.published[-1].content["text"].startswith("gpu: something else")
        room.leave()
        assert clients.types()[5:] == ["clear_output"]

    asyncio.run(scenario())


def test_a_cell_that_runs_is_not_cleared_for_a_question_in_it(log: RequestLog) -> None:
    async def scenario() -> None:
        clients = Recorder()
        room = WaitingRoom(clients, "gpu")
        room.hush(held(log, "execute_request"))  # it is the kernel's by now
        room.go_on()
        room.leave()
        assert clients.types() == []

    asyncio.run(scenario())


def test_interrupt_gives_the_cells_back_and_keeps_the_rest(log: RequestLog) -> None:
    async def scenario() -> None:
        clients = Recorder()
        room = WaitingRoom(clients, "gpu")
        first, other, second = (
            held(log, "execute_request"),
            held(log, "inspect_request"),
            held(log, "execute_request"),
        )
        for request in (first, other, second):
            room.hold(request)
        assert room.interrupt() == [first, second]
        assert [(channel, reply.msg_type, reply.content["status"]) for channel, reply in clients.replies] == [
            ("shell", "execute_reply", "error"),
            ("shell", "execute_reply", "aborted"),
        ]
        assert clients.replies[0][1].content["ename"] == "KeyboardInterrupt"
        assert clients.replies[0][1].identities == [b"client"]
        assert clients.types()[3:] == ["error", "status:idle", "status:idle"]
        assert room.leave() == ([], [other])
        assert room.interrupt() == []

    asyncio.run(scenario())


@pytest.mark.parametrize("known", [True, False])
def test_kernel_info_is_answered_when_the_kernel_takes_its_time(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_room, "INFO_PATIENCE", 0.01)

    async def scenario() -> None:
        clients = Recorder()
        room = WaitingRoom(clients, "gpu")
        if known:
            room.info = {"language_info": {"name": "R"}, "supported_features": ["debugger"], "banner": "R"}
        message = CLIENT.request("kernel_info_request", {}, [b"client"])
        room.ask(Question("control", [bytes(frame) for frame in message.frames()], message))
        while len(clients.published) < 2:
            clients.something.clear()
            await asyncio.wait_for(clients.something.wait(), 5)
        assert clients.types() == ["status:busy", "status:idle"]
        ((channel, reply),) = clients.replies
        assert (channel, reply.msg_type, reply.content["status"]) == ("control", "kernel_info_reply", "ok")
        assert reply.content["supported_features"] == []  # what cannot be asked for yet is not promised
        assert reply.content["language_info"]["name"] == ("R" if known else "python")
        assert room.leave() == ([], [])

    asyncio.run(scenario())


def test_kernel_info_goes_to_a_kernel_that_comes_in_time() -> None:
    async def scenario() -> None:
        clients = Recorder()
        room = WaitingRoom(clients, "gpu")
        message = CLIENT.request("kernel_info_request", {}, [b"client"])
        question = Question("shell", [bytes(frame) for frame in message.frames()], message)
        room.ask(question)
        assert room.leave() == ([question], [])
        assert question.timer is not None
        assert question.timer.cancelled()
        assert not clients.published

    asyncio.run(scenario())


def test_the_end_of_a_kernel_is_told_with_its_last_lines() -> None:
    refusal = kernel_ended_refusal("gpu", {"text": "it was out of memory", "tail": "one\ntwo\n"})
    assert refusal.traceback == [
        "KernelEnded: gpu: it was out of memory",
        "",
        "The last lines that it wrote:",
        "  one",
        "  two",
    ]
    assert kernel_ended_refusal("gpu", {}).evalue == "the kernel has ended"
