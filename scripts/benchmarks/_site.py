"""A place of its own for a benchmark: nothing of the user's is touched, nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from farkernel.launcher.client import KeeperClient

PYTHON_KERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


@contextlib.contextmanager
def site() -> Iterator[Path]:
    """Directories for this run; the keeper and the agents are ended with it."""
    top = Path(tempfile.mkdtemp(prefix="fk-bench-", dir="/tmp"))
    for name, place in {
        "XDG_CONFIG_HOME": "config",
        "XDG_STATE_HOME": "state",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "FARKERNEL_RUN_DIR": "run",
    }.items():
        (top / place).mkdir(mode=0o700)
        os.environ[name] = str(top / place)
    os.environ["FARKERNEL_AGENT_IDLE"] = "2"
    try:
        yield top
    finally:
        _end_all(top)
        shutil.rmtree(top, ignore_errors=True)


def _end_all(top: Path) -> None:
    client = KeeperClient()
    with contextlib.suppress(Exception):  # a benchmark that failed must still leave nothing behind
        for row in client.request("list")["kernels"]:
            if row["state"] != "ended":
                client.request("stop", kernel=row["kernel"], now=True)
        keeper = psutil.Process(int(client.request("status")["pid"]))
        client.request("end")
        keeper.wait(10)
    client.close()
    marks = str(top)
    left = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(marks in part for part in process.info["cmdline"] or [])
    ]
    for process in psutil.wait_procs(left, timeout=6)[1]:
        process.kill()


def local_spec(name: str, argv: list[str]) -> None:
    """A kernelspec as Jupyter uses it directly."""
    directory = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / name
    directory.mkdir(parents=True)
    (directory / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": name, "language": "python"})
    )


def menu_entry(name: str, kernel: str, address: str = "local:", *settings: str) -> None:
    """The same kernel through a target; ``settings`` are more lines of its configuration."""
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "farkernel"
    config.mkdir(exist_ok=True)
    lines = [f"[targets.{name}]", f'address = "{address}"', f'kernel = "{kernel}"', *settings, ""]
    (config / f"{name}.toml").write_text("\n".join(lines))
    directory = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / name
    directory.mkdir(parents=True)
    provisioner = {"provisioner_name": "farkernel", "config": {"target": name}}
    spec = {
        "argv": [sys.executable, "-m", "farkernel", "launch", name, "-f", "{connection_file}"],
        "display_name": name,
        "language": "python",
        "metadata": {"kernel_provisioner": provisioner},
    }
    (directory / "kernel.json").write_text(json.dumps(spec))


@contextlib.contextmanager
def kernel(name: str, **settings: Any) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A running kernel and a client that is ready."""
    manager = KernelManager(kernel_name=name, **settings)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def round_trip(client: BlockingKernelClient, code: str, deadline: float = 120.0) -> float:
    """Seconds from asking to having both the reply and the idle state."""
    began = time.perf_counter()
    msg_id = client.execute(code)
    replied = idle = False
    while not idle:
        message = client.get_iopub_msg(timeout=deadline)
        same = message["parent_header"].get("msg_id") == msg_id
        idle = same and message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
    while not replied:
        replied = client.get_shell_msg(timeout=deadline)["parent_header"].get("msg_id") == msg_id
    return time.perf_counter() - began
