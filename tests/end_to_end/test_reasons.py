"""Why a kernel ended is said in the notebook within 3 s, with the last lines of stderr (DESIGN §3, promise 3)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from ..sites.engine import DEADLINE, Engine, Outcome, collect, connected, run_cell, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@contextlib.contextmanager
def started(name: str) -> Iterator[KernelManager]:
    manager = KernelManager(kernel_name=name)
    manager.start_kernel()
    try:
        yield manager
    finally:
        manager.shutdown_kernel(now=True)


def test_a_killed_kernel(engine: Engine) -> None:
    engine.target("here", kernel="python3")
    engine.entry("here", "here")
    with started("here") as manager, connected(manager.connection_file) as client:
        code = (
            "import sys; print('my last words', file=sys.__stderr__, flush=True); import time; time.sleep(60)"
        )
        message = client.execute(code)
        while client.get_iopub_msg(timeout=DEADLINE)["msg_type"] != "execute_input":
            pass
        (process,) = engine.far_processes()
        began = time.monotonic()
        os.kill(process.pid, signal.SIGSEGV)
        outcome = collect(client, message)
        assert time.monotonic() - began < 3
        assert "SIGSEGV" in outcome.error
        assert outcome.reply["content"]["status"] == "error"
        (row,) = engine.kernels()
        assert row["reason"]["kind"] == "signal"
        assert row["reason"]["signum"] == signal.SIGSEGV
        # Whatever is asked now is answered, not left hanging.
        assert "SIGSEGV" in run_cell(client, "1").error


def test_a_kernel_that_exits_by_itself(engine: Engine) -> None:
    engine.target("here", kernel="python3")
    engine.entry("here", "here")
    with started("here") as manager, connected(manager.connection_file) as client:
        message = client.execute("import os, sys; os.write(2, b'a farewell\\n'); os._exit(7)")
        outcome = collect(client, message)
        assert "status 7" in outcome.error


def first_cell(manager: KernelManager) -> tuple[Outcome, float]:
    """The first cell of a kernel that will not come up, and how long its answer took."""
    client = BlockingKernelClient()
    client.load_connection_file(manager.connection_file)
    client.start_channels()
    try:
        began = time.monotonic()
        return collect(client, client.execute("1")), time.monotonic() - began
    finally:
        client.stop_channels()


def test_no_such_program(engine: Engine) -> None:
    engine.kernelspec("broken", ["/nowhere/python", "-f", "{connection_file}"])
    engine.target("broken", kernel="broken")
    engine.entry("broken-entry", "broken")
    with started("broken-entry") as manager:
        outcome, seconds = first_cell(manager)
    assert seconds < 3
    assert "/nowhere/python" in outcome.error
    assert outcome.reply["content"]["status"] == "error"


def test_no_such_kernelspec_names_those_that_are_there(engine: Engine) -> None:
    engine.kernelspec("python-torch", [sys.executable])
    engine.target("here", kernel="python-torhc")
    engine.entry("here", "here")
    with started("here") as manager:
        outcome, _ = first_cell(manager)
    assert "python-torhc" in outcome.error
    assert "python-torch" in outcome.error


def test_an_import_error_is_shown_with_the_last_lines(engine: Engine, tmp_path: Path) -> None:
    program = tmp_path / "kernel.py"
    program.write_text("import a_module_that_is_not_there\n")
    engine.kernelspec("broken", [sys.executable, str(program), "{connection_file}"])
    engine.target("broken", kernel="broken")
    engine.entry("broken-entry", "broken")
    with started("broken-entry") as manager:
        outcome, seconds = first_cell(manager)
    assert seconds < 3
    assert "status 1" in outcome.error
    assert "ModuleNotFoundError: No module named 'a_module_that_is_not_there'" in outcome.error


def test_ps_still_knows_why_afterwards(engine: Engine) -> None:
    engine.kernelspec("quitter", ["/bin/sh", "-c", "echo no licence >&2; exit 3"])
    engine.target("quitter", kernel="quitter")
    engine.entry("quitter-entry", "quitter")
    with started("quitter-entry"):
        wait_until(lambda: engine.kernels()[0]["state"] == "ended", "the kernel to end")
    (row,) = engine.kernels()
    assert (row["state"], row["reason"]["kind"], row["reason"]["status"]) == ("ended", "exit", 3)
    assert "no licence" in row["reason"]["tail"]


@pytest.fixture
def memory_cgroup() -> Iterator[Path]:
    """A control group with a limit of 200 MiB, in whichever hierarchy this machine has (made as root)."""
    name = f"farkernel-test-{os.getpid()}"
    first = Path("/sys/fs/cgroup/memory")
    place, limit = (
        (first / name, "memory.limit_in_bytes") if first.is_dir() else (first.parent / name, "memory.max")
    )
    place.mkdir()
    (place / limit).write_text(str(200 << 20))
    yield place
    wait_until(lambda: not (place / "cgroup.procs").read_text().strip(), "the control group to be empty")
    place.rmdir()


def test_out_of_memory_is_said_with_the_figure(engine: Engine, memory_cgroup: Path) -> None:
    engine.target("tight", kernel="python3", before=f"echo $$ > {memory_cgroup}/cgroup.procs")
    engine.entry("tight", "tight")
    with started("tight") as manager, connected(manager.connection_file) as client:
        began = time.monotonic()
        outcome = run_cell(client, "hog = bytearray(400 << 20)")
        # The system takes its time to kill it; the reason follows within 3 s.
        assert time.monotonic() - began < 3 + 5
        assert "memory" in outcome.error
        assert "200 MiB" in outcome.error
        (row,) = engine.kernels()
        assert row["reason"]["kind"] == "oom"
