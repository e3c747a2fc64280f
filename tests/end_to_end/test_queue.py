"""A job that waits in a real Slurm's queue, from every front end at once: it runs on, and who gives up leaves no job."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from ..sites.browser import Browser
from ..sites.engine import Engine, wait_until
from ..sites.notebook_page import OUTPUT, Shoot, no_news, open_a_notebook, run_cell, shut_down
from ..sites.notebook_server import NotebookServer
from ..sites.slurm import SlurmSite

pytestmark = [pytest.mark.servers]

NAME = "gpu · Python"
# The short wait shows the mechanism; three minutes are longer than every deadline that front ends have (60 s and 120 s).
WAITS = [
    pytest.param(12, marks=pytest.mark.timeout(180), id="12s"),
    pytest.param(180, marks=[pytest.mark.long, pytest.mark.timeout(500)], id="180s"),
]


class Queue:
    """A partition whose only node somebody else has."""

    def __init__(self, slurm: SlurmSite) -> None:
        self.slurm = slurm
        submit = (
            "sbatch",
            "--parsable",
            "--partition=gpu",
            "--exclusive",
            "--time=45",
            "--job-name=training",
        )
        self._blocker = slurm.command(*submit, "--output=/dev/null", "--wrap=sleep 2000").strip()
        wait_until(lambda: self._blocker in slurm.jobs("RUNNING"), "the node to be taken")

    def move_on(self) -> None:
        self.slurm.command("scancel", self._blocker)

    def waiting(self) -> list[str]:
        return [job for job in self.slurm.jobs("PENDING") if job != self._blocker]

    def ours(self) -> list[str]:
        return [job for job in self.slurm.jobs() if job != self._blocker]


@pytest.fixture
def queue(slurm_here: SlurmSite, engine: Engine) -> Iterator[Queue]:
    engine.target("gpu", address="slurm:///gpu", kernel="python3")
    install = [sys.executable, "-m", "farkernel", "install", "gpu"]
    subprocess.run(install, check=True, timeout=60, stdout=subprocess.PIPE)
    engine.keeper_pid()
    queue = Queue(slurm_here)
    try:
        yield queue
    finally:
        queue.move_on()
    # Before the keeper ends: what it has not cancelled by then, the next one does.
    wait_until(lambda: not queue.ours(), "the jobs to be gone", deadline=60)
    engine.close()


@pytest.fixture
def server(queue: Queue, home: Path) -> Iterator[NotebookServer]:
    no_news()
    with NotebookServer(home) as server:
        yield server
        for session in server.rest("GET", "api/sessions"):
            server.rest("DELETE", f"api/sessions/{session['id']}")


@pytest.fixture
def browser(home: Path) -> Iterator[Browser]:
    with Browser(home) as browser:
        yield browser


@pytest.fixture
def shoot(browser: Browser, request: pytest.FixtureRequest) -> Shoot:
    return Shoot(browser, request.node.name.replace("[", "-").replace("]", ""))


def notebook(path: Path) -> Path:
    cells = [nbformat.v4.new_code_cell(code) for code in ("x = 20", "print(x + 22)")]
    node = nbformat.v4.new_notebook(cells=cells)
    node.metadata["kernelspec"] = {"name": "gpu", "display_name": NAME, "language": "python"}
    nbformat.write(node, path)
    return path


def texts(path: Path) -> list[str]:
    node = nbformat.read(path, as_version=4)
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in node.cells]


def papermill(home: Path) -> subprocess.Popen[bytes]:
    arguments = [str(notebook(home / "in.ipynb")), str(home / "out.ipynb"), "--no-progress-bar"]
    return started("papermill", *arguments)


def nbclient(home: Path, wait: int) -> subprocess.Popen[bytes]:
    return started(
        "jupyter", "execute", "--inplace", f"--timeout={wait + 60}", str(notebook(home / "executed.ipynb"))
    )


def started(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.parametrize("wait", WAITS)
def test_four_front_ends_wait_in_the_queue_and_run_on(
    queue: Queue, server: NotebookServer, browser: Browser, shoot: Shoot, home: Path, wait: int
) -> None:
    began = time.monotonic()
    open_a_notebook(server, browser, NAME)
    running = [papermill(home), nbclient(home, wait)]
    with server.session("session.ipynb", "gpu") as session, ThreadPoolExecutor(1) as beside:
        cell = session.execute("print(input('how? '), 'thanks')", allow_stdin=True)
        # Reading all the while, as a page does: the server hangs up on one that answers no pings.
        answered = beside.submit(session.answer_input, "well", deadline=wait + 120)
        run_cell(browser, "print('at last')")
        browser.wait_text(OUTPUT, " is queued in gpu: ")
        wait_until(lambda: len(queue.waiting()) == 4, "all jobs to be in the queue")
        browser.wait_text(OUTPUT, "expected to start", deadline=40)
        shoot("queued")
        wait_until(lambda: time.monotonic() > began + wait, "the time to pass", deadline=wait + 1)
        queue.move_on()
        answered.result(timeout=60)
        assert session.collect(cell, deadline=60).text.endswith("well thanks\n")
    browser.wait_text(OUTPUT, "at last", deadline=60)
    shoot("ran")
    assert [text.strip() for text in browser.texts(OUTPUT)] == ["at last"]
    for process, name in zip(running, ("out.ipynb", "executed.ipynb"), strict=True):
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said.decode()
        assert texts(home / name) == ["", "42\n"]
    print(f"waited {time.monotonic() - began:.0f} s in all")


@pytest.mark.timeout(180)
def test_giving_up_while_waiting_leaves_no_job(
    queue: Queue, server: NotebookServer, browser: Browser, shoot: Shoot, home: Path
) -> None:
    open_a_notebook(server, browser, NAME)
    run_cell(browser, "1")
    browser.wait_text(OUTPUT, " is queued in gpu: ")
    browser.click('[data-command="notebook:interrupt-kernel"]')
    browser.wait_text(OUTPUT, "interrupted while waiting for the kernel")
    shoot("interrupted")
    assert len(queue.ours()) == 1  # the kernel is still wanted
    shut_down(browser)
    wait_until(lambda: not queue.ours(), "the page's job to be cancelled")
    executed = nbclient(home, 60)
    with server.session("session.ipynb", "gpu") as session:
        session.execute("1")
        wait_until(lambda: len(queue.waiting()) == 2, "both jobs to be in the queue", deadline=60)
        server.rest("DELETE", f"api/sessions/{session.id}")
        executed.send_signal(signal.SIGINT)  # Ctrl-C
        executed.communicate(timeout=60)
    wait_until(lambda: not queue.ours(), "both jobs to be cancelled")


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_program_that_is_killed_while_its_job_waits_leaves_no_job(queue: Queue, home: Path) -> None:
    """papermill does not shut its kernel down then, and no notebook can come back to it."""
    process = papermill(home)
    wait_until(lambda: len(queue.waiting()) == 1, "its job to be in the queue", deadline=60)
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not queue.ours(), "its job to be cancelled", deadline=90)


def wait_for_box(browser: Browser, prompt: str) -> None:
    """JupyterLab puts the cursor into it; a click would take it out again."""
    browser.wait_text(".jp-Stdin-prompt", prompt)
    browser.wait("document.activeElement.matches('.jp-Stdin-input') && document.activeElement.value === ''")


@pytest.mark.timeout(180)
def test_a_page_is_asked_for_resources(
    queue: Queue, engine: Engine, server: NotebookServer, browser: Browser, shoot: Shoot
) -> None:
    engine.target(
        "gpu", address="slurm:///gpu", kernel="python3", resources={"gpus": 1}, ask=["gpus", "time"]
    )
    open_a_notebook(server, browser, NAME)
    run_cell(browser, "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    wait_for_box(browser, "GPUs [1]:")
    browser.wait_text(OUTPUT, "There now: in gpu, 0 of 4 CPUs free; 0 of 2 GPUs free (a100)")
    shoot("asked")
    browser.type("many")
    browser.press("Enter")
    browser.wait_text(OUTPUT, "Write a whole number, 0 or more")
    wait_for_box(browser, "GPUs [1]:")
    shoot("wrong")
    browser.type("2")
    browser.press("Enter")
    wait_for_box(browser, "Time, such as 30m or 4h")
    assert queue.ours() == []
    browser.press("Enter")
    browser.wait_text(OUTPUT, " is queued in gpu: ")
    browser.wait_text(OUTPUT, "asked for: gpus 2")
    shoot("queued")
    queue.move_on()
    browser.wait_text(OUTPUT, "0,1", deadline=60)
    assert [text.strip() for text in browser.texts(OUTPUT)] == ["0,1"]
