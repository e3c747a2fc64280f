"""The notice before an allocation ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from farkernel.launcher.keeper import ending
from farkernel.launcher.keeper.ending import EndingNotice, warning


class Job:
    """Ends at a moment that may be moved."""

    def __init__(self, left: float) -> None:
        self.ends = time.time() + left
        self.looks = 0

    def give_up(self) -> None:
        raise AssertionError

    def facts(self) -> Mapping[str, Any]:
        return {"ends": self.ends}

    async def explain(self) -> Mapping[str, Any] | None:
        raise AssertionError

    def when_emptied(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        raise AssertionError

    async def look(self) -> float | None:
        self.looks += 1
        return self.ends


def said(job: Job, monkeypatch: pytest.MonkeyPatch, wait: float, moved: float = 0.0) -> list[str]:
    monkeypatch.setattr(ending, "WARN_BEFORE", (1.0, 0.5))
    monkeypatch.setattr(ending, "SLACK", 0.4)
    sentences: list[str] = []

    async def act() -> None:
        notice = EndingNotice(job, sentences.append)
        notice.start()
        notice.start()  # the link came back
        await asyncio.sleep(0.05)
        job.ends += moved
        await asyncio.sleep(wait)
        notice.stop()

    asyncio.run(act())
    return sentences


def test_twice_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(said(Job(1.2), monkeypatch, 1.2)) == 2


def test_an_end_that_was_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known is asked again before it is said."""
    job = Job(1.2)
    assert said(job, monkeypatch, 0.6, moved=100) == []
    assert job.looks == 1


def test_a_short_allocation_is_not_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(Job(0.05), monkeypatch, 0.3) == []


def test_the_sentence() -> None:
    text = warning(time.time() + 600)
    assert text.startswith("This kernel's allocation ends in 10 minutes, at ")
    assert text.endswith("save what you need")
    assert "in 1 minute," in warning(time.time() + 40)
