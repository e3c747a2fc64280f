"""The adapters of OpenPBS 23 and Torque 6 against what these said."""

from __future__ import annotations

import pytest

from farkernel.backends.batch import pbs, torque
from farkernel.backends.batch.contract import (
    CannotTell,
    EndKind,
    Job,
    JobState,
    Refused,
    Request,
    Said,
    Wanted,
)
from farkernel.backends.batch.pbs_text import blocks, first_host, seconds

from .transcript import Transcript, complaint

OPENPBS = Transcript("openpbs-23")
TORQUE = Transcript("torque-6")
WRAPPERS = Transcript("slurm-wlm-torque-22.05")
PBS, TRQ = pbs.ADAPTER, torque.ADAPTER

FULL = Request(
    "fk-x",
    "gpu",
    cpus=4,
    memory=2 << 30,
    time=3723,
    gpus=2,
    gpu_type="a100",
    nodes=2,
    environment={"A": "b,c"},
)


def test_a_request_for_pbs() -> None:
    command = PBS.submit(FULL, "script")
    assert command.argv == (
        *("qsub", "-N", "fk-x", "-j", "oe", "-o", "/dev/null", "-S", "/bin/sh", "-r", "n", "-q", "gpu"),
        *("-l", "select=2:ncpus=4:mem=2097152kb:ngpus=2:accelerator_model=a100", "-l", "place=scatter"),
        *("-l", "walltime=01:02:03", "-v", "A"),
    )
    assert (command.stdin, command.environment) == ("script", {"A": "b,c"})
    assert "select" not in " ".join(PBS.submit(Request("fk-x"), "").argv)


def test_a_request_for_torque() -> None:
    argv = TRQ.submit(FULL, "").argv
    assert "nodes=2:ppn=4:gpus=2:a100,mem=2097152kb,walltime=01:02:03" in argv
    # The script's path comes last: slurm-wlm-torque takes none on stdin.
    assert (argv[:2], argv[3:5]) == (("sh", "-c"), ("sh", "fk-x"))


def test_submissions() -> None:
    assert PBS.submitted(OPENPBS.said("qsub -l select=1:ncpus=1")) == "0.ctl"
    assert TRQ.submitted(Said(0, "5.ctl\n", "")) == "5.ctl"


@pytest.mark.parametrize(
    ("adapter", "transcript", "command", "words"),
    [
        (PBS, OPENPBS, "qsub -q nosuch", "Unknown queue"),
        (
            PBS,
            OPENPBS,
            "qsub -l walltime=bogus",
            "Illegal attribute or resource value Resource_List.walltime",
        ),
        (TRQ, TORQUE, "qsub -q nosuch", "Unknown queue"),
    ],
)
def test_refusals(adapter: pbs.Pbs, transcript: Transcript, command: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        adapter.submitted(complaint(transcript.said(command)))


def test_a_server_that_does_not_answer() -> None:
    dead = Said(111, "", "Connection refused\nqsub: cannot connect to server ctl (errno=111)\n")
    with pytest.raises(CannotTell):
        PBS.submitted(dead)
    with pytest.raises(CannotTell):
        PBS.jobs([Said(111, "", "qstat: cannot connect to server ctl (errno=111)\n")])


def jobs(adapter: pbs.Pbs, transcript: Transcript) -> dict[str, Job]:
    return {job.id: job for job in adapter.jobs([transcript.said("qstat -f")])}


def test_the_queue_of_openpbs() -> None:
    found = {job.id: job for job in PBS.jobs([Said(0, "".join(whole(OPENPBS)), "")])}
    assert {number: job.state for number, job in found.items()} == {
        "0.ctl": JobState.RUNNING,
        "1.ctl": JobState.RUNNING,
        "2.ctl": JobState.RUNNING,
        "3.ctl": JobState.QUEUED,
        "4.ctl": JobState.QUEUED,
        "5.ctl": JobState.HELD,
    }
    assert (found["0.ctl"].node, found["0.ctl"].left, found["0.ctl"].queue) == ("c1", 300, "workq")
    assert PBS.waiting(found["3.ctl"]) == "Insufficient amount of resource: ngpus (R: 2 A: 0 T: 2)"
    assert (
        PBS.waiting(found["4.ctl"])
        == "Can Never Run: Insufficient amount of resource: ncpus (R: 99 A: 8 T: 8)"
    )
    assert PBS.waiting(found["5.ctl"]) == "you hold it; let it go with: qrls"


def whole(transcript: Transcript) -> str:
    """Of all jobs, and not of one."""
    for which in range(9):
        said = transcript.said("qstat -f", which)
        if said.out.count("Job Id:") > 2:
            return said.out
    raise AssertionError("not recorded")


def test_the_queue_of_torque() -> None:
    found = {job.id: job for job in TRQ.jobs([Said(0, whole(TORQUE), "")])}
    assert found["5.ctl"].state is JobState.QUEUED
    assert found["10.ctl"].state is JobState.HELD
    assert TRQ.waiting(found["5.ctl"]) == "Not enough of the right type of nodes are available"


@pytest.mark.parametrize(
    ("adapter", "transcript", "command", "number", "kind", "words"),
    [
        (PBS, OPENPBS, "qstat -x -f 1.ctl", "1.ctl", EndKind.CANCELLED, "it was cancelled by alice@login"),
        (PBS, OPENPBS, "qstat -x -f 5.ctl", "5.ctl", EndKind.CANCELLED, "it was cancelled before it ran"),
        (
            PBS,
            OPENPBS,
            "qstat -x -f 7.ctl",
            "7.ctl",
            EndKind.TIME_LIMIT,
            "its time limit was reached (00:00:05)",
        ),
        (PBS, OPENPBS, "qstat -x -f 8.ctl", "8.ctl", EndKind.FAILED, "its script ended on c1 with status 7"),
        (TRQ, TORQUE, "qstat -f 3.ctl", "3.ctl", EndKind.CANCELLED, "it was cancelled"),
        (TRQ, TORQUE, "qstat -f 4.ctl", "4.ctl", EndKind.CANCELLED, "it was cancelled before it ran"),
        (
            TRQ,
            TORQUE,
            "qstat -f 13.ctl",
            "13.ctl",
            EndKind.TIME_LIMIT,
            "its time limit was reached (00:00:05)",
        ),
        (TRQ, TORQUE, "qstat -f 14.ctl", "14.ctl", EndKind.FAILED, "its script ended on c1 with status 7"),
    ],
)
def test_ends(
    adapter: pbs.Pbs, transcript: Transcript, command: str, number: str, kind: EndKind, words: str
) -> None:
    end = adapter.ended(Job(number, "x", JobState.UNKNOWN), [transcript.said(command)]).end
    assert end is not None
    assert (end.kind, end.text) == (kind, words)


def test_memory() -> None:
    text = "Job Id: 9.ctl\n    job_state = F\n    Resource_List.mem = 1gb\n    resources_used.mem = 1100000kb\n    Exit_status = -27\n"
    end = PBS.ended(Job("9.ctl", "x", JobState.UNKNOWN), [Said(0, text, "")]).end
    assert end is not None
    assert end.text == "it ran out of memory (it had 1gb and used 1100000kb)"


def test_a_job_that_nobody_knows() -> None:
    gone = complaint(TORQUE.said("qstat 99999"))
    assert TRQ.jobs([gone]) == []
    end = TRQ.ended(Job("99999.ctl", "x", JobState.UNKNOWN), [gone]).end
    assert end is not None
    assert end.kind is EndKind.GONE


def test_cancelling() -> None:
    PBS.cancelled(complaint(OPENPBS.said("qdel 1.ctl")))
    TRQ.cancelled(complaint(TORQUE.said("qdel 99999")))
    TRQ.cancelled(complaint(TORQUE.said("qdel 14.ctl")))
    with pytest.raises(CannotTell):
        TRQ.cancelled(Said(111, "", "qdel: cannot connect to server ctl (errno=111)"))


def test_queries() -> None:
    known, unknown = PBS.query([Wanted("fk-a", "1.ctl"), Wanted("fk-b", "")])
    assert known.argv == ("qstat", "-x", "-f", "1.ctl")
    assert (unknown.argv[:2], unknown.argv[-1]) == (("sh", "-c"), "fk-b")
    assert TRQ.query([Wanted("fk-a", "1.ctl")])[0].argv == ("qstat", "-f", "1.ctl")


def test_pieces_of_text() -> None:
    assert dict(blocks("Job Id: 1\n    a = b\n\tc\n    d = e\n\nJob Id: 2\n")) == {
        "1": {"a": "bc", "d": "e"},
        "2": {},
    }
    assert (first_host("c1/0*2+c2/0"), first_host("c1/0-3"), first_host("--x/0"), first_host("")) == (
        "c1",
        "c1",
        "",
        "",
    )
    assert (seconds("100:00:01"), seconds("77"), seconds("soon")) == (360001, 77, None)


def test_commands_over_slurm_submit() -> None:
    assert TRQ.submitted(WRAPPERS.said("qsub -N fk-a-1")) == "1"
    with pytest.raises(Refused, match=r"refuses the job: sbatch: error: .*Invalid partition name specified"):
        TRQ.submitted(WRAPPERS.said("qsub -N fk-a-3"))
    with pytest.raises(CannotTell, match="Unable to contact slurm controller"):
        TRQ.submitted(WRAPPERS.said("qsub -N fk-a-5"))


def test_the_queue_of_commands_over_slurm() -> None:
    running, queued = TRQ.jobs([WRAPPERS.said("qstat -f")])
    assert (running.id, running.name, running.state, running.node) == (
        *("1", "fk-a-1", JobState.RUNNING),
        "node1",
    )
    assert (queued.state, queued.queue, queued.node) == (JobState.QUEUED, "closed", "")
    assert TRQ.jobs([WRAPPERS.said("qstat -f 99")]) == []
    with pytest.raises(CannotTell, match="Problem loading jobs"):
        TRQ.jobs([WRAPPERS.said("qstat -f", -1)])


def test_the_end_in_commands_over_slurm() -> None:
    def end(number: str) -> str:
        said = WRAPPERS.said(f"qstat -f {number}")
        found = TRQ.ended(Job(number, "x", JobState.UNKNOWN), [said]).end
        assert found is not None
        return found.text

    assert end("1") == "Torque does not say why"
    assert end("2") == "it was cancelled before it ran"
    TRQ.cancelled(WRAPPERS.said("qdel 1"))
    TRQ.cancelled(WRAPPERS.said("qdel 1", 1))  # it is over already: status 1, and no word
    with pytest.raises(CannotTell, match="Unable to contact slurm controller"):
        TRQ.cancelled(WRAPPERS.said("qdel 1", -1))
