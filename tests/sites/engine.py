"""Farkernel itself as a test's site: targets, menu entries written by hand, a keeper of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.blocking.client import BlockingKernelClient

from farkernel.launcher.client import KeeperClient
from farkernel.launcher.errors import FarkernelError

FAKE_KERNEL = Path(__file__).parent.parent / "fakekernel.py"
DEADLINE = 30.0


class Engine:
    """What a test needs to start kernels here, and to end everything afterwards."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.client = KeeperClient()

    def target(self, name: str, **settings: Any) -> None:
        """Write a target into the user's configuration (values as in TOML)."""
        directory = Path(os.environ["XDG_CONFIG_HOME"]) / "farkernel"
        directory.mkdir(parents=True, exist_ok=True)
        lines = [f"[targets.{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in {"address": "local:", **settings}.items()]
        (directory / f"{name}.toml").write_text("\n".join(lines) + "\n")

    def entry(self, name: str, target: str, language: str = "python", **settings: Any) -> Path:
        """A menu entry as a person would write it by hand."""
        directory = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / name
        directory.mkdir(parents=True)
        spec = {
            "argv": [sys.executable, "-m", "farkernel", "launch", name, "-f", "{connection_file}"],
            "display_name": f"{name} (Farkernel)",
            "language": language,
            "metadata": {
                "debugger": True,
                "supported_encryption": ["curve"],
                "kernel_provisioner": {
                    "provisioner_name": "farkernel",
                    "config": {"target": target, **settings},
                },
            },
        }
        (directory / "kernel.json").write_text(json.dumps(spec))
        return directory

    def kernelspec(self, name: str, argv: list[str], **more: Any) -> None:
        """A kernelspec at the far end (which is here): what a target's ``kernel`` names."""
        directory = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / name
        directory.mkdir(parents=True)
        spec = {"argv": argv, "display_name": name, "language": "python", **more}
        (directory / "kernel.json").write_text(json.dumps(spec))

    def fake_kernel(self, name: str = "fake", **more: Any) -> None:
        self.kernelspec(name, [sys.executable, str(FAKE_KERNEL), "{connection_file}"], **more)

    def keeper_pid(self) -> int:
        return int(self.client.request("status")["pid"])

    def kernels(self) -> list[dict[str, Any]]:
        return list(self.client.request("list")["kernels"])

    def kernel(self, name: str) -> dict[str, Any]:
        return next(row for row in self.kernels() if row["kernel"] == name)

    def agent_pids(self) -> list[int]:
        """Guard and worker of the agent of this test's run directory."""
        directory = os.environ["FARKERNEL_RUN_DIR"]
        return sorted(
            process.pid
            for process in psutil.process_iter()
            if any(directory in part and "agents" in part for part in _command(process))
            and "serve" in _command(process)
        )

    def far_processes(self) -> list[psutil.Process]:
        """The kernels' own processes: those that were given a connection file in the agent's directory."""
        directory = os.environ["FARKERNEL_RUN_DIR"]
        return [
            process
            for process in psutil.process_iter()
            if any(part.startswith(directory) and part.endswith(".json") for part in _command(process))
        ]

    def far_or_before(self) -> list[psutil.Process]:
        """Everything that the agent started: kernels, and the shell lines before them."""
        agents = set(self.agent_pids())
        return [
            child
            for pid in agents
            for child in psutil.Process(pid).children(recursive=True)
            if child.pid not in agents
        ]

    def close(self) -> None:
        """End every kernel and the keeper, and see that the agent ends."""
        for _ in range(
            3
        ):  # a keeper that is just stopping takes its connections with it; the next one knows the kernels
            with contextlib.suppress(FarkernelError, OSError):
                for row in self.kernels():
                    if row["state"] != "ended":
                        self.client.request("stop", kernel=row["kernel"], now=True)
                break
        with contextlib.suppress(FarkernelError, OSError):
            pid = self.keeper_pid()
            self.client.request("end")
            if pid != os.getpid():  # one within the test ends with its site
                wait_until(lambda: not psutil.pid_exists(pid), "the keeper to end")
        with contextlib.suppress(FarkernelError, OSError):
            self.client.close()
        # An agent without kernels and connections gives itself up (FARKERNEL_AGENT_IDLE); that is part of every test.
        wait_until(lambda: not self.agent_pids(), "the agent to end", deadline=15)
        assert not self.far_processes()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def is_notice(kind: str, content: dict[str, Any]) -> bool:
    """What we say ourselves about a link that is down for some seconds, as it may be on a busy machine.

    In a cell that the kernel has not begun it is taken away again; the kernel itself clears nothing here.
    """
    return kind == "clear_output" or str(content.get("data", {}).get("text/plain", "")).startswith(
        "[farkernel] The link to "
    )


def wait_until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """For what gives no event to a test: other processes' ends, files.  Returns the first true value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:.0f} s in vain for {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def connected(connection_file: str | Path) -> Iterator[BlockingKernelClient]:
    """A plain client of the kernel behind a connection file, ready to execute."""
    client = BlockingKernelClient()
    client.load_connection_file(str(connection_file))
    client.start_channels()
    try:
        client.wait_for_ready(timeout=DEADLINE)
        yield client
    finally:
        client.stop_channels()


class Outcome:
    """What came of one cell."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self.reply: dict[str, Any] = {}
        self.states: list[str] = []

    @property
    def text(self) -> str:
        return "".join(
            each["content"].get("text", "") for each in self.outputs if each["msg_type"] == "stream"
        )

    @property
    def error(self) -> str:
        return "\n".join(
            line
            for each in self.outputs
            if each["msg_type"] == "error"
            for line in each["content"]["traceback"]
        )


def run_cell(client: BlockingKernelClient, code: str, deadline: float = DEADLINE) -> Outcome:
    """Execute and collect until the reply and the idle state have come."""
    return collect(client, client.execute(code), deadline)


def outlives_patience(client: BlockingKernelClient) -> None:
    """The kernel lives longer than it would with a shutdown_request that is held, and that nobody explains."""
    run_cell(client, "import time; time.sleep(3.5)")  # ipykernel lets a cell end
    assert run_cell(client, "print('alive')").text == "alive\n"


def collect(client: BlockingKernelClient, msg_id: str, deadline: float = DEADLINE) -> Outcome:
    outcome = Outcome()
    end = time.monotonic() + deadline
    try:
        while "idle" not in outcome.states:
            message = client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] == "status":
                outcome.states.append(message["content"]["execution_state"])
            else:
                outcome.outputs.append(message)
        while outcome.reply.get("parent_header", {}).get("msg_id") != msg_id:
            outcome.reply = client.get_shell_msg(timeout=max(0.0, end - time.monotonic()))
    except queue.Empty:
        seen = [(each["msg_type"], each["content"]) for each in outcome.outputs]
        raise AssertionError(f"not over after {deadline} s: {outcome.states}, {seen}") from None
    return outcome
