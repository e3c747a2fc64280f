"""What the notebook is told while a job waits."""

from __future__ import annotations

import time

import pytest

from farkernel.backends.batch.contract import Job, JobState
from farkernel.backends.batch.words import left_text, waiting_text

QUEUED = JobState.QUEUED


def test_a_job_that_waits_with_all_that_may_be_known() -> None:
    starts = time.time() + 44 * 60
    job = Job("12", "fk-x", QUEUED, queue="gpu", ahead=2, starts=starts)
    first, second = waiting_text("Slurm", job, "jobs of higher priority are before it (Priority)").split("\n")
    assert first == "Slurm job 12 is queued in gpu: jobs of higher priority are before it (Priority)"
    assert second.startswith("2 jobs are before it; expected to start ")
    assert second.endswith(", in 44 minutes")


@pytest.mark.parametrize(
    ("ahead", "reason", "second"),
    [
        (None, "it waits for free slots", ""),
        (0, "it waits for free slots", "\nit is the next in the queue"),
        (0, "it is next, and waits for nodes to become free (Resources)", ""),  # once is enough
        (1, "x", "\n1 job is before it"),
    ],
)
def test_the_place_in_the_queue(ahead: int | None, reason: str, second: str) -> None:
    job = Job("12", "fk-x", QUEUED, ahead=ahead)
    assert waiting_text("Slurm", job, reason) == f"Slurm job 12 is queued: {reason}{second}"


def test_other_states() -> None:
    held = waiting_text("PBS", Job("1", "x", JobState.HELD), "you hold it; let it go with: qrls")
    assert held == "PBS job 1 is held: you hold it; let it go with: qrls"
    assert waiting_text("PBS", Job("1", "x", JobState.STARTING, node="c1"), "") == "PBS job 1 starts on c1"
    unknown = waiting_text("PBS", Job("1", "x", JobState.UNKNOWN, word="Z"), "")
    assert unknown == "PBS job 1 is in a state that is not known here (Z)"
    assert [left_text(each) for each in (10, 60, 2640, 7500)] == [
        "less than a minute",
        "1 minute",
        "44 minutes",
        "2 h 05 min",
    ]
