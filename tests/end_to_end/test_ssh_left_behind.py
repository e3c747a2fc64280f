"""The truth lives where the kernel lives (DESIGN §2): over SSH a kernel is taken up by a keeper that knows nothing of it."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from farkernel.launcher.errors import FarkernelError

from ..conftest import isolate
from ..sites.engine import DEADLINE, Engine, run_cell, wait_until
from ..sites.far import Far, Notebook, far_site

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

LINES = 3000
LONG = f"""\
import pathlib, time
for number in range({LINES}):
    print('line', number)
    if number == 200:
        print(flush=True, end='')
        pathlib.Path('PLACE/begun').touch()
        while not pathlib.Path('PLACE/go').exists():
            time.sleep(0.01)
pathlib.Path('PLACE/done').touch()
"""
PAPER = "paper.ipynb"


@pytest.fixture
def far(engine: Engine, home: Path) -> Iterator[Far]:
    with far_site(engine, home.parent) as far:
        yield far


class LongCell:
    """A notebook whose cell is in the middle of what it has to say."""

    def __init__(self, far: Far, place: Path) -> None:
        self.place = place
        self.code = LONG.replace("PLACE", str(place))
        self.notebook = Notebook(far.engine, notebook=PAPER)
        run_cell(self.notebook.client, "x = 41")
        self.notebook.client.execute(self.code)
        wait_until((place / "begun").exists, "the cell to begin")

    def go_on(self) -> None:
        (self.place / "go").touch()
        wait_until((self.place / "done").exists, "the cell to end")

    def check(self, kernel: str) -> None:
        """All of it is under its cell when it is put there, once and in order."""
        file = self.place / PAPER
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(self.code)]), file)
        farkernel("output", kernel, "--into", str(file))
        (output,) = nbformat.read(file, as_version=4).cells[0].outputs
        assert output["text"] == "".join(f"line {number}\n" for number in range(LINES))


@pytest.fixture
def long_cell(far: Far, home: Path) -> Iterator[LongCell]:
    cell = LongCell(far, home)
    yield cell
    cell.notebook.client.stop_channels()


def farkernel(*arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def kill_keeper(far: Far) -> None:
    pid = far.engine.keeper_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), "the keeper to be gone")


def lose_everything(far: Far) -> None:
    """The keeper is killed, and nothing that it wrote down is left."""
    kill_keeper(far)
    shutil.rmtree(Path(os.environ["FARKERNEL_RUN_DIR"]))
    shutil.rmtree(Path(os.environ["XDG_STATE_HOME"]))


@contextmanager
def another_machine(far: Far) -> Iterator[Engine]:
    """Another home and other run directories: nothing is shared but the far end."""
    with pytest.MonkeyPatch.context() as patch:
        home = isolate(patch)
        patch.setenv("FARKERNEL_AGENT_IDLE", "0.5")
        there = Far(Engine(home), far.host, far.wire)
        there.target()
        try:
            yield there.engine
        finally:
            there.engine.close()
            shutil.rmtree(home.parent, ignore_errors=True)


def found_there(attended: bool) -> dict[str, Any]:
    """What `farkernel ps --all` finds at the far end, once the agent knows that its keeper is gone."""

    def look() -> dict[str, Any] | None:
        (row,) = json.loads(farkernel("ps", "--all", "--json"))["kernels"]
        return dict(row) if row["attended"] is attended else None

    return dict(wait_until(look, f"the kernel, attended: {attended}"))


def test_ps_finds_and_attach_takes_up_what_a_lost_keeper_started(far: Far, long_cell: LongCell) -> None:
    lose_everything(far)
    long_cell.go_on()
    row = found_there(attended=False)
    assert (row["entry"], row["notebook"], row["state"], row["target"]) == ("far", PAPER, "live", "far")
    assert row["kernel"] == long_cell.notebook.kernel
    assert attach(row["kernel"][:8], "print('answer', x + 1)", "answer 42")
    assert far.engine.kernel(row["kernel"])["state"] == "live"  # ours now, and it outlives the console
    long_cell.check(row["kernel"][:8])


def attach(kernel: str, code: str, wanted: str) -> bool:
    """`farkernel attach` at a terminal: type, and wait for what it prints."""
    master, slave = pty.openpty()
    command = [sys.executable, "-P", "-m", "farkernel", "attach", kernel]
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        terminal = Terminal(master)
        try:
            for shown, typed in (
                ("In [", f"{code}\r"),
                (wanted, ""),
                ("In [", "\x04"),
                ("want to exit", "y\r"),
            ):
                terminal.wait_for(shown)
                terminal.type(typed)
            terminal.wait_for("keeping kernel alive")
            return process.wait(DEADLINE) == 0
        finally:
            process.kill()
            os.close(master)


class Terminal:
    """What is read from a terminal, in the order in which it is waited for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._said = b""

    def wait_for(self, wanted: str) -> None:
        end = time.monotonic() + DEADLINE
        while wanted.encode() not in self._said:
            assert select.select([self._descriptor], [], [], max(0.0, end - time.monotonic()))[0], self._said
            self._said += os.read(self._descriptor, 65536)
        self._said = self._said.partition(wanted.encode())[2]

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())


def test_the_same_notebook_goes_on_where_everything_was_lost(far: Far, long_cell: LongCell) -> None:
    """While its cell still runs: what is typed next runs after it."""
    lose_everything(far)
    found_there(attended=False)
    with Notebook(far.engine, notebook=PAPER) as again:
        cell = again.client.execute("print('answer', x + 1)")
        far.link_is(up=True)
        long_cell.go_on()
        message, _ = again.shown("answer 42")
        assert message["parent_header"]["msg_id"] == cell
        long_cell.check(again.kernel)


def test_from_another_machine_while_the_first_one_is_off(far: Far, long_cell: LongCell) -> None:
    kill_keeper(far)
    with another_machine(far) as there:
        row = found_there(attended=False)
        assert row["kernel"] == long_cell.notebook.kernel
        long_cell.go_on()
        with Notebook(there, notebook=PAPER) as again:
            said = run_cell(again.client, "print('answer', x + 1)").text
            assert "[farkernel] This notebook's kernel was still there (started " in said
            assert f"farkernel output {again.kernel[:8]} --into NOTEBOOK.ipynb" in said
            assert said.endswith("answer 42\n")
            long_cell.check(again.kernel)


def test_from_another_machine_while_the_first_one_is_on(far: Far, long_cell: LongCell) -> None:
    """It takes over only when somebody says so by name; the first one is told, and takes it back in the same way."""
    kernel = long_cell.notebook.kernel
    long_cell.go_on()
    with another_machine(far) as there:
        assert found_there(attended=True)["kernel"] == kernel
        with Notebook(there, notebook=PAPER) as other:
            assert other.kernel != kernel
            said = run_cell(other.client, "print('x' in dir() or 'fresh')", 60).text
            assert said.endswith("fresh\n")
        assert attach(kernel[:8], "x = x + 1; print('answer', x)", "answer 42")
        row = far.engine.kernel(kernel)
        assert row["state"] == "ended"
        assert "has taken it over, and it runs on there" in row["reason"]["text"]
        assert f"farkernel attach {kernel}" in row["reason"]["text"]
    # That machine has ended the kernels that it had at its end.


def test_stopped_by_a_keeper_that_ends_before_it_has_reached_it(far: Far) -> None:
    """The next keeper may be days away: the one that was told to stop it still does, if the host can be reached."""
    with Notebook(far.engine) as notebook:
        run_cell(notebook.client, "1")
        far.engine.client.request("end")
        for row in wait_until(lambda: next_keeper(far.engine), "the next keeper"):
            far.engine.client.request("stop", kernel=row["kernel"], now=True)
        far.engine.client.request("end")
        wait_until(lambda: not far.host.agents(), "the far agent to end", 15)


def next_keeper(engine: Engine) -> list[dict[str, Any]]:
    try:
        return engine.kernels()
    except (FarkernelError, OSError):
        return []
