"""Warm spares: kernels that were started before anybody asked for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from ..sites.engine import Engine, connected, run_cell, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def site(engine: Engine) -> Iterator[Engine]:
    engine.target("here", kernel="python3", warm=1)
    engine.entry("here", "here")
    yield engine
    engine.client.request("release", allocation="local:")


def spares(site: Engine) -> list[dict[str, Any]]:
    return [row for row in site.client.request("elsewhere")["kernels"] if row["spare"]]


def warm(site: Engine) -> str:
    """The id of the spare that waits, live."""
    wait_until(lambda: [row for row in spares(site) if row["state"] == "live"], "a live spare")
    (row,) = spares(site)
    return str(row["kernel"])


def start(notebook: str) -> tuple[KernelManager, float, list[str]]:
    manager = KernelManager(kernel_name="here")
    began = time.monotonic()
    manager.start_kernel(env={**os.environ, "JPY_SESSION_NAME": notebook})
    with connected(manager.connection_file) as client:
        text = run_cell(client, "import os; print(os.getpid(), 'x' in dir()); x = 1").text
        return manager, time.monotonic() - began, text.splitlines()[-1].split()


def test_the_next_notebook_gets_the_spare_and_another_one_is_made(site: Engine) -> None:
    first, cold, _ = start("one.ipynb")
    spare = warm(site)
    second, taken, (pid, has_x) = start("two.ipynb")
    assert has_x == "False"
    assert warm(site) != spare
    assert taken < 0.5 * cold
    # A restart is a life of its own, in the same place, with the same way out.
    second.restart_kernel()
    with connected(second.connection_file) as client:
        again = run_cell(client, "import os; print(os.getpid(), 'x' in dir())").text.split()
    assert again != [pid, has_x]
    assert again[1] == "False"
    for manager in (first, second):
        manager.shutdown_kernel()
    wait_until(lambda: all(row["state"] == "ended" for row in site.kernels()), "both to end")


def test_a_spare_is_no_kernel_for_another_kind_of_start(site: Engine) -> None:
    first, _, _ = start("one.ipynb")
    spare = warm(site)
    site.target("here", kernel="python3", warm=1, env={"OTHER": "yes"})
    manager = KernelManager(kernel_name="here")
    manager.start_kernel()
    with connected(manager.connection_file) as client:
        assert run_cell(client, "import os; print(os.environ['OTHER'])").text == "yes\n"
    assert spare in {row["kernel"] for row in spares(site)}
    for each in (first, manager):
        each.shutdown_kernel()
