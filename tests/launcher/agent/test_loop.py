"""The agent's loop: turns, timers, and that nobody is woken for nothing."""

from __future__ import annotations

import os
import selectors
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.launcher.agent.log import Log
from farkernel.launcher.agent.loop import Loop


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop(Log(str(tmp_path / "log"), "loop"))
    yield loop
    loop.close()


def test_what_is_asked_for_soon_comes_once_after_all_that_was_ready(loop: Loop) -> None:
    done: list[str] = []
    pipes = [os.pipe() for _ in range(2)]

    def ended() -> None:
        done.append("end of the turn")
        loop.stop()

    def readable(name: str) -> None:
        done.append(name)
        if len(done) == 1:
            loop.soon(ended)

    for number, (ours, theirs) in enumerate(pipes):
        os.write(theirs, b"x")
        loop.watch(ours, lambda number=number: readable(f"pipe {number}"))  # type: ignore[misc]
    loop.run()
    assert sorted(done[:2]) == ["pipe 0", "pipe 1"]
    assert done[2:] == ["end of the turn"]
    for each in (each for pipe in pipes for each in pipe):
        os.close(each)


def test_what_is_asked_for_at_the_end_of_a_turn_comes_in_the_next_one(loop: Loop) -> None:
    done: list[int] = []

    def again() -> None:
        done.append(len(done))
        loop.soon(again if len(done) < 3 else loop.stop)

    loop.soon(again)
    loop.run()
    assert done == [0, 1, 2]


def test_nobody_is_woken_for_a_timer_that_was_cancelled(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    real = selectors.DefaultSelector.select

    def select(
        self: selectors.DefaultSelector, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        waits.append(timeout)
        return real(self, timeout)

    monkeypatch.setattr(selectors.DefaultSelector, "select", select)
    fired: list[str] = []
    timers = [loop.later(0.001 * number, lambda: fired.append("cancelled")) for number in range(10)]
    for timer in timers:
        timer.cancel()
    assert timers[0].is_cancelled
    loop.later(0.05, loop.stop)
    loop.run()
    assert fired == []
    assert len(waits) <= 2  # the one wait for the last timer (and one more where a clock is coarse)
