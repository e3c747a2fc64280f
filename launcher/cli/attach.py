"""`farkernel attach`: a console on a kernel that runs."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from typing import Any, cast

from ..client import keeper_directory
from ..errors import FarkernelError
from .asking import Asking, Progress
from .kernels import listing, pick


class NoConsole(FarkernelError):
    kind = "no-console"

    def __init__(self) -> None:
        super().__init__(
            "jupyter_console is not installed in this environment",
            f"Install it: {sys.executable} -m pip install jupyter_console",
        )


class KernelHasEnded(FarkernelError):
    kind = "ended"

    def __init__(self, kernel: str, reason: Any) -> None:
        why = reason.get("text") if isinstance(reason, dict) else None
        super().__init__(f"kernel {kernel[:8]} has ended{f': {why}' if why else ''}", "See: farkernel ps")


def configure_attach(parser: argparse.ArgumentParser) -> None:
    parser.description = "Open a console on a kernel; the kernel lives on when you leave it."
    parser.add_argument("id", metavar="ID", help="of a kernel, or its beginning, as `farkernel ps` shows it")


def run_attach(arguments: argparse.Namespace) -> int:
    if find_spec("jupyter_console") is None:
        raise NoConsole
    with Asking() as client:
        rows = {str(row.get("kernel")): row for row in listing(client, True)["kernels"]}
        kernel = pick("kernel", arguments.id, rows)
        if rows[kernel].get("state") == "ended":
            raise KernelHasEnded(kernel, rows[kernel].get("reason"))
        connection = client.request("connection", kernel=kernel)["connection"]
        last: dict[str, Any] = {}
        # While the console is open, somebody is there: `keep` does not run out.
        client.watch(kernel, last.update)
        return console(kernel, connection, last)


def console(kernel: str, connection: dict[str, Any], last: dict[str, Any]) -> int:
    """Run jupyter_console with a private connection file, which nobody finds afterwards."""
    directory = tempfile.mkdtemp(prefix="attach-", dir=keeper_directory())
    try:
        path = os.path.join(directory, "connection.json")
        with open(path, "w", encoding="utf-8", opener=_private) as file:
            json.dump(connection, file)
        wait_for_answer(kernel, connection, last)
        command = [sys.executable, "-P", "-m", "jupyter_console", "--existing", path]
        # Ctrl-C is for the console, which interrupts the kernel; we only wait.
        former = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            status = subprocess.run(command, check=False, preexec_fn=_default_sigint).returncode
        finally:
            signal.signal(signal.SIGINT, former)
        return status if status >= 0 else 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def wait_for_answer(kernel: str, connection: dict[str, Any], last: dict[str, Any]) -> None:
    """A kernel that is busy answers when its cell is done, and a console would give up before that.

    ``last`` is kept up to date with the kernel's state.  Ctrl-C ends the wait.
    """
    import queue

    from jupyter_client.blocking.client import BlockingKernelClient

    client = BlockingKernelClient()
    client.load_connection_info(cast(Any, connection))
    client.start_channels(iopub=False, stdin=False, hb=False)
    try:
        with Progress("waiting for the kernel to be done with its cell (Ctrl-C: do not wait)"):
            client.kernel_info()
            while last.get("state") != "ended":
                try:
                    client.get_shell_msg(timeout=0.5)
                    return
                except queue.Empty:
                    continue
        raise KernelHasEnded(kernel, last.get("reason"))
    finally:
        client.stop_channels()


def _default_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL, 0o600)
