"""A notebook's page as a person works in it: cells run by the keys that everybody uses, in JupyterLab and Notebook.

With ``SCREENSHOTS=DIRECTORY`` in the environment, pictures of each step are left there to be looked at.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.error import HTTPError

from .browser import SHIFT, Browser
from .engine import wait_until
from .notebook_server import NotebookServer

CELL = ".jp-Notebook .jp-CodeCell"
OUTPUT = ".jp-Notebook .jp-OutputArea-output"


def card(name: str) -> str:
    """The menu entry with that display name, in JupyterLab's launcher."""
    return f'.jp-LauncherCard[data-category="Notebook"][title="{name}"]'


def no_news() -> None:
    """JupyterLab would ask whether it may fetch some, in a box over the page."""
    settings = Path(os.environ["JUPYTER_CONFIG_DIR"]) / "lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )


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
    cells = browser.evaluate(f"document.querySelectorAll('{CELL}').length")
    wait_until(lambda: type_into_last_cell(browser, code), f"the page to take what was typed: {code}")
    browser.press("Enter", SHIFT)
    browser.wait(f"document.querySelectorAll('{CELL}').length > {cells}")


def type_into_last_cell(browser: Browser, code: str) -> bool:
    """Whether it is there now; a page that is still being put together takes the focus away from who types."""
    browser.click(f"{CELL}:last-child .cm-content")
    browser.type(code)
    return code in browser.texts(f"{CELL}:last-child .cm-content")


def wait_for_kernel(server: NotebookServer, browser: Browser, name: str) -> None:
    """Until the page is connected, for a second, to one and the same kernel.

    JupyterLab asks for a card's kernel twice and shuts one down at once; a cell that is run meanwhile is lost
    to it, with kernels of this machine too.
    """
    seen: tuple[str, float] = ("", 0.0)

    def settled() -> bool:
        nonlocal seen
        try:
            kernels = [each["id"] for each in server.rest("GET", "api/kernels") if each["connections"]]
        except HTTPError:  # jupyter_server cannot list a kernel that was started this very moment
            kernels = []
        kernel = kernels[0] if len(kernels) == 1 else ""
        if kernel != seen[0]:
            seen = (kernel, time.monotonic())
        return bool(kernel) and time.monotonic() - seen[1] > 1

    browser.wait_text(".jp-Toolbar-kernelName", name)
    wait_until(settled, "the page to be connected to one kernel")


def open_a_notebook(server: NotebookServer, browser: Browser, name: str) -> None:
    """In JupyterLab, by the card."""
    browser.go(server.url("lab"))
    browser.click(card(name))
    wait_for_kernel(server, browser, name)


def shut_down(browser: Browser) -> None:
    """By the Kernel menu."""
    browser.choose(".lm-MenuBar-itemLabel", "Kernel", "Shut Down Kernel")
