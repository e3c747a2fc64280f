"""Kernels that are not Python: bash, and R as Debian packages it; nothing but the protocol is assumed of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from ..sites.engine import DEADLINE, Engine, collect, connected, run_cell, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@dataclass(frozen=True)
class Language:
    """What to say in a language to see the same things happen."""

    name: str
    kernel: str
    hello: str
    error: str
    error_shows: str
    assign: str
    show: str
    gone: str  # what `show` gives when the variable is not there
    pid: str
    sleep: str
    complete: tuple[str, str]


BASH = Language(
    name="bash",
    kernel="bash",
    hello="echo 'hällo, wörld'",
    error="cat /no/such/file",
    error_shows="No such file",
    assign="x=41",
    show="echo value $((x + 1))",
    gone="value 1",
    pid="echo $PPID",
    sleep="echo on; sleep 60",
    complete=("ech", "echo"),
)
R = Language(
    name="R",
    kernel="ir",
    hello="cat('hällo, wörld\\n')",
    error="stop('on purpose')",
    error_shows="on purpose",
    assign="x <- 41",
    show="cat('value', x + 1, '\\n')",
    gone="'x' not found",
    pid="cat(Sys.getpid())",
    sleep="cat('on\\n'); flush.console(); Sys.sleep(60)",
    complete=("read.cs", "read.csv"),
)


@pytest.fixture(params=[BASH, R], ids=lambda language: str(language.name))
def language(engine: Engine, request: pytest.FixtureRequest) -> Language:
    language: Language = request.param
    if language is BASH:  # R's kernelspec comes with its Debian package
        argv = [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"]
        engine.kernelspec("bash", argv, language="bash", env={"PS1": "$"})
    engine.target("here", kernel=language.kernel)
    engine.entry("here", "here", language=language.name)
    return language


@pytest.fixture
def manager(language: Language) -> Iterator[KernelManager]:
    manager = KernelManager(kernel_name="here")
    manager.start_kernel()
    yield manager
    if manager.has_kernel:
        manager.shutdown_kernel(now=True)


@pytest.fixture
def client(manager: KernelManager) -> Iterator[BlockingKernelClient]:
    with connected(manager.connection_file) as client:
        yield client


def said(client: BlockingKernelClient, code: str) -> str:
    """All that a cell shows, as text."""
    outcome = run_cell(client, code)
    return outcome.text + outcome.error


def test_a_day_of_a_kernel(
    engine: Engine, language: Language, manager: KernelManager, client: BlockingKernelClient
) -> None:
    client.kernel_info()
    while (info := client.get_shell_msg(timeout=DEADLINE))["msg_type"] != "kernel_info_reply":
        pass
    assert info["content"]["language_info"]["name"] == language.name

    assert said(client, language.hello) == "hällo, wörld\n"
    failed = run_cell(client, language.error)
    assert failed.reply["content"]["status"] == "error"
    assert language.error_shows in failed.text + failed.error

    said(client, language.assign)
    assert said(client, language.show).split() == ["value", "42"]
    assert int(said(client, language.pid)) in {process.pid for process in engine.far_processes()}

    text, wanted = language.complete
    client.complete(text, len(text))
    while (completed := client.get_shell_msg(timeout=DEADLINE))["msg_type"] != "complete_reply":
        pass
    assert wanted in completed["content"]["matches"]

    interrupt(client, manager, language)
    assert said(client, language.show).split() == ["value", "42"], "an interrupt must leave the variables"

    manager.restart_kernel()
    client.wait_for_ready(timeout=DEADLINE)
    assert language.gone in said(client, language.show)

    manager.shutdown_kernel()
    wait_until(lambda: not engine.far_or_before(), "the kernel and its children to end")
    (row,) = engine.kernels()
    assert row["reason"]["kind"] == "stopped"


def interrupt(client: BlockingKernelClient, manager: KernelManager, language: Language) -> None:
    """By a signal: neither of these kernels knows of messages for it."""
    cell = client.execute(language.sleep)
    while (message := client.get_iopub_msg(timeout=DEADLINE))["msg_type"] != "stream":
        pass
    assert "on" in message["content"]["text"]
    began = time.monotonic()
    manager.interrupt_kernel()
    assert collect(client, cell).reply["content"]["status"] != "ok"
    assert time.monotonic() - began < 10
