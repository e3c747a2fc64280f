"""The adapter of HTCondor against what a real one said."""

from __future__ import annotations

import pytest

from farkernel.backends.batch.contract import CannotTell, EndKind, Job, JobState, Refused, Request, Said
from farkernel.backends.batch.htcondor import ADAPTER

from .transcript import Transcript

RECORDED = Transcript("htcondor-23.9")
QUERY = "condor_q -json -constraint"
NONE = RECORDED.said(QUERY)


def ended(job: str, kind: EndKind) -> str:
    history = RECORDED.said(f"condor_history -json -limit 1 -attributes … {job}")
    end = ADAPTER.ended(Job(job, "", JobState.UNKNOWN), [NONE, history]).end
    assert end is not None
    assert end.kind is kind
    return end.text


def test_submissions() -> None:
    assert ADAPTER.submitted(RECORDED.said("condor_submit -terse … 'batch_name = fk-a-1'")) == "1"
    with pytest.raises(Refused, match="refuses the job: Parse error in expression: RequestCpus = -"):
        ADAPTER.submitted(RECORDED.said("condor_submit -terse … 'batch_name = fk-a-4'"))
    with pytest.raises(Refused, match="I don't know about the 'nosuch' universe"):
        ADAPTER.submitted(RECORDED.said("condor_submit -terse … 'batch_name = fk-a-5'"))
    with pytest.raises(CannotTell, match="Can't find address of local schedd"):
        ADAPTER.submitted(RECORDED.said("condor_submit -terse … 'batch_name = fk-a-6'"))


def test_the_queue() -> None:
    assert ADAPTER.jobs([NONE]) == []
    running, waiting = ADAPTER.jobs([RECORDED.said(QUERY, 1)])
    assert (running.id, running.name, running.state, running.node) == (
        *("1", "fk-a-1", JobState.RUNNING),
        "localhost",
    )
    assert running.ends is not None
    assert running.starts is not None
    assert running.ends - running.starts == 3601  # it had to be brought there first
    assert waiting.state is JobState.QUEUED
    assert ADAPTER.waiting(waiting) == "no free machine has what it asks for"
    with pytest.raises(CannotTell, match=r"does not answer: Can't find address for schedd localhost\. Jobs"):
        ADAPTER.jobs([RECORDED.said("condor_q -json 1")])


def test_holds() -> None:
    held, never_ran = ADAPTER.jobs([RECORDED.said(QUERY, 2)])
    assert (held.state, never_ran.state) == (JobState.HELD, JobState.HELD)
    assert ADAPTER.waiting(held) == "via condor_hold (by user alice); let it go with: condor_release 1"
    assert ADAPTER.waiting(never_ran) == "not today (by user alice); let it go with: condor_release 2"


def test_ends() -> None:
    assert ended("1", EndKind.CANCELLED) == "it was cancelled (via condor_rm (by user alice))"
    assert ended("2", EndKind.CANCELLED) == "it was cancelled (the room is closed (by user alice))"
    limit = "its time limit was reached (The job exceeded allowed execute duration of 00:05)"
    assert ended("3", EndKind.TIME_LIMIT) == limit
    assert ended("99", EndKind.GONE) == "HTCondor no longer knows it"


def ad(**facts: object) -> Job:
    """A job in the queue, with these attributes."""
    text = ", ".join(f'"{name}": {value}' for name, value in facts.items())
    (job,) = ADAPTER.jobs([Said(0, f'[{{"ClusterId": 1, {text}}}]', "")])
    return job


def test_a_job_over_a_limit_is_held_for_a_moment() -> None:
    """Until PeriodicRemove is looked at; it is over all the same."""
    job = ad(JobStatus=5, HoldReasonCode=34, HoldReason='"x"', MemoryProvisioned=384, ResidentSetSize=400384)
    assert job.state is JobState.ENDED
    assert job.end is not None
    assert job.end.text == "it ran out of memory (it had 384 MB and used 391 MB)"


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"EnteredCurrentStatus": 100, "ServerTime": 105}, JobState.STARTING),
        (
            {"EnteredCurrentStatus": 100, "ServerTime": 105, "JobCurrentStartExecutingDate": 90},
            JobState.STARTING,
        ),
        (
            {"EnteredCurrentStatus": 100, "ServerTime": 105, "JobCurrentStartExecutingDate": 101},
            JobState.RUNNING,
        ),
        ({"EnteredCurrentStatus": 100, "ServerTime": 190}, JobState.RUNNING),  # told late, or never
        ({}, JobState.RUNNING),
    ],
)
def test_a_script_on_its_way(facts: dict[str, int], state: JobState) -> None:
    assert ad(JobStatus=2, **facts).state is state


def test_back_in_the_queue() -> None:
    words = ADAPTER.waiting(ad(JobStatus=1, NumJobStarts=1, LastRejMatchReason='"no match found "'))
    assert words == "it ran before, and was put back into the queue; no free machine has what it asks for"


def test_cancelling() -> None:
    for command in ("condor_rm 1", "condor_rm 99", "condor_rm -reason"):
        ADAPTER.cancelled(RECORDED.said(command))
    with pytest.raises(CannotTell, match="Can't find address for schedd"):
        ADAPTER.cancelled(RECORDED.said("condor_rm 1", -1))


def test_a_request_for_gpus() -> None:
    lines = ADAPTER.submit(Request("fk-x", gpus=1, gpu_type='a-"100'), "").argv
    assert 'require_gpus = regexp("a..100", DeviceName, "i")' in lines
