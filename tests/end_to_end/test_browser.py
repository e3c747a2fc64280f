"""JupyterLab and Notebook in a real browser: the menu entry clicked, and what a person then sees.

With ``SCREENSHOTS=DIRECTORY`` in the environment, pictures of each step are left there to be looked at.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sites.browser import Browser
from ..sites.engine import Engine, wait_until
from ..sites.notebook_page import (
    OUTPUT,
    Shoot,
    card,
    no_news,
    open_a_notebook,
    run_cell,
    shut_down,
    wait_for_kernel,
)
from ..sites.notebook_server import NotebookServer

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

NAME = "here · Python"
CARD = card(NAME)


@pytest.fixture
def server(engine: Engine, home: Path) -> Iterator[NotebookServer]:
    """With the menu entry as `farkernel install` makes it."""
    engine.target("here", kernel="python3", keep="1m")
    subprocess.run(
        [sys.executable, "-m", "farkernel", "install", "here"], check=True, timeout=60, stdout=subprocess.PIPE
    )
    no_news()
    # Notebook opens its page while the kernel is being asked for, and asks the person which kernel to take if
    # that takes over a second: no local kernel does, starting the keeper on a busy machine may.
    engine.keeper_pid()
    with NotebookServer(home) as server:
        yield server


@pytest.fixture
def browser(home: Path) -> Iterator[Browser]:
    with Browser(home) as browser:
        yield browser


@pytest.fixture
def shoot(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Shoot]:
    shoot = Shoot(browser, request.node.name)
    yield shoot
    shoot("end")


def work_in_a_notebook(browser: Browser, shoot: Shoot, restart: str) -> None:
    """A cell, an interrupt, a restart; the same page in both applications."""
    run_cell(browser, "x = 6 * 7; print('x is', x)")
    browser.wait_text(OUTPUT, "x is 42")
    shoot("ran")
    run_cell(browser, "import time; print('sleeping', flush=True); time.sleep(600)")
    browser.wait_text(OUTPUT, "sleeping")
    began = time.monotonic()
    browser.click('[data-command="notebook:interrupt-kernel"]')
    browser.wait_text(OUTPUT, "KeyboardInterrupt")
    assert time.monotonic() - began < 10
    shoot("interrupted")
    run_cell(browser, "print('still', x)")
    browser.wait_text(OUTPUT, "still 42")
    browser.click(restart)
    browser.click(".jp-Dialog .jp-mod-accept")
    browser.wait("document.querySelector('.jp-Dialog') === null")
    run_cell(browser, "print('x' in globals(), 'after the restart')")
    browser.wait_text(OUTPUT, "False after the restart")
    shoot("restarted")


def test_jupyterlab(engine: Engine, server: NotebookServer, browser: Browser, shoot: Shoot) -> None:
    browser.go(server.url("lab"))
    logo = browser.wait(
        f"document.querySelector('{CARD} img')?.complete && document.querySelector('{CARD} img').src"
    )
    assert "/kernelspecs/here/logo-" in logo
    assert browser.evaluate(f"document.querySelector('{CARD} img').naturalWidth") >= 32
    shoot("launcher")
    browser.click(CARD)
    wait_for_kernel(server, browser, NAME)
    work_in_a_notebook(browser, shoot, '[data-command="notebook:restart-kernel"]')
    assert len(engine.far_processes()) == 1
    shut_down(browser)
    wait_until(lambda: not engine.far_processes(), "the kernel to end")
    wait_until(lambda: all(row["reason"] for row in engine.kernels()), "the reasons to be known")
    assert {row["reason"]["kind"] for row in engine.kernels()} == {"stopped"}


def test_notebook(engine: Engine, server: NotebookServer, browser: Browser, shoot: Shoot) -> None:
    browser.go(server.url("tree"))
    browser.choose(".jp-FileBrowser-toolbar .lm-MenuBar-item", "New", NAME)
    browser.follow()
    wait_for_kernel(server, browser, NAME)
    work_in_a_notebook(browser, shoot, '[data-command="notebook:restart-kernel"]')
    shut_down(browser)
    wait_until(lambda: not engine.far_processes(), "the kernel to end")


def test_a_slow_kernel_says_what_it_waits_for(
    engine: Engine, server: NotebookServer, browser: Browser, shoot: Shoot
) -> None:
    engine.target("here", kernel="python3", before="sleep 8")
    open_a_notebook(server, browser, NAME)
    run_cell(browser, "print('at last')")
    browser.wait_text(OUTPUT, "here: starting (waiting since")
    shoot("waiting")
    browser.wait_text(OUTPUT, "at last")
    assert [text.strip() for text in browser.texts(OUTPUT)] == ["at last"], (
        "what was said while waiting must be gone"
    )


def test_a_kernel_that_ends_says_why(server: NotebookServer, browser: Browser, shoot: Shoot) -> None:
    open_a_notebook(server, browser, NAME)
    run_cell(browser, "print('well')")
    browser.wait_text(OUTPUT, "well")
    run_cell(browser, "import os, sys; print('its last words', file=sys.__stderr__, flush=True); os._exit(5)")
    browser.wait_text(OUTPUT, "KernelEnded: here: ")
    shoot("ended")
    browser.wait_text(OUTPUT, "status 5")
    browser.wait_text(OUTPUT, "its last words")
