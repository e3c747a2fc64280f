"""The lesson of docs/examples, on the micro:bit in QEMU: by papermill, and in JupyterLab in Chromium.

With ``SCREENSHOTS=DIRECTORY`` in the environment, pictures of the pages are left there to be looked at.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import nbformat
import pytest

from ..sites import webrepl
from ..sites.boards import VirtualBoard, microbit
from ..sites.browser import Browser
from ..sites.engine import DEADLINE, Engine, wait_until
from ..sites.notebook_server import NotebookServer
from ..sites.ssh import Sshd
from ..sites.wire import Wire

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

LESSON = Path(__file__).parents[2] / "docs/examples/classroom.ipynb"
OUTPUT = ".jp-Notebook .jp-OutputArea-output"
# The page makes cells as they come into view and moves the others meanwhile, so the picture has to stand still there.
IN_THE_MIDDLE = f"""new Promise(done => {{
    const picture = document.querySelector('{OUTPUT} img');
    picture.scrollIntoView({{block: 'center'}});
    setTimeout(() => {{
        const box = picture.getBoundingClientRect();
        const page = document.querySelector('.jp-Notebook').getBoundingClientRect();
        done(box.top > page.top && box.bottom < page.bottom);
    }}, 300);
}})"""


def install(address: str, *settings: str) -> str:
    """The menu entry, as a person makes it."""
    for arguments in (["add", "board", address, *settings], ["install", "board"]):
        subprocess.run(
            [sys.executable, "-m", "farkernel", *arguments], check=True, timeout=60, stdout=subprocess.PIPE
        )
    return "board"


@pytest.fixture
def board(home: Path) -> Iterator[VirtualBoard]:
    with microbit(home) as board:
        yield board


@pytest.fixture
def entry(engine: Engine, board: VirtualBoard) -> str:
    return install(f"serial://{board.device}")


@contextmanager
def over_webrepl(board: VirtualBoard, password: str) -> Iterator[int]:
    """The port of the board's WebREPL, served in a thread."""
    started: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        over = asyncio.Event()
        async with webrepl.served(board, password) as site:
            started.put((site.port, asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, loop, over = started.get(timeout=DEADLINE)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


def test_papermill_runs_the_lesson(entry: str, home: Path) -> None:
    check_the_lesson(entry, home)


def test_the_same_lesson_over_webrepl(engine: Engine, board: VirtualBoard, home: Path) -> None:
    with over_webrepl(board, "secret") as port:
        command = 'password_command=["echo", "secret"]'
        entry = install(f"webrepl://127.0.0.1:{port}", "--set", command)
        check_the_lesson(entry, home)


def test_the_same_lesson_at_another_machine(engine: Engine, board: VirtualBoard, home: Path) -> None:
    """Over SSH, with 100 ms of round trip."""
    with Sshd(home.parent / "sshd") as host:
        with Wire(host.port).running() as wire:
            wire.delay = 0.05
            config = host.write_client_config(f"HostKeyAlias [127.0.0.1]:{host.port}")
            address = f"serial://{host.user}@127.0.0.1:{wire.port}{board.device}"
            check_the_lesson(install(address, "--set", f"ssh_config={config}"), home)
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 15)


def check_the_lesson(entry: str, home: Path) -> None:
    """Run it by papermill."""
    out = home / "out.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", entry, str(LESSON), str(out)],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = [cell for cell in nbformat.read(out, 4).cells if cell.cell_type == "code"]
    texts = ["".join(each.get("text", "") for each in cell.outputs) for cell in cells]
    data = [[each.get("data", {}) for each in cell.outputs] for cell in cells]
    assert "micro:bit" in texts[0]
    assert data[2][0]["text/html"].count("■") == 16  # the heart
    assert data[3] == [{"text/plain": "55"}]
    assert data[4] == [{"text/plain": "[1, 3, 6, 10, 15, 21, 28]"}]
    (plot,) = data[5]
    assert plot["image/svg+xml"].count("<polyline") == 2
    assert "A bouncing ball" in plot["image/svg+xml"]
    assert "60 lines" in texts[6]
    assert data[7][-1] == {"text/plain": "60"}
    assert texts[10] == "red\nred and yellow\ngreen\nyellow\nred\n"
    assert "traffic.py" in texts[11]
    assert "each, on board" in texts[13]


def test_the_lesson_in_jupyterlab(engine: Engine, entry: str, home: Path) -> None:
    shutil.copy(LESSON, home / "classroom.ipynb")
    settings = Path(os.environ["JUPYTER_CONFIG_DIR"]) / "lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    engine.keeper_pid()
    with NotebookServer(home) as server, Browser(home) as browser:

        def shoot(step: str) -> None:
            if directory := os.environ.get("SCREENSHOTS"):
                browser.screenshot(Path(directory) / f"classroom-{step}.png")

        browser.go(server.url("lab/tree/classroom.ipynb"))
        browser.wait_text(".jp-Toolbar-kernelName", "board · MicroPython")
        wait_until(lambda: connected_pages(server), "the page to be connected to its kernel")
        browser.wait("document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'")
        browser.choose(".lm-MenuBar-itemLabel", "Run", "Run All Cells")
        shoot("begun")
        browser.wait_text(OUTPUT, "each, on board", deadline=40)
        browser.wait(f"document.querySelector('{OUTPUT} img[src^=\"data:image/svg\"]') !== null")
        assert browser.evaluate(f"document.querySelector('{OUTPUT} img').naturalWidth") == 720
        shown = "\n".join(browser.texts(OUTPUT))
        assert "Error" not in shown
        browser.wait(IN_THE_MIDDLE)
        shoot("plot")
        browser.evaluate("document.querySelector('.jp-Notebook .jp-CodeCell').scrollIntoView()")
        shoot("top")


def connected_pages(server: NotebookServer) -> int:
    try:
        return sum(each["connections"] for each in server.rest("GET", "api/kernels"))
    except HTTPError:  # jupyter_server cannot list a kernel that was started this very moment
        return 0
