"""The adapter of OAR against what a real one said."""

from __future__ import annotations

import pytest

from farkernel.backends.batch.contract import EndKind, Job, JobState, Refused, Request, Said
from farkernel.backends.batch.oar import ADAPTER

from .transcript import Transcript

RECORDED = Transcript("oar-2.5.9")
QUERY = 'oarstat -f -J -u "$(id -un)"'


def ended(job: str, kind: EndKind) -> str:
    said = RECORDED.said(f"oarstat -f -J -j {job}")
    end = ADAPTER.ended(Job(job, "", JobState.UNKNOWN), [said]).end
    assert end is not None
    assert end.kind is kind
    return end.text


def test_submissions() -> None:
    assert ADAPTER.submitted(RECORDED.said("oarsub -n fk-a-1")) == "1"
    with pytest.raises(Refused, match="The queue nosuch does not exist"):
        ADAPTER.submitted(RECORDED.said("oarsub -n fk-a-3"))
    with pytest.raises(Refused, match="refuses the job: There are not enough resources for your request"):
        ADAPTER.submitted(RECORDED.said("oarsub -n fk-a-4"))


def test_what_a_job_is_told() -> None:
    """It gets nothing of the environment of oarsub."""
    command = ADAPTER.submit(Request("fk-x", environment={"FARKERNEL_JOB_PYTHONS": "/opt/a b:/c"}), "")
    assert command.argv[5] == "env FARKERNEL_JOB_PYTHONS='/opt/a b:/c' "
    assert command.environment == {}


def test_the_queue() -> None:
    assert ADAPTER.jobs([RECORDED.said(QUERY)]) == []
    jobs = {job.id: job for job in ADAPTER.jobs([RECORDED.said(QUERY, 1)])}
    running, waiting = jobs["1"], jobs["2"]
    assert (running.name, running.state, running.node, running.queue) == (
        *("fk-a-1", JobState.RUNNING),
        *("c1", "default"),
    )
    assert running.ends is not None
    assert running.starts is not None
    assert running.ends - running.starts == 600
    assert waiting.state is JobState.QUEUED
    assert ADAPTER.waiting(waiting) == "it waits for free resources"


def test_a_hold() -> None:
    (held,) = ADAPTER.jobs([RECORDED.said("oarstat -f -J -j 2")])
    assert held.state is JobState.HELD
    assert ADAPTER.waiting(held) == "User alice launched oarhold on the job 2; let it go with: oarresume 2"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("R=1,W=0:10:0,J=B,N=fk-a-6", "it waits for free resources"),
        ("R=1,W=0:10:0,J=B,N=fk-a-6 (Karma=0.000,quota_ok)", "it waits for free resources"),
        ("R=1,W=0:10:0,J=B,N=fk-a-6 (Karma=0.1,quotas_exceeded)", "quotas_exceeded"),
        ("Cannot find enough resources", "Cannot find enough resources"),
    ],
)
def test_why_it_waits(message: str, words: str) -> None:
    (job,) = ADAPTER.jobs([Said(0, f'{{"6": {{"state": "Waiting", "message": "{message}"}}}}', "")])
    assert ADAPTER.waiting(job) == words


def test_ends() -> None:
    assert ended("1", EndKind.CANCELLED) == "it was cancelled by alice"
    assert ended("3", EndKind.FAILED) == "no Python 3.6 or newer was found on c1"
    assert ended("4", EndKind.TIME_LIMIT) == "its time limit was reached"
    assert ended("99", EndKind.GONE) == "OAR no longer knows it"


def test_cancelling() -> None:
    for command, which in (("oardel 1", 0), ("oardel 1", 1), ("oardel 99", 0)):
        ADAPTER.cancelled(RECORDED.said(command, which))
