"""Grid Engine's adapter against what Grid Engine 8.1.9 said."""

from __future__ import annotations

import pytest

from farkernel.backends.batch.contract import CannotTell, EndKind, Job, JobState, Refused, Request, Said
from farkernel.backends.batch.sge import ADAPTER

from .transcript import Transcript

SGE = Transcript("gridengine-8.1.9")


def test_a_request() -> None:
    request = Request(
        "fk-x", "gpu.q", cpus=4, memory=8 << 30, time=90, gpus=1, gpu_type="a100", environment={"A": "b,c"}
    )
    command = ADAPTER.submit(request, "script")
    assert command.argv[8:] == (
        *(
            "-S",
            "/bin/sh",
            "-r",
            "n",
            "-C",
            "#farkernel-has-none",
            "-wd",
            "/",
            "-q",
            "gpu.q",
            "-pe",
            "smp",
            "4",
        ),
        *("-l", "h_vmem=2048M,h_rt=90,gpu=1,gpu_type=a100", "-v", "A"),
    )
    assert (command.stdin, command.environment) == ("script", {"A": "b,c"})


def test_submissions() -> None:
    assert ADAPTER.submitted(SGE.said("qsub -terse -N fk-run")).isdecimal()
    assert ADAPTER.submitted(Said(0, 'Your job 12 ("fk-x") has been submitted\n', "")) == "12"


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (0, 'Job was rejected because job requests unknown queue "nosuch"'),
        (1, 'unknown resource "nosuch"'),
        (2, 'qsub: invalid option argument "--nosuch"'),
    ],
)
def test_refusals(which: int, words: str) -> None:
    with pytest.raises(Refused) as caught:
        ADAPTER.submitted(SGE.said("qsub -terse -N fk-bad", which))
    assert caught.value.what == f"Grid Engine refuses the job: {words}"


def test_a_master_that_does_not_answer() -> None:
    dead = Said(
        1,
        "",
        "error: commlib error: got select error (Connection refused)\nunable to send message to qmaster\n",
    )
    with pytest.raises(CannotTell):
        ADAPTER.submitted(dead)
    with pytest.raises(CannotTell):
        ADAPTER.jobs([dead])
    with pytest.raises(CannotTell):
        ADAPTER.cancelled(dead)


def test_the_queue() -> None:
    jobs = {job.name: job for job in ADAPTER.jobs([SGE.said("sh -c 'qstat -xml")])}
    assert {name: job.state for name, job in jobs.items()} == {
        "fk-run": JobState.RUNNING,
        "fk-long": JobState.RUNNING,
        "fk-two": JobState.QUEUED,
        "fk-wait": JobState.QUEUED,
        "fk-held": JobState.HELD,
    }
    assert (jobs["fk-run"].node, jobs["fk-run"].queue) == ("c1", "all.q")
    assert ADAPTER.waiting(jobs["fk-wait"]) == "it waits for free slots"
    assert ADAPTER.waiting(jobs["fk-held"]) == "it is held; let it go with: qrls"


@pytest.mark.parametrize(
    ("which", "kind", "words"),
    [
        (0, EndKind.CANCELLED, "it was killed by signal 9; it had used 3.305MB of memory"),
        (1, EndKind.FAILED, "its script ended on c1 with status 7"),
        (2, EndKind.TIME_LIMIT, "its time limit was reached (h_rt)"),
        (3, EndKind.GONE, "Grid Engine no longer knows it, and its accounts (qacct) do not have it (yet)"),
    ],
)
def test_ends(which: int, kind: EndKind, words: str) -> None:
    job = Job("1", "fk-x", JobState.UNKNOWN)
    end = ADAPTER.ended(job, [SGE.said("sh -c 'qstat -xml", 1), SGE.said("qacct -j", which)]).end
    assert end is not None
    assert (end.kind, end.text) == (kind, words)


def test_a_job_in_the_queue_has_not_ended() -> None:
    shown = SGE.said("sh -c 'qstat -xml")
    (running,) = (job for job in ADAPTER.jobs([shown]) if job.name == "fk-run")
    assert ADAPTER.ended(running, [shown, SGE.said("qacct -j", 3)]).state is JobState.RUNNING


def test_cancelling() -> None:
    ADAPTER.cancelled(SGE.said("qdel 9999"))
    ADAPTER.cancelled(SGE.said("qdel", 0))


@pytest.mark.parametrize(
    ("word", "state"),
    [("qw", "QUEUED"), ("hqw", "HELD"), ("Eqw", "HELD"), ("t", "STARTING"), ("r", "RUNNING"), ("dr", "ENDING"), ("z", "UNKNOWN")],
)  # fmt: skip
def test_letters(word: str, state: str) -> None:
    text = f"<job_info><job_list state='x'><JB_job_number>1</JB_job_number><state>{word}</state></job_list></job_info>"
    (job,) = ADAPTER.jobs([Said(0, text, "")])
    assert job.state is JobState[state]
