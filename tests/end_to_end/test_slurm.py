"""Kernels in jobs of a real Slurm, from the notebook's side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ..sites.batch_notebook import Notebook, another_keeper, kill_keeper
from ..sites.engine import Engine, collect, run_cell, wait_until
from ..sites.notebook_server import NotebookServer
from ..sites.slurm import SlurmSite, Wrappers
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(150)]


@pytest.fixture
def slurm(slurm_here: SlurmSite, engine: Engine) -> Iterator[SlurmSite]:
    yield slurm_here
    engine.close()
    wait_until(lambda: not slurm_here.jobs(), "the jobs to be gone", deadline=20)


@pytest.fixture
def notebook(slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]) -> Notebook:
    """A live kernel in a job with one of the two GPUs."""
    target(engine)
    notebooks.append(Notebook("gpu"))
    notebooks[0].ready()
    return notebooks[0]


def target(engine: Engine, **settings: object) -> None:
    engine.target(
        "gpu", **{"address": "slurm:///gpu", "kernel": "python3", "resources": {"gpus": 1}, **settings}
    )
    if not (Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / "gpu").exists():
        engine.entry("gpu", "gpu")


def test_the_kernel_runs_in_the_job(notebook: Notebook, slurm: SlurmSite, engine: Engine) -> None:
    (job,) = slurm.jobs("RUNNING")
    assert notebook.run("import os; print(os.environ['SLURM_JOB_ID'])") == f"{job}"
    assert notebook.run("print(os.environ['CUDA_VISIBLE_DEVICES'])") == "0"
    (held,) = engine.client.request("list")["allocations"]
    assert (held["job"], held["where"], held["target"]) == (job, "gpu1", "gpu")
    assert 3500 < held["left"] <= 3600
    notebook.manager.shutdown_kernel()
    wait_until(lambda: not slurm.jobs(), "the job to be given back")


def test_much_comes_through(notebook: Notebook) -> None:
    """The way in is clean for every byte, and for lines of all lengths."""
    code = "import hashlib; text = ''.join(map(chr, range(32, 400))) * 20000; print(text)"
    outcome = run_cell(notebook.client, code, deadline=60)
    assert len(outcome.text) == 368 * 20000 + 1


def test_restart_keeps_the_job(notebook: Notebook, slurm: SlurmSite) -> None:
    notebook.run("x = 1")
    (job,) = slurm.jobs()
    notebook.manager.restart_kernel()
    notebook.ready()
    assert notebook.run("print('x' in globals())") == "False"
    assert list(slurm.jobs()) == [job]


def test_interrupt(notebook: Notebook) -> None:
    msg_id = notebook.client.execute("import time; print('now', flush=True); time.sleep(100)")
    notebook.said("now")
    notebook.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in collect(notebook.client, msg_id).error


@pytest.mark.parametrize(
    "wait", [8, pytest.param(180, marks=[pytest.mark.long, pytest.mark.timeout(400)])], ids=["8s", "180s"]
)
def test_a_queue(
    notebook: Notebook, notebooks: list[Notebook], slurm: SlurmSite, engine: Engine, wait: int
) -> None:
    """The held cell says why, and runs when the job does."""
    target(engine, resources={"gpus": 2})
    second = Notebook("gpu")
    notebooks.append(second)
    second.ready()  # the waiting room answers
    msg_id = second.client.execute("print('at last')")
    text = second.said("is queued")
    assert "waits for nodes to become free (Resources)" in text
    assert text.startswith("gpu: Slurm job ")
    time.sleep(wait)
    notebook.close()
    outcome = collect(second.client, msg_id, deadline=60)
    assert outcome.text.endswith("at last\n")
    assert outcome.reply["content"]["status"] == "ok"


@pytest.fixture
def queued(slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]) -> Notebook:
    """Its job never starts: the partition is down."""
    target(engine, address="slurm:///closed", resources={})
    notebooks.append(Notebook("gpu"))
    wait_until(lambda: slurm.jobs("PENDING"), "the job to be submitted")
    return notebooks[0]


def test_shutdown_while_waiting_leaves_no_job(queued: Notebook, slurm: SlurmSite) -> None:
    began = time.monotonic()
    queued.manager.shutdown_kernel()
    assert time.monotonic() - began < 5
    wait_until(lambda: not slurm.jobs(), "the job to be cancelled")


def test_interrupt_while_waiting(queued: Notebook, slurm: SlurmSite) -> None:
    queued.ready()
    msg_id = queued.client.execute("1")
    queued.said("the partition is down")
    queued.manager.interrupt_kernel()
    assert "interrupted while waiting" in collect(queued.client, msg_id).error
    assert len(slurm.jobs()) == 1


def test_a_waiting_kernel_outlives_its_keeper(queued: Notebook, slurm: SlurmSite, engine: Engine) -> None:
    (job,) = slurm.jobs()
    kill_keeper(engine)
    queued.ready()
    msg_id = queued.client.execute("print(6 * 7)")
    queued.said(f"Slurm job {job} is queued")
    slurm.command("scontrol", "update", "PartitionName=closed", "State=UP")
    try:
        assert collect(queued.client, msg_id, 60).text.endswith("42\n")
    finally:
        slurm.command("scontrol", "update", "PartitionName=closed", "State=DOWN")
    assert list(slurm.jobs()) == [job]


def test_the_keeper_killed_with_a_live_kernel(notebook: Notebook, slurm: SlurmSite, engine: Engine) -> None:
    notebook.run("x = 41")
    (job,) = slurm.jobs()
    kill_keeper(engine)
    assert notebook.run("print(x + 1)") == "42"
    assert list(slurm.jobs()) == [job]


def reason(engine: Engine) -> str:
    """Of the only kernel, once it has ended."""

    def found() -> str:
        (row,) = engine.kernels()
        return str(row["reason"]["text"]) if row["state"] == "ended" else ""

    return str(wait_until(found, "the kernel to end", deadline=60))


def test_cancelled_by_somebody_else(notebook: Notebook, slurm: SlurmSite, engine: Engine) -> None:
    msg_id = notebook.client.execute("import time; time.sleep(100)")
    (job,) = slurm.jobs()
    slurm.command("scancel", job)
    error = collect(notebook.client, msg_id).error
    assert f"the Slurm job {job} is over: it was cancelled" in error
    assert "it was cancelled" in reason(engine)


def test_the_time_limit(notebook: Notebook, slurm: SlurmSite, engine: Engine) -> None:
    msg_id = notebook.client.execute("import time; time.sleep(100)")
    (job,) = slurm.jobs()
    slurm.command("scontrol", "update", f"jobid={job}", "EndTime=now+1")
    error = collect(notebook.client, msg_id, deadline=90).error
    assert f"the Slurm job {job} is over: its time limit was reached" in error


def test_the_notebook_server_is_killed(slurm: SlurmSite, engine: Engine, home: Path) -> None:
    """The next one takes the same kernel up, in the same job."""
    target(engine)
    with NotebookServer(home) as server:
        with server.session("a.ipynb", "gpu") as session:
            session.run("x = 41", 60)
        (job,) = slurm.jobs("RUNNING")
        server.kill()
    with NotebookServer(home) as server, server.session("a.ipynb", "gpu") as session:
        code = "import os; print(x + 1, os.environ['SLURM_JOB_ID'])"
        assert session.run(code).text.endswith(f"42 {job}\n")
        assert list(slurm.jobs()) == [job]
        server.rest("DELETE", f"api/sessions/{session.id}")
        wait_until(lambda: not slurm.jobs(), "the job to be given back")


def test_a_refused_request(slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]) -> None:
    target(engine, address="slurm:///nosuch")
    notebooks.append(Notebook("gpu"))
    text = reason(engine)
    assert "Slurm refuses the job: invalid partition specified: nosuch" in text
    assert not slurm.jobs()


# -- faults while a job is being submitted ---------------------------------------------------------


@pytest.fixture
def wrappers(home: Path, monkeypatch: pytest.MonkeyPatch) -> Wrappers:
    (home / "bin").mkdir()
    monkeypatch.setenv("PATH", str(home / "bin"), prepend=os.pathsep)
    return Wrappers(home / "bin")


def all_jobs(slurm: SlurmSite, name: str) -> list[str]:
    """Every job with that name that Slurm remembers, whatever became of it."""
    lines = slurm.command("squeue", "--noheader", "--states=all", "--format=%i %j").splitlines()
    return [number for number, found in map(str.split, lines) if found == name]


def test_the_keeper_is_killed_between_submission_and_note(
    wrappers: Wrappers, slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]
) -> None:
    """sbatch has its job, the keeper never hears of it; the next one finds it by its name."""
    target(engine)
    keeper = engine.keeper_pid()
    wrappers.once("after", "sbatch", f"kill -9 {keeper}")
    notebooks.append(Notebook("gpu"))
    another_keeper(engine, keeper)
    notebooks[0].ready(60)
    name = notebooks[0].run("import os; print(os.environ['SLURM_JOB_NAME'])")
    assert len(all_jobs(slurm, name)) == 1
    assert len(wrappers.calls("sbatch")) == 1


def test_the_keeper_is_killed_before_an_unwanted_job_is_cancelled(
    wrappers: Wrappers, slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]
) -> None:
    """It is written down that nobody wants it: the next keeper cancels it, whatever that one was started for."""
    target(engine, address="slurm:///closed", resources={})
    notebooks.append(Notebook("gpu"))
    wait_until(lambda: slurm.jobs("PENDING"), "the job to be submitted")
    keeper = engine.keeper_pid()
    wrappers.once("before", "scancel", f"kill -9 {keeper}; exit 1")
    notebooks[0].manager.shutdown_kernel(now=True)
    wait_until(lambda: not psutil.pid_exists(keeper), "the keeper to be killed")
    assert len(slurm.jobs("PENDING")) == 1
    assert engine.kernels() is not None  # any request starts a keeper
    wait_until(lambda: not slurm.jobs(), "the job to be cancelled")


def test_the_controller_is_frozen_during_submission(
    wrappers: Wrappers, slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]
) -> None:
    """sbatch gives up, and yet the job is taken once the controller wakes up: it must not be sent again."""
    target(engine)
    wrappers.once("before", "sbatch", f"kill -STOP $(cat {slurm.root}/slurmctld.pid)")
    notebooks.append(Notebook("gpu"))
    try:
        wait_until(lambda: len(wrappers.calls("squeue")) > 0, "the job to be looked for", deadline=60)
    finally:
        slurm.thaw_controller()
    notebooks[0].ready(60)
    name = notebooks[0].run("import os; print(os.environ['SLURM_JOB_NAME'])")
    assert len(all_jobs(slurm, name)) == 1


@pytest.mark.parametrize(
    "dead", [8, pytest.param(65, marks=[pytest.mark.long, pytest.mark.timeout(300)])], ids=["8s", "65s"]
)
def test_the_controller_is_dead_for_a_while(
    notebook: Notebook, notebooks: list[Notebook], slurm: SlurmSite, engine: Engine, dead: int
) -> None:
    """A kernel that runs does not notice; one in the queue and one that is asked for say so, and wait for it; what is
    given up meanwhile leaves no job; and each has one job in the end."""
    name = notebook.run("import os; x = 41; print(os.environ['SLURM_JOB_NAME'])")
    target(engine, address="slurm:///closed", resources={})
    queued = start(notebooks)
    wait_until(lambda: slurm.jobs("PENDING"), "the second job to be submitted")
    target(engine)
    began = time.monotonic()
    slurm.stop_controller()
    try:
        asked, unwanted = start(notebooks), start(notebooks)
        cells = [each.client.execute(WHERE) for each in (queued, asked)]
        asked.said("Slurm does not answer", deadline=60)
        queued.said("Slurm does not answer", deadline=60)
        unwanted.manager.shutdown_kernel(now=True)
        wait_until(lambda: time.monotonic() - began > dead, "the time to pass", deadline=dead)
        assert notebook.run("print(x + 1)") == "42"
    finally:
        slurm.start_controller()
    names = [name, collect(asked.client, cells[1], deadline=90).text.split()[-1]]
    slurm.command("scontrol", "update", "PartitionName=closed", "State=UP")
    try:
        names.append(collect(queued.client, cells[0], deadline=90).text.split()[-1])
    finally:
        slurm.command("scontrol", "update", "PartitionName=closed", "State=DOWN")
    assert [len(all_jobs(slurm, each)) for each in names] == [1, 1, 1]
    wait_until(lambda: len(slurm.jobs()) == 3, "no job to be there for the one that was given up")
    assert notebook.run("print(x + 1)") == "42"
    print(f"dead for {dead} s, all there after {time.monotonic() - began:.0f} s")


WHERE = "import os; print(os.environ['SLURM_JOB_NAME'])"


def start(notebooks: list[Notebook]) -> Notebook:
    """One more, whose waiting room answers."""
    notebooks.append(Notebook("gpu"))
    notebooks[-1].ready()
    return notebooks[-1]


def test_fifty_kernels_cost_few_commands(wrappers: Wrappers, slurm: SlurmSite, engine: Engine) -> None:
    """One query for all of them, once a second at most; one submission and one cancellation for each."""
    target(engine, address="slurm:///closed", resources={})
    for number in range(50):
        engine.client.request("launch", kernel=f"many-{number}", entry="gpu", settings={"target": "gpu"})
    wait_until(lambda: len(slurm.jobs("PENDING")) == 50, "all to be queued", deadline=60)
    queried = len(wrappers.calls("squeue"))
    began = time.monotonic()
    time.sleep(15)
    rate = (len(wrappers.calls("squeue")) - queried) / (time.monotonic() - began)
    assert rate <= 1.1
    assert len(wrappers.calls("sbatch")) == 50
    for number in range(50):
        engine.client.request("stop", kernel=f"many-{number}", now=True)
        engine.client.request("cleanup", kernel=f"many-{number}", restart=False)
    wait_until(lambda: not slurm.jobs(), "all to be cancelled", deadline=60)
    assert len(wrappers.calls("scancel")) == 50
    print("commands:", len(wrappers.calls()), "queries in the quiet part per minute:", rate * 60)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_warnings_before_the_end(slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]) -> None:
    """10 and 2 minutes before: of jobs of 11 and of 3 minutes that is after one."""
    for limit in ("11m", "3m"):
        target(engine, resources={"time": limit})
        notebooks.append(Notebook("gpu"))
        notebooks[-1].ready(60)
    for each in notebooks:
        each.client.execute("import time; time.sleep(100)")
    began = time.monotonic()
    for each, minutes in zip(notebooks, (10, 2), strict=True):
        text = each.said(f"allocation ends in {minutes} minutes", 100)
        assert "and the kernel with it: save what you need" in text
    assert time.monotonic() - began < 75


def test_beside_job_arrays(
    slurm: SlurmSite, engine: Engine, notebook: Notebook, notebooks: list[Notebook]
) -> None:
    """Of somebody's own, before a kernel in the queue: they are counted and listed, and only ours is cancelled."""
    submit = (
        "sbatch",
        "--parsable",
        "--partition=gpu",
        "--gres=gpu:1",
        "--output=/dev/null",
        "--wrap=sleep 300",
    )
    array = slurm.command(*submit, "--array=1-3", "--time=20").strip()
    wait_until(lambda: f"{array}_1" in slurm.jobs("RUNNING"), "its first task to run")
    notebooks.append(Notebook("gpu"))
    second = notebooks[-1]
    second.ready()
    second.client.execute("1")
    text = second.said("jobs are before it", deadline=60)
    assert "2 jobs are before it" in text
    shown = farkernel("resources", "gpu")
    assert f"{array}_1 " in shown
    assert f"{array}_[2-3] " in shown
    assert f"{array}_" not in farkernel("ps", "--all")
    second.manager.shutdown_kernel()
    wait_until(lambda: len(slurm.jobs("PENDING")) == 1, "the kernel's job to be cancelled")
    assert f"{array}_[2-3]" in slurm.jobs("PENDING")
    assert f"{array}_1" in slurm.jobs("RUNNING")
    notebook.run("x = 1")
    slurm.command("scancel", array)
    wait_until(lambda: len(slurm.jobs()) == 1, "the array to be gone")
    assert notebook.run("print(x + 1)") == "2"


def farkernel(*arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_kernel_is_one_job(
    slurm: SlurmSite, engine: Engine, notebooks: list[Notebook], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the target's options, or a variable of sbatch's, say of job arrays."""
    monkeypatch.setenv("SBATCH_ARRAY_INX", "1-3")
    target(engine, options=["--array=1-3"])
    notebooks.append(Notebook("gpu"))
    assert "Slurm refuses the job: a kernel is one job, and the option --array=1-3 asks for" in reason(engine)
    assert not slurm.jobs()
    target(engine)
    notebooks[0].manager.restart_kernel()
    notebooks[0].ready()
    assert notebooks[0].run("import os; print(os.environ['SLURM_JOB_ID'])") in slurm.jobs()
    assert len(slurm.jobs()) == 1


def test_idle_gives_the_job_back(slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]) -> None:
    target(engine, idle="4s")
    notebooks.append(Notebook("gpu"))
    notebooks[0].ready()
    assert notebooks[0].run("import time; time.sleep(6); print('done')") == "done"
    assert reason(engine) == "nothing was run in it for 4s (idle)"
    wait_until(lambda: not slurm.jobs(), "the job to be given back")


def test_two_kernels_share_a_job(slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]) -> None:
    target(engine, share=True)
    for _ in range(2):
        notebooks.append(Notebook("gpu"))
        notebooks[-1].ready()
    (job,) = slurm.jobs("RUNNING")
    code = "import os; print(os.environ['SLURM_JOB_ID'])"
    assert {each.run(code) for each in notebooks} == {job}
    notebooks[0].manager.shutdown_kernel()
    assert notebooks[1].run(code) == job
    notebooks[1].manager.shutdown_kernel()
    wait_until(lambda: not slurm.jobs(), "the job to be given back")


def test_a_job_that_is_over_is_not_started_again_by_itself(
    notebook: Notebook, slurm: SlurmSite, engine: Engine
) -> None:
    """Only when somebody restarts the kernel, there is another job."""
    (job,) = slurm.jobs()
    slurm.command("scancel", job)
    assert "it was cancelled" in reason(engine)
    assert not slurm.jobs()
    notebook.manager.restart_kernel()
    notebook.ready()
    (other,) = slurm.jobs()
    assert other != job


def test_doctor(slurm: SlurmSite, engine: Engine) -> None:
    """It says that the scheduler answers, and by which way a job is entered; its own job is gone afterwards."""
    target(engine)
    done = subprocess.run(
        [sys.executable, "-m", "farkernel", "doctor", "gpu", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = {step["step"]: step["what"] for step in json.loads(done.stdout)["steps"]}
    assert said["scheduler"] == "Slurm answers"
    assert "on gpu1, entered by: step" in said["kernel"]
    wait_until(lambda: not slurm.jobs(), "its job to be gone")


# -- through a login host --------------------------------------------------------------------------


@pytest.fixture
def login(
    slurm: SlurmSite, slurm_login: Sshd, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sshd]:
    """Slurm's commands work there, and not here."""
    for name in slurm.environment:
        monkeypatch.delenv(name)
    target(engine, **there(slurm_login))
    yield slurm_login
    engine.close()


def there(login: Sshd) -> dict[str, str]:
    address = login.address.replace("ssh://", "slurm://") + "/gpu"
    return {"address": address, "ssh_config": str(login.client_config)}


def test_through_a_login_host_that_is_rebooted(
    login: Sshd, slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]
) -> None:
    """One login for queue and kernels; the kernel in its job outlives the login host."""
    for _ in range(2):
        notebooks.append(Notebook("gpu"))
        notebooks[-1].ready()
        assert notebooks[-1].run("import os; x = 41; print(os.environ['SLURM_JOB_ID'])") in slurm.jobs(
            "RUNNING"
        )
    assert login.logins() == 1
    jobs = slurm.jobs()
    msg_id = notebooks[0].client.execute("import time; time.sleep(3); print('through')")
    login.restart()
    assert "through\n" in collect(notebooks[0].client, msg_id, 60).text
    assert notebooks[1].run("print(x + 1)", 60) == "42"
    assert slurm.jobs() == jobs
    assert login.logins() == 2
    assert login.agents() == []  # nothing of ours stays on a login host


def test_looking_around_submits_nothing(login: Sshd, slurm: SlurmSite, engine: Engine) -> None:
    before = slurm.command("squeue", "--noheader", "--states=all")
    found = engine.client.request("scan", target="gpu")
    assert "python3" in [each["name"] for each in found["kernelspecs"]]
    answer = engine.client.request("reach", targets=["gpu"], deadline=30)
    assert answer["targets"]["gpu"]["ok"]
    assert slurm.command("squeue", "--noheader", "--states=all") == before


def test_asked_through_a_login_host(
    login: Sshd, slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]
) -> None:
    """What is free there is told in the cell, the answers go into the job, and all of it is one login."""
    target(engine, **there(login), resources={"gpus": 1, "time": "20m"}, ask=["gpus", "time"])
    notebook = start(notebooks)
    assert not slurm.jobs()
    client = notebook.client
    msg_id = client.execute(
        "import os; print(os.environ['SLURM_JOB_ID'], os.environ['CUDA_VISIBLE_DEVICES'])"
    )
    assert client.get_stdin_msg(timeout=30)["content"]["prompt"] == "GPUs [1]: "
    assert "There now: in gpu, 4 of 4 CPUs free; 2 of 2 GPUs free (a100); " in notebook.said(
        "shall this kernel"
    )
    client.input("2")
    assert client.get_stdin_msg(timeout=30)["content"]["prompt"] == "Time, such as 30m or 4h [20m]: "
    assert not slurm.jobs()
    client.input("5m")
    outcome = collect(client, msg_id, 60)
    (job,) = slurm.jobs("RUNNING")
    assert outcome.text.endswith(f"{job} 0,1\n")
    assert slurm.command("squeue", "--noheader", "--format=%l %b").split() == ["5:00", "gres:gpu:2"]
    notebook.manager.restart_kernel()
    notebook.ready()
    assert notebook.run("import os; print(os.environ['SLURM_JOB_ID'])") == job
    assert login.logins() == 1
