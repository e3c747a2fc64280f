"""JupyterLab and Notebook in a real browser: the menu entry clicked, and what a person then sees.

With ``SCREENSHOTS=DIRECTORY`` in the environment, pictures of each step are left there to be looked at.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sites.browser import SHIFT, Browser
from ..sites.engine import Engine, wait_until
from ..sites.notebook_server import NotebookServer

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

NAME = "here · Python"
OUTPUT = ".jp-Notebook .jp-OutputArea-output"
CARD = f'.jp-LauncherCard[data-category="Notebook"][title="{NAME}"]'


@pytest.fixture
def server(engine: Engine, home: Path) -> Iterator[NotebookServer]:
    """With the menu entry as `farkernel install` makes it."""
    engine.target("here", kernel="python3", keep="1m")
    subprocess.run([sys.executable, "-m", "farkernel", "install", "here"], check=True, timeout=60, stdout=subprocess.PIPE)
    # JupyterLab would ask whether it may fetch news, in a box over the page.
    settings = Path(os.environ["JUPYTER_CONFIG_DIR"]) / "lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
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


class Shoot:
    """Takes pictures where somebody wants them."""

    def __init__(self, browser: Browser, test: str) -> None:
        self._browser = browser
        self._test = test
        self._directory = os.environ.get("SCREENSHOTS")

    def __call__(self, step: str) -> None:
        if self._directory:
            self._browser.screenshot(Path(self._directory) / f"{self._test}-{step}.png")


def run_cell(browser: Browser, code: str) -> None:
    """Into the last cell, with the keys that everybody uses."""
    cells = browser.evaluate("document.querySelectorAll('.jp-Notebook .jp-CodeCell').length")
    browser.click(".jp-Notebook .jp-CodeCell:last-child .cm-content, .jp-Notebook .jp-mod-active .cm-content")
    browser.type(code)
    browser.press("Enter", SHIFT)
    browser.wait(f"document.querySelectorAll('.jp-Notebook .jp-CodeCell').length > {cells}")


def work_in_a_notebook(browser: Browser, shoot: Shoot, restart: str) -> None:
    """A cell, an interrupt, a restart; the same page in both applications."""
    browser.wait("document.querySelector('.jp-Notebook .jp-CodeCell .cm-content') !== null")
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


def shut_down(browser: Browser) -> None:
    """By the Kernel menu."""
    browser.click(".lm-MenuBar-itemLabel", "Kernel")
    browser.click(".lm-Menu-itemLabel", "Shut Down Kernel")


def test_jupyterlab(engine: Engine, server: NotebookServer, browser: Browser, shoot: Shoot) -> None:
    browser.go(server.url("lab"))
    logo = browser.wait(f"document.querySelector('{CARD} img')?.complete && document.querySelector('{CARD} img').src")
    assert "/kernelspecs/here/logo-" in logo
    assert browser.evaluate(f"document.querySelector('{CARD} img').naturalWidth") >= 32
    shoot("launcher")
    browser.click(CARD)
    work_in_a_notebook(browser, shoot, '[data-command="notebook:restart-kernel"]')
    assert len(engine.far_processes()) == 1
    shut_down(browser)
    wait_until(lambda: not engine.far_processes(), "the kernel to end")
    (row,) = engine.kernels()
    assert row["reason"]["kind"] == "stopped"
