"""LSF by what its manual shows: there is none here to record.  And what OAR and HTCondor are asked for."""

from __future__ import annotations

import json

import pytest

from farkernel.backends.batch.contract import (
    Adapter,
    EndKind,
    Job,
    JobState,
    Refused,
    Request,
    Said,
    Wanted,
    WayIn,
)
from farkernel.backends.batch.htcondor import ADAPTER as HTCONDOR
from farkernel.backends.batch.lsf import ADAPTER as LSF
from farkernel.backends.batch.oar import ADAPTER as OAR

FULL = Request("fk-x", "gpu", cpus=4, memory=2 << 30, time=3700, gpus=2, gpu_type="A100")


def test_a_request_for_lsf() -> None:
    assert LSF.submit(FULL, "").argv == (
        *("bsub", "-J", "fk-x", "-o", "/dev/null", "-e", "/dev/null", "-rn", "-cwd", "/", "-q", "gpu"),
        *("-n", "4", "-R", "span[ptile=4]", "-M", "2048MB", "-R", "rusage[mem=2048MB]", "-W", "1:02"),
        *("-gpu", "num=2:gmodel=A100"),
    )


def test_a_request_for_oar() -> None:
    argv = OAR.submit(FULL, "the script").argv
    assert argv[4:] == (
        *("fk-x", "", "oarsub", "-n", "fk-x", "-O", "/dev/null", "-E", "/dev/null", "-d", "/", "-q", "gpu"),
        *("-l", "/nodes=1/gpu=2/core=2,walltime=01:01:40", "-p", "gpu_model='A100'"),
    )


def test_a_request_for_htcondor() -> None:
    lines = HTCONDOR.submit(FULL, "the script").argv[6::2]
    assert {"batch_name = fk-x", "request_cpus = 4", "request_memory = 2048", "request_gpus = 2"} <= set(
        lines
    )
    assert "allowed_execute_duration = 3700" in lines
    assert "environment = \"FARKERNEL_JOB_NAME='fk-x'\"" in lines


@pytest.mark.parametrize(
    ("adapter", "out", "job"),
    [
        (LSF, "Job <1234> is submitted to queue <normal>.\n", "1234"),
        (OAR, "[ADMISSION RULE] Modify resource description\nOAR_JOB_ID=42\n", "42"),
        (HTCONDOR, "77.0 - 77.0\n", "77"),
    ],
)
def test_submissions(adapter: Adapter, out: str, job: str) -> None:
    assert adapter.submitted(Said(0, out, "")) == job


@pytest.mark.parametrize(
    ("adapter", "err"),
    [
        (LSF, "nosuch: No such queue. Job not submitted.\n"),
        (OAR, "[ERROR] The queue nosuch does not exist\n"),
        (HTCONDOR, "ERROR: Invalid value for request_gpus\n"),
    ],
)
def test_refusals(adapter: Adapter, err: str) -> None:
    with pytest.raises(Refused):
        adapter.submitted(Said(255, "", err))


LSF_JOBS = """\
101|fk-a|RUN|normal|4*c1:4*c2|1:30 L|-|-|-
102|fk-b|PEND|normal|-|-|-|-|New job is waiting for scheduling;
103|fk-c|EXIT|normal|c1|-|140|TERM_RUNLIMIT: job killed after reaching LSF run time limit|-
104|fk-d|EXIT|normal|c1|-|130|TERM_OWNER: job killed by owner|-
105|fk-e|EXIT|normal|c1|-|97|-|-
106|fk-f|PSUSP|normal|-|-|-|-|The job was suspended by the user while pending;
"""


def test_the_queue_of_lsf() -> None:
    jobs = {job.name[-1]: job for job in LSF.jobs([Said(0, LSF_JOBS, "")])}
    assert (jobs["a"].state, jobs["a"].node, jobs["a"].left) == (JobState.RUNNING, "c1", 5400)
    assert (jobs["b"].state, jobs["f"].state) == (JobState.QUEUED, JobState.HELD)
    assert LSF.waiting(jobs["b"]) == "New job is waiting for scheduling;"
    ends = {name: job.end.text for name, job in jobs.items() if job.end is not None}
    assert ends == {
        "c": "its time limit was reached",
        "d": "it was cancelled by its owner",
        "e": "no Python 3.6 or newer was found on c1",
    }
    assert LSF.jobs([Said(255, "", "No job found\n")]) == []


def test_the_queue_of_oar() -> None:
    running = {
        "state": "Running",
        "name": "fk-a",
        "assigned_network_address": ["c1"],
        "startTime": 1000,
        "walltime": "60",
        "queue": "default",
    }
    waiting = {"state": "Waiting", "name": "fk-b", "message": "Karma=0.0", "scheduledStart": "2000"}
    text = (
        json.dumps({"1": running, "2": waiting})
        + "\n"
        + json.dumps({"3": {"state": "Error", "name": "fk-c", "events": [{"type": "WALLTIME"}]}})
    )
    jobs = {job.id: job for job in OAR.jobs([Said(0, text, "")])}
    assert (jobs["1"].state, jobs["1"].node, jobs["1"].ends) == (JobState.RUNNING, "c1", 1060)
    assert (jobs["2"].state, jobs["2"].starts) == (JobState.QUEUED, 2000)
    assert jobs["3"].end is not None
    assert jobs["3"].end.kind is EndKind.TIME_LIMIT
    assert OAR.way_in(jobs["1"]) == WayIn(("env", "OAR_JOB_ID=1", "oarsh", "-T", "-q", "c1"), True)
    assert OAR.query([Wanted("fk-a", "1"), Wanted("fk-b", "")])[0].argv[-1] == "1"


def test_the_queue_of_htcondor() -> None:
    ads = [
        {"ClusterId": 1, "JobStatus": 2, "JobBatchName": "fk-a", "RemoteHost": "slot1_1@c1"},
        {
            "ClusterId": 2,
            "JobStatus": 5,
            "JobBatchName": "fk-b",
            "HoldReason": "via condor_hold (by user alice)",
        },
    ]
    jobs = {job.id: job for job in HTCONDOR.jobs([Said(0, json.dumps(ads), "")])}
    assert (jobs["1"].state, jobs["1"].node) == (JobState.RUNNING, "c1")
    assert (jobs["2"].state, HTCONDOR.waiting(jobs["2"])) == (
        JobState.HELD,
        "via condor_hold (by user alice); let it go with: condor_release 2",
    )
    assert HTCONDOR.jobs([Said(0, "", "")]) == []
    history = json.dumps([{"ClusterId": 1, "JobStatus": 3, "RemoveReason": "via condor_rm (by user alice)"}])
    end = HTCONDOR.ended(Job("1", "fk-a", JobState.UNKNOWN), [Said(0, "", ""), Said(0, history, "")]).end
    assert end is not None
    assert end.text == "it was cancelled (via condor_rm (by user alice))"
