"""What a real Slurm has, and what is asked for in the first cell, before a job is submitted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import nbformat
import pytest

from farkernel.launcher.cli.schemas import SCHEMAS

from ..sites.batch_notebook import Notebook
from ..sites.engine import DEADLINE, Engine, collect, wait_until
from ..sites.slurm import SlurmSite, Wrappers

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def slurm(slurm_here: SlurmSite, engine: Engine) -> Iterator[SlurmSite]:
    engine.target(
        "gpu",
        address="slurm:///gpu",
        kernel="python3",
        resources={"gpus": 1, "time": "20m"},
        ask=["gpus", "time"],
    )
    engine.entry("gpu", "gpu")
    yield slurm_here
    wait_until(lambda: not slurm_here.jobs(), "the jobs to be gone", deadline=60)
    engine.close()


@pytest.fixture
def notebooks(slurm: SlurmSite) -> Iterator[list[Notebook]]:
    opened: list[Notebook] = []
    yield opened
    for each in opened:
        each.close()
    # Before the keeper ends: what it has not cancelled by then, the next one does.
    wait_until(lambda: not slurm.jobs(), "the jobs to be gone", deadline=60)


@pytest.fixture
def notebook(slurm: SlurmSite, notebooks: list[Notebook]) -> Notebook:
    """Its kernel has been asked for, and no cell run."""
    notebooks.append(Notebook("gpu"))
    notebooks[0].ready()  # the waiting room answers
    return notebooks[0]


def prompt(notebook: Notebook) -> str:
    content: dict[str, Any] = notebook.client.get_stdin_msg(timeout=DEADLINE)["content"]
    assert content["password"] is False
    return str(content["prompt"])


def row(engine: Engine) -> dict[str, Any]:
    (found,) = engine.kernels()
    return found


def submitted(slurm: SlurmSite) -> list[str]:
    """Every job that there ever was."""
    return slurm.command("squeue", "--noheader", "--states=all", "--format=%i").split()


CODE = "import os; print(os.environ['SLURM_JOB_ID'], os.environ['CUDA_VISIBLE_DEVICES'])"


def test_answers_go_into_the_job(notebook: Notebook, slurm: SlurmSite, engine: Engine) -> None:
    before = submitted(slurm)
    time.sleep(1)
    assert submitted(slurm) == before  # nothing is submitted before somebody was asked
    assert row(engine)["why"] == "asks what the kernel shall have, when the first cell is run"
    msg_id = notebook.client.execute(CODE)
    assert prompt(notebook) == "GPUs [1]: "
    text = notebook.said("what shall this kernel have?")
    assert "There now: in gpu, 4 of 4 CPUs free; 2 of 2 GPUs free (a100); " in text
    assert "up to 1h" in text
    notebook.client.input("all")
    assert prompt(notebook) == "GPUs [1]: "
    assert "'gpus' has a value of the wrong kind, 'all'. Write a whole number" in notebook.said("wrong kind")
    notebook.client.input("2")
    assert prompt(notebook) == "Time, such as 30m or 4h [20m]: "
    assert submitted(slurm) == before
    notebook.client.input("")
    outcome = collect(notebook.client, msg_id, 60)
    (job,) = slurm.jobs("RUNNING")
    assert outcome.text.endswith(f"{job} 0,1\n")
    assert slurm.command("squeue", "--noheader", "--format=%l %b").split() == ["20:00", "gres:gpu:2"]
    assert row(engine)["answers"] == {"gpus": 2, "time": "20m"}
    shown = subprocess.run(
        [sys.executable, "-m", "farkernel", "ps"], capture_output=True, text=True, check=True
    )
    assert "gpus 2, time 20m" in shown.stdout
    # A restart is the same job: nothing is asked again.
    notebook.manager.restart_kernel()
    notebook.ready()
    assert notebook.run(CODE) == f"{job} 0,1"
    # Another job may be of another size.
    slurm.command("scancel", job)
    wait_until(lambda: row(engine)["state"] == "ended", "the kernel to end")
    notebook.manager.restart_kernel()
    notebook.ready()
    msg_id = notebook.client.execute(CODE)
    assert prompt(notebook) == "GPUs [2]: "  # what was answered last
    notebook.client.input("1")
    assert prompt(notebook) == "Time, such as 30m or 4h [20m]: "
    notebook.client.input("5m")
    assert collect(notebook.client, msg_id, 60).text.endswith(" 0\n")


def test_interrupt_and_shutdown_while_asked_submit_nothing(
    notebook: Notebook, slurm: SlurmSite, engine: Engine
) -> None:
    before = submitted(slurm)
    msg_id = notebook.client.execute("1")
    prompt(notebook)
    notebook.manager.interrupt_kernel()
    assert "interrupted while waiting" in collect(notebook.client, msg_id).error
    msg_id = notebook.client.execute("2")
    assert prompt(notebook) == "GPUs [1]: "
    notebook.manager.shutdown_kernel()
    wait_until(lambda: row(engine)["state"] == "ended", "the kernel to end")
    assert submitted(slurm) == before


def test_a_killed_keeper_asks_again(notebook: Notebook, slurm: SlurmSite, engine: Engine) -> None:
    before = submitted(slurm)
    msg_id = notebook.client.execute(CODE)
    prompt(notebook)
    os.kill(engine.keeper_pid(), signal.SIGKILL)
    assert prompt(notebook) == "GPUs [1]: "
    assert submitted(slurm) == before
    notebook.client.input("1")
    assert prompt(notebook).startswith("Time")
    notebook.client.input("")
    assert collect(notebook.client, msg_id, 60).text.endswith(" 0\n")


def test_each_notebook_is_asked_for_itself(
    notebook: Notebook, notebooks: list[Notebook], slurm: SlurmSite
) -> None:
    notebooks.append(Notebook("gpu"))
    notebooks[1].ready()
    running = [each.client.execute(CODE) for each in notebooks]
    for answer in ("GPUs", "Time"):
        assert [prompt(each).partition(" ")[0].rstrip(",") for each in notebooks] == [answer, answer]
        for each in notebooks:
            each.client.input("")
    said = [
        collect(each.client, msg_id, 60).text.split()[-1]
        for each, msg_id in zip(notebooks, running, strict=True)
    ]
    assert sorted(said) == ["0", "1"]
    assert len(slurm.jobs("RUNNING")) == 2


def test_papermill_and_nbclient_get_the_defaults(slurm: SlurmSite, engine: Engine, home: Path) -> None:
    cells = [nbformat.v4.new_code_cell(code) for code in ("x = 20", "print(x + 22)")]
    node = nbformat.v4.new_notebook(cells=cells)
    node.metadata["kernelspec"] = {"name": "gpu", "display_name": "gpu", "language": "python"}
    nbformat.write(node, home / "in.ipynb")
    nbformat.write(node, home / "executed.ipynb")
    papermill = [sys.executable, "-m", "papermill", str(home / "in.ipynb"), str(home / "out.ipynb")]
    execute = [sys.executable, "-m", "jupyter", "execute", "--inplace", str(home / "executed.ipynb")]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for command in (papermill, execute)
    ]
    for process in running:
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said.decode()
    for name in ("out.ipynb", "executed.ipynb"):
        first, second = nbformat.read(home / name, as_version=4).cells
        (line,) = first.outputs
        assert line["text"] == (
            "[farkernel] gpu asks for gpus and time, which this front end cannot: taken is what the configuration "
            "says (gpus 1, time 20m)\n"
        )
        assert [output["text"] for output in second.outputs] == ["42\n"]


# -- what there is -----------------------------------------------------------------------------------------


def resources(*arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-P", "-m", "farkernel", "resources", *arguments, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    jsonschema.validate(found, SCHEMAS["resources"])
    return found


def test_resources_of_a_cluster_and_few_commands(
    slurm: SlurmSite, engine: Engine, notebooks: list[Notebook], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "bin").mkdir()
    monkeypatch.setenv("PATH", str(home / "bin"), prepend=os.pathsep)
    wrappers = Wrappers(home / "bin")
    engine.target("gpu", address="slurm:///gpu", kernel="python3", resources={"gpus": 1})
    engine.target("usual", address="slurm://", kernel="python3")
    notebooks.append(Notebook("gpu"))
    notebooks[0].ready()
    notebooks[0].run("1", 60)
    gpu, usual = resources("gpu", "usual")
    assert gpu["cluster"] == usual["cluster"]
    assert (gpu["queue"], usual["queue"], gpu["machine"]) == ("gpu", None, None)
    cluster = gpu["cluster"]
    assert (cluster["scheduler"], cluster["problems"], len(cluster["nodes"])) == ("Slurm", [], 4)
    queues = {queue["name"]: queue for queue in cluster["queues"]}
    assert queues["gpu"]["gpus"] == [{"type": "a100", "total": 2, "free": 1}]
    assert (queues["gpu"]["cpus"], queues["gpu"]["cpus_free"], queues["gpu"]["time_limit"]) == (4, 3, 3600)
    assert (queues["debug"]["default"], queues["debug"]["cpus_free"], queues["closed"]["open"]) == (
        True,
        24,
        False,
    )
    (job,) = cluster["jobs"]
    assert (job["state"], job["node"], job["ours"]) == ("running", "gpu1", True)
    # Everybody who asks at once, and soon again, is one look.
    looked = len(wrappers.calls("sinfo"))
    askers = [threading.Thread(target=resources, args=("gpu",)) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(wrappers.calls("sinfo")) == looked == 3
    shown = subprocess.run(
        [sys.executable, "-m", "farkernel", "resources"], capture_output=True, text=True, check=True
    ).stdout
    assert "1 of 2 free  a100, in gpu1" in shown
    assert "target gpu" in shown


# -- jobs of other keepers ---------------------------------------------------------------------------------


def farkernel(*arguments: str, status: int = 0) -> str:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == status, ended.stderr
    return ended.stdout if status == 0 else ended.stderr


def test_jobs_of_other_keepers_are_listed_and_can_be_released(
    slurm: SlurmSite, engine: Engine, notebooks: list[Notebook]
) -> None:
    """As another machine's keeper would have named them; and what is no kernel's is nobody's business."""
    engine.target("usual", address="slurm:///debug", kernel="python3")
    engine.target("shut", address="slurm:///closed", kernel="python3")
    engine.entry("shut", "shut")
    submit = ("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 300")
    waits = slurm.command(*submit, "--partition=closed", "--job-name=fk-abc-1a2b3c").strip()
    runs = slurm.command(*submit, "--partition=debug", "--job-name=fk-def-4d5e6f").strip()
    other = slurm.command(*submit, "--partition=closed", "--job-name=training").strip()
    notebooks.append(Notebook("shut"))  # our own, which waits
    wait_until(lambda: len(slurm.jobs()) == 4 and runs in slurm.jobs("RUNNING"), "the jobs")
    rows = json.loads(farkernel("ps", "--all", "--json"))["allocations"]
    mine, strays = (
        [row for row in rows if "name" not in row],
        {row["name"]: row for row in rows if "name" in row},
    )
    assert [row["target"] for row in mine] == ["shut"]
    assert strays.keys() == {"fk-abc-1a2b3c", "fk-def-4d5e6f"}
    queued, running = strays["fk-abc-1a2b3c"], strays["fk-def-4d5e6f"]
    assert (queued["job"], queued["target"], queued["state"]) == (waits, "shut", "queued")
    assert queued["why"] == (
        f"job {waits} of another keeper of yours, queued in closed: the partition is down (PartitionDown)"
    )
    assert (running["target"], running["state"]) == ("usual", "running")
    assert 500 < running["left"] <= 600
    assert "of another keeper of yours" in farkernel("ps", "--all")
    assert "given back" in farkernel("release", "slurm:///closed#fk-abc")
    wait_until(lambda: waits not in slurm.jobs(), "the job to be cancelled")
    farkernel("release", running["allocation"])
    wait_until(lambda: runs not in slurm.jobs(), "the job to be cancelled")
    assert "there is no allocation" in farkernel("release", "slurm:///closed#training", status=1)
    assert other in slurm.jobs()
    slurm.command("scancel", other)
