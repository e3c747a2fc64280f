"""Slurm's adapter against what Slurm 22.05 said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from farkernel.backends.batch.slurm import ADAPTER
from farkernel.backends.batch.slurm_words import REASONS, STATES, explain

from .transcript import Transcript

SLURM = Transcript("slurm-22.05")


def test_a_request_becomes_arguments() -> None:
    request = Request(
        "fk-x",
        queue="gpu",
        cpus=8,
        memory=(64 << 30) + 1,
        time=90 * 60 + 30,
        gpus=2,
        gpu_type="a100",
        options=("--account=abc", "--qos", "high"),
        environment={"A": "b"},
    )
    command = ADAPTER.submit(request, "#!/bin/sh\n")
    assert command.argv == (
        "sbatch",
        "--parsable",
        "--job-name=fk-x",
        "--output=/dev/null",
        "--error=/dev/null",
        "--chdir=/",
        "--no-requeue",
        "--partition=gpu",
        "--cpus-per-task=8",
        "--mem=65537M",
        "--time=90:30",
        "--gres=gpu:a100:2",
        "--account=abc",
        "--qos",
        "high",
    )
    assert (command.stdin, command.environment) == ("#!/bin/sh\n", {"A": "b"})


def test_several_nodes() -> None:
    assert "--nodes=3" in ADAPTER.submit(Request("fk-x", nodes=3), "").argv


def test_an_engine_outlives_a_node() -> None:
    """The job of one goes on without a node that fails (sbatch(1), --no-kill)."""
    assert "--no-kill" in ADAPTER.submit(Request("fk-a", nodes=4, spread=True), "").argv
    assert "--no-kill" not in ADAPTER.submit(Request("fk-a", nodes=4), "").argv


def test_the_answer_to_a_submission() -> None:
    assert ADAPTER.submitted(SLURM.said("sbatch --parsable --job-name=fk-run")) == "1"
    assert ADAPTER.submitted(Said(0, "77;mini\n", "sbatch: warning: something\n")) == "77"


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (0, "invalid partition specified: nosuch; Invalid partition name specified"),
        (1, "Memory specification can not be satisfied; Requested node configuration is not available"),
        (2, "Requested node configuration is not available"),
        (3, "Invalid --time specification"),
        (4, "unrecognized option '--nosuch-option'"),
    ],
)
def test_what_slurm_refuses(which: int, words: str) -> None:
    with pytest.raises(Refused) as caught:
        ADAPTER.submitted(SLURM.said("sbatch --parsable --job-name=fk-bad", which))
    assert caught.value.what == f"Slurm refuses the job: {words}"
    assert "farkernel resources" in caught.value.advice


@pytest.mark.parametrize("name", ["frozen", "dead"])
def test_a_submission_that_may_have_been_taken(name: str) -> None:
    with pytest.raises(CannotTell):
        ADAPTER.submitted(SLURM.said(f"sbatch --parsable --job-name=fk-{name}"))


def test_an_answer_without_an_id() -> None:
    with pytest.raises(CannotTell):
        ADAPTER.submitted(Said(0, "thank you\n", ""))


def found() -> dict[str, Job]:
    jobs = ADAPTER.jobs([SLURM.said("squeue --noheader --me --states=all --name=fk-run,fk-resources")])
    return {job.name.removeprefix("fk-"): job for job in jobs}


def test_the_queue() -> None:
    jobs = found()
    assert {name: job.state for name, job in jobs.items()} == {
        "run": JobState.RUNNING,
        "resources": JobState.QUEUED,
        "priority": JobState.QUEUED,
        "held": JobState.HELD,
        "down": JobState.QUEUED,
        "exit": JobState.ENDED,
        "long": JobState.RUNNING,
    }
    assert jobs["run"] == Job(
        "1",
        "fk-run",
        JobState.RUNNING,
        "RUNNING",
        node="gpu1",
        starts=1795243221,
        ends=1795244421,
        queue="gpu",
    )
    assert jobs["resources"].starts == 1795244421
    assert (jobs["resources"].node, jobs["resources"].ends, jobs["down"].starts) == ("", None, None)


def test_why_jobs_wait() -> None:
    jobs = found()
    assert ADAPTER.waiting(jobs["resources"]) == "it is next, and waits for nodes to become free (Resources)"
    assert ADAPTER.waiting(jobs["priority"]) == "jobs of higher priority are before it (Priority)"
    assert "scontrol release" in ADAPTER.waiting(jobs["held"])
    assert explain("AssocGrpGRES") == "your account is at a limit (AssocGrpGRES)"
    assert explain("ReqNodeNotAvail, UnavailableNodes:c1").startswith(REASONS["ReqNodeNotAvail"])
    assert explain("SomethingNew") == "SomethingNew"


def test_the_order_of_the_queue() -> None:
    assert ADAPTER.place("gpu").argv[-2:] == ("--sort=-p,i", "--format=%i")
    assert ADAPTER.order(SLURM.said("squeue --noheader --states=PENDING")) == ["2", "3"]
    assert ADAPTER.order(Said(1, "", "no")) == []


def test_nothing_found_is_an_answer() -> None:
    assert ADAPTER.jobs([SLURM.said("squeue --noheader --me --states=all --name=fk-none")]) == []


@pytest.mark.parametrize("which", ["fk-frozen", "fk-dead"])
def test_no_answer_says_nothing_about_jobs(which: str) -> None:
    with pytest.raises(CannotTell) as caught:
        ADAPTER.jobs([SLURM.said(f"squeue --noheader --me --states=all --name={which}")])
    assert caught.value.what.startswith("Slurm does not answer: slurm_load_jobs error: ")
    assert "asked again" in caught.value.advice


def test_an_answer_that_was_cut_says_nothing() -> None:
    with pytest.raises(CannotTell):
        ADAPTER.jobs([Said(0, "", "", cut=True)])


def ended(number: str) -> Job:
    job = Job(number, "fk-x", JobState.UNKNOWN)
    details = [
        SLURM.said(f"scontrol --oneliner show job {number}"),
        SLURM.said(f"sacct --noheader --parsable2 --jobs {number}"),
    ]
    return ADAPTER.ended(job, details)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        ("1", EndKind.CANCELLED, "it was cancelled"),
        ("4", EndKind.CANCELLED, "it was cancelled"),
        ("6", EndKind.FAILED, "its script ended on node1 with status 7"),
        ("7", EndKind.TIME_LIMIT, "its time limit was reached (00:01:00)"),
        ("99999", EndKind.GONE, "Slurm no longer knows it, and keeps no accounts of it"),
    ],
)
def test_how_jobs_ended(number: str, kind: EndKind, words: str) -> None:
    end = ended(number).end
    assert end is not None
    assert (end.kind, end.text) == (kind, words)


def test_a_job_that_runs_has_not_ended() -> None:
    job = ended("2")
    assert (job.state, job.end) == (JobState.RUNNING, None)


def test_a_dead_controller_says_nothing_about_the_end() -> None:
    with pytest.raises(CannotTell):
        ADAPTER.ended(
            Job("2", "fk-x", JobState.UNKNOWN),
            [
                SLURM.said("scontrol --oneliner show job 2", -1),
                Said(1, "", "Slurm accounting storage is disabled"),
            ],
        )


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ("CANCELLED by 1000|0:0||1G|c1", EndKind.CANCELLED, "it was cancelled by user 1000"),
        ("OUT_OF_MEMORY|0:125||4G|c1\nOUT_OF_MEMORY|0:125|4189236K|4G|c1", EndKind.OUT_OF_MEMORY, "it ran out of memory (it had 4096M and used 4091M)"),
        ("PREEMPTED|0:0||1G|c1", EndKind.PREEMPTED, "a job of higher priority took its place (preempted)"),
        ("NODE_FAIL|0:0||1G|c7", EndKind.NODE_FAILED, "its node c7 failed"),
        ("FAILED|97:0||1G|c1", EndKind.FAILED, "no Python 3.6 or newer was found on c1"),
        ("FAILED|0:9||1G|c1", EndKind.FAILED, "its agent was ended on c1 by SIGKILL"),
        ("COMPLETED|0:0||1G|c1", EndKind.COMPLETED, "its agent had nothing more to do"),
    ],
)  # fmt: skip
def test_accounts_are_asked_when_the_controller_has_forgotten(row: str, kind: EndKind, words: str) -> None:
    """sacct(1), with slurmdbd."""
    said = [SLURM.said("scontrol --oneliner show job 99999"), Said(0, row + "\n", "")]
    end = ADAPTER.ended(Job("99999", "fk-x", JobState.UNKNOWN), said).end
    assert end is not None
    assert (end.kind, end.text) == (kind, words)


CANCELLED = "JobId=7 UserId=ann(1000) JobState=CANCELLED ExitCode=0:15 NumNodes=1 TRES=cpu=1,mem=2G,node=1 BatchHost=c1\n"


@pytest.mark.parametrize(
    ("accounts", "words", "lags"),
    [
        ("RUNNING|0:0||2G|c1\n", "it was cancelled", True),
        ("CANCELLED by 0|0:0||2G|c1\nwho|root\n", "it was cancelled by root", False),
        ("CANCELLED by 4711|0:0||2G|c1\nwho|\n", "it was cancelled by user 4711", False),
        ("", "it was cancelled", False),
    ],
)
def test_accounts_say_more_than_the_controller_and_later(accounts: str, words: str, lags: bool) -> None:
    said = [Said(0, CANCELLED, ""), Said(0, accounts, "")]
    end = ADAPTER.ended(Job("7", "fk-x", JobState.UNKNOWN), said).end
    assert end is not None
    assert (end.kind, end.text, end.lags) == (EndKind.CANCELLED, words, lags)


def test_the_controllers_figure_of_memory() -> None:
    """Without accounts nothing is known of what was used."""
    said = [Said(0, CANCELLED.replace("CANCELLED", "OUT_OF_MEMORY"), ""), Said(1, "", "disabled")]
    end = ADAPTER.ended(Job("7", "fk-x", JobState.UNKNOWN), said).end
    assert end is not None
    assert end.text == "it ran out of memory (it had 2048M)"


def test_cancelling() -> None:
    assert ADAPTER.cancel("7").argv == ("scancel", "7")
    ADAPTER.cancelled(SLURM.said("scancel 99999"))
    ADAPTER.cancelled(Said(1, "", "scancel: error: Kill job error on job id 5: Invalid job id specified"))
    with pytest.raises(CannotTell):
        ADAPTER.cancelled(SLURM.said("scancel 2"))


def test_every_state_of_the_manual_is_known() -> None:
    assert set(STATES.values()) == set(JobState) - {JobState.UNKNOWN}
    (job,) = ADAPTER.jobs([Said(0, "5|fk-x|BRAND_NEW|n/a|N/A|N/A|gpu|None\n", "")])
    assert job.state is JobState.UNKNOWN


def test_a_hostile_node_name_is_no_node() -> None:
    (job,) = ADAPTER.jobs([Said(0, "5|fk-x|RUNNING|--exec=x|N/A|N/A|gpu|None\n", "")])
    assert job.node == ""


@pytest.mark.parametrize("option", ["--array=1-3", "--array", "-a", "-a1-3", "--arr=7"])
def test_a_kernel_is_no_job_array(option: str) -> None:
    with pytest.raises(Refused, match=f"a kernel is one job, and the option {option} asks for a job array"):
        ADAPTER.submit(Request("fk-x", options=("--account=a", option)), "")
    ADAPTER.submit(Request("fk-x", options=("--account=a", "--acctg-freq=5", "-Aa")), "")


def test_ids_of_job_arrays() -> None:
    """Each task is a job that waits before ours; ids are never taken apart for anything else."""
    said = Said(0, "4\n5_[1-3,7%2]\n6_[0-20:10]\n8_2\n9_[1,3,...]\n7\n", "")
    order = ADAPTER.order(said)
    assert [order.count(each) for each in ("4", "5_[1-3,7%2]", "6_[0-20:10]", "8_2", "9_[1,3,...]")] == [
        1,
        4,
        3,
        1,
        2,
    ]
    assert order.index("7") == 11
    assert len(ADAPTER.order(Said(0, "5_[0-99999999]\n", ""))) == 100_000
    jobs = ADAPTER.jobs(
        [Said(0, "5_[1-3]|t|PENDING|n/a|N/A|N/A|gpu|None\n5_4|t|RUNNING|n1|1|2|gpu|None\n", "")]
    )
    assert [(job.id, job.state) for job in jobs] == [("5_[1-3]", JobState.QUEUED), ("5_4", JobState.RUNNING)]


@given(st.text(alphabet="0123456789_[]-:%,.x"))
def test_whatever_an_id_looks_like(text: str) -> None:
    assert len(ADAPTER.order(Said(0, f"7{text}\n", ""))) >= 1


def test_one_query_for_all() -> None:
    (command,) = ADAPTER.query([Wanted("fk-a", "1"), Wanted("fk-b", "")])
    assert "--name=fk-a,fk-b" in command.argv
