"""What is asked in the first cell: defaults, answers that are no good, front ends that cannot ask, interrupts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.address import parse_address
from farkernel.launcher.configuration import Target
from farkernel.launcher.errors import FarkernelError
from farkernel.launcher.keeper import resource_questions
from farkernel.launcher.keeper.cell_answers import CellAnswerer
from farkernel.launcher.keeper.resource_questions import (
    Answers,
    Interview,
    answers_text,
    defaults,
    prompt,
    questions,
    read,
)
from farkernel.launcher.keeper.user import KeeperUser
from farkernel.launcher.local_end.questions import Answered
from farkernel.launcher.settings import RESOURCE_KEYS, InvalidValue, Resources

GPU = Target(
    "gpu", parse_address("slurm:///gpu"), resources=Resources(gpus=1, memory=64 << 30), ask=("gpus", "time")
)


class Page:
    """A local end with at most one cell, and somebody who answers."""

    def __init__(self) -> None:
        self.cell: bool | None = None  # whether it can be asked
        self.awaits = False
        self.texts: list[str] = []
        self.said: list[str] = []
        self.waiting: list[str] = []
        self.answered: Answered | None = None
        self.asked = asyncio.Event()

    def cell_to_ask(self) -> object | None:
        return self if self.cell else None

    def can_be_asked(self) -> bool | None:
        return self.cell

    def ask(self, text: str, hidden: bool, answered: Answered) -> bool:
        assert not hidden
        if not self.cell:
            return False
        self.texts.append(text)
        self.answered = answered
        self.asked.set()
        return True

    def withdraw_question(self) -> None:
        self.answered = None

    def refuse_held(self, ename: str, text: str) -> None:
        raise AssertionError("nothing is refused")

    def say_waiting(self, sentence: str) -> None:
        self.waiting.append(sentence)

    def say_once(self, text: str, said: Callable[[], None]) -> None:
        self.said.append(text)

    async def type(self, words: str) -> None:
        await asyncio.wait_for(self.asked.wait(), 5)
        self.asked.clear()
        assert self.answered is not None
        self.answered(words)


class Scene:
    """An interview that is being held."""

    def __init__(self, target: Target = GPU, free: str = "2 of 4 GPUs free", argv: bool = False) -> None:
        self.page, self.user = Page(), KeeperUser()
        self.answerer = CellAnswerer(self.user, self.page, "", "k")
        self.interview = Interview(self.user, self.answerer, self.page, argv)
        self.looks = 0
        self.free = free
        self.task = asyncio.ensure_future(self.interview.hold(target, target.ask, self.look))

    async def look(self) -> str:
        self.looks += 1
        return self.free

    def run_cell(self, can: bool = True) -> None:
        self.page.cell = can
        self.interview.cell_came()

    def interrupt(self) -> None:
        self.page.cell = None
        self.answerer.leave()

    async def answers(self) -> Answers:
        return await asyncio.wait_for(self.task, 5)


def held(scenario: Callable[[], object]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def test_nothing_is_asked_before_a_cell_is_run_and_then_one_thing_after_the_other() -> None:
    async def scenario() -> None:
        scene = Scene()
        await asyncio.sleep(0.05)
        assert (scene.looks, scene.page.texts) == (0, [])
        scene.run_cell()
        await scene.page.type("2")
        await scene.page.type("4h")
        assert await scene.answers() == {"gpus": 2, "time": "4h"}
        assert scene.page.texts == [
            "gpu: what shall this kernel have? Enter takes what stands in brackets; interrupt takes the cell back.\n"
            "There now: 2 of 4 GPUs free\n"
            "GPUs [1]: ",
            "Time, such as 30m or 4h [as usual there]: ",
        ]
        assert scene.page.waiting[-1] == "starting"
        assert not scene.answerer.is_asked

    held(scenario)


def test_enter_takes_the_default_and_what_has_none_stays_as_usual() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.run_cell()
        await scene.page.type("")
        await scene.page.type("  ")
        assert await scene.answers() == {"gpus": 1}

    held(scenario)


def test_a_wrong_answer_is_told_and_asked_again() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.run_cell()
        await scene.page.type("many")
        await scene.page.type("-1")
        await scene.page.type("3")
        await scene.page.type("0s")
        await scene.page.type("90m")
        assert await scene.answers() == {"gpus": 3, "time": "90m"}
        assert scene.page.texts[1] == (
            "'gpus' has a value of the wrong kind, 'many'. Write a whole number, 0 or more.\nGPUs [1]: "
        )
        assert scene.page.texts[4].startswith(
            "'time' has a value of the wrong kind, '0s'. Write a duration above 0"
        )

    held(scenario)


def test_a_front_end_that_cannot_ask_gets_the_defaults_and_is_told() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.run_cell(can=False)
        assert await scene.answers() == {"gpus": 1}
        assert scene.page.said == [
            "[farkernel] gpu asks for gpus and time, which this front end cannot: taken is what the configuration "
            "says (gpus 1)\n"
        ]
        assert scene.looks == 0

    held(scenario)


def test_an_interrupt_takes_the_cell_back_and_the_next_cell_is_asked() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.run_cell()
        await asyncio.wait_for(scene.page.asked.wait(), 5)
        scene.page.asked.clear()
        scene.interrupt()
        await asyncio.sleep(0.05)
        assert not scene.task.done()
        scene.run_cell()
        await scene.page.type("1")
        await scene.page.type("1h")
        assert await scene.answers() == {"gpus": 1, "time": "1h"}

    held(scenario)


def test_who_stops_it_is_asked_nothing_more() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.run_cell()
        await asyncio.wait_for(scene.page.asked.wait(), 5)
        scene.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scene.task
        assert scene.page.answered is None
        assert not scene.answerer.is_asked
        assert repr(scene.user).startswith("<KeeperUser, 0 can be asked, open: []")

    held(scenario)


def test_what_is_free_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_questions, "LOOK", 0.1)

    async def scenario() -> None:
        scene = Scene()
        never = asyncio.Event()

        async def look() -> str:
            await never.wait()
            return ""

        scene.task.cancel()
        scene.task = asyncio.ensure_future(scene.interview.hold(GPU, ("gpus",), look))
        scene.run_cell()
        await scene.page.type("")
        await scene.answers()
        assert "There now: not known (no answer within 0.1 s)\n" in scene.page.texts[0]

    held(scenario)


def test_a_scheduler_that_does_not_answer_hinders_nobody() -> None:
    async def scenario() -> None:
        scene = Scene()

        async def look() -> str:
            raise FarkernelError("Slurm does not answer: \x1b[31mfrozen", "It is asked again")

        scene.task.cancel()
        scene.task = asyncio.ensure_future(scene.interview.hold(GPU, ("gpus",), look))
        scene.run_cell()
        await scene.page.type("")
        await scene.answers()
        assert "There now: not known (Slurm does not answer: frozen)\n" in scene.page.texts[0]

    held(scenario)


def test_a_front_end_that_waits_for_its_own_requests_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_questions, "_BACKGROUND_PATIENCE", 0.1)

    async def scenario() -> None:
        page = Scene()
        page.page.awaits = True
        page.interview.cell_came()
        await asyncio.sleep(0.4)
        assert not page.task.done()  # somebody will run a cell
        page.task.cancel()
        plain = Scene(argv=True)
        plain.page.awaits = True
        plain.interview.cell_came()
        assert await plain.answers() == {"gpus": 1}

    held(scenario)


# -- the pure parts ----------------------------------------------------------------------------------------


def test_where_a_host_is_its_own_scheduler_only_gpus_are_asked_for() -> None:
    ask = ("gpus", "time", "gpus", "gpu_memory", "nodes")
    host, board = (
        Target("h", parse_address("ssh://h"), ask=ask),
        Target("b", parse_address("serial:///dev/x"), ask=ask),
    )
    pool = Target("p", parse_address("pool:h,gpu"), ask=ask)
    assert questions(replace(GPU, ask=ask)) == ("gpus", "time", "gpu_memory", "nodes")
    assert questions(host) == ("gpus", "gpu_memory")
    assert questions(board) == ()
    assert questions(pool, [host]) == ("gpus", "gpu_memory")
    assert questions(pool, [host, GPU]) == ("gpus", "time", "gpu_memory", "nodes")


def test_defaults_are_as_they_would_be_written() -> None:
    every = Resources(
        gpus=2,
        gpu_type="a100",
        gpu_memory=20 << 30,
        opencl="gpu",
        cpus=8,
        memory=64 << 30,
        time=5400,
        nodes=1,
    )
    assert all(prompt(name, None) for name in RESOURCE_KEYS)
    assert defaults(every, RESOURCE_KEYS) == {
        "gpus": 2, "gpu_type": "a100", "gpu_memory": "20G", "opencl": "gpu", "cpus": 8, "memory": "64G", "time": "90m", "nodes": 1,
    }  # fmt: skip
    assert defaults(Resources(), RESOURCE_KEYS) == {}
    assert prompt("memory", "64G") == "Memory, such as 16G [64G]: "
    assert answers_text({}) == "whatever is usual there"


@given(st.builds(Resources, gpus=st.integers(0, 10**6), cpus=st.integers(1, 10**6), nodes=st.integers(1, 99),
                 memory=st.integers(1, 1 << 40).map(lambda each: each * 1024), time=st.integers(1, 10**8)))  # fmt: skip
def test_every_default_is_a_good_answer(resources: Resources) -> None:
    for name, value in defaults(resources, RESOURCE_KEYS).items():
        assert RESOURCE_KEYS[name](read(name, f" {value} ")) == getattr(resources, name)


@given(st.sampled_from(sorted(RESOURCE_KEYS)), st.text(max_size=20))
def test_whatever_is_typed_is_good_or_said(name: str, words: str) -> None:
    try:
        value = read(name, words)
    except InvalidValue as error:
        assert error.what.isprintable()
        return
    RESOURCE_KEYS[name](value)
