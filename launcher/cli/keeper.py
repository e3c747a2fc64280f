"""`farkernel keeper status|stop|restart`: the background process."""

from __future__ import annotations

import argparse
import os
import select
import signal
from typing import Any

from ..client import KeeperClient, keeper_directory
from ..client_protocol import KeeperGone, KeeperNotRunning
from ..client_start import lock_holder, start_keeper
from ..errors import FarkernelError
from . import table
from .arguments import add_json
from .asking import Progress
from .output import emit, say

END_DEADLINE = 5.0


class KeeperStuck(FarkernelError):
    kind = "keeper-stuck"

    def __init__(self, directory: str) -> None:
        super().__init__(
            f"the keeper (process {lock_holder(directory)}) does not end even when it is killed",
            "It hangs in the operating system, perhaps on a file system that does not answer; see its log.",
        )


def configure_keeper(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("status", "stop", "restart"),
        help="status: what it holds; stop: end it, kernels live on; restart: end it and start it anew",
    )
    add_json(parser)


def run_keeper(arguments: argparse.Namespace) -> int:
    return {"status": status, "stop": stop, "restart": restart}[arguments.action](arguments.json)


def status(as_json: bool) -> int:
    """Exit status 1 when no keeper is running."""
    try:
        with KeeperClient(start=False) as client:
            found = client.request("status")
    except KeeperNotRunning as error:
        if as_json:
            emit({"running": False})
        else:
            say(str(error))
        return 1
    if as_json:
        emit({"running": True, **found})
    else:
        say(describe(found))
    return 0


def describe(found: dict[str, Any]) -> str:
    rows = {
        "process": found.get("pid"),
        "version": found.get("version"),
        "running for": table.ago(found.get("since")),
        "kernels": _count(found.get("kernels")),
        "allocations": _count(found.get("allocations")),
        "memory": table.size(found.get("memory")),
        "log": found.get("log"),
    }
    return "\n".join(f"{name + ':':<13} {value}" for name, value in rows.items() if value not in (None, ""))


def _count(value: Any) -> Any:
    return len(value) if isinstance(value, (list, dict)) else value


def stop(as_json: bool) -> int:
    with Progress("ending the keeper"):
        ended = end()
    if as_json:
        emit({"stopped": ended})
    else:
        say("The keeper has ended; kernels live on." if ended else "No keeper was running.")
    return 0


def restart(as_json: bool) -> int:
    with Progress("ending the keeper"):
        end()
    with Progress("starting the keeper"):
        start_keeper(keeper_directory())
    with KeeperClient(start=False) as client:
        found = client.request("status")
    if as_json:
        emit({"running": True, **found})
    else:
        say(f"The keeper has been started anew (process {found.get('pid')}); kernels live on.")
    return 0


def end() -> bool:
    """End the keeper, of whatever version and in whatever condition; returns whether one was running.

    Killing one that does not listen loses nothing: it is made to be killed at any instruction (DESIGN §2).
    """
    directory = keeper_directory()
    process = open_process(directory)
    if process is None:
        return False
    try:
        ask_to_end(directory, process)
        for signum in (None, signal.SIGTERM, signal.SIGKILL):
            if signum is not None:
                signal.pidfd_send_signal(process, signum)
            if has_ended(process, END_DEADLINE):
                return True
    except ProcessLookupError:
        return True
    finally:
        os.close(process)
    raise KeeperStuck(directory)


def open_process(directory: str) -> int | None:
    """A descriptor of the process that holds the keeper's lock, so that no other can be meant later."""
    pid = lock_holder(directory)
    if pid is None:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if lock_holder(directory) != pid:
        os.close(process)
        return None
    return process


def ask_to_end(directory: str, process: int) -> None:
    """Politely; one that speaks another protocol, or does not answer, gets a signal instead."""
    try:
        with KeeperClient(directory, start=False) as client:
            client.request("end", timeout=2.0)
    except KeeperGone:
        return
    except FarkernelError:
        signal.pidfd_send_signal(process, signal.SIGTERM)


def has_ended(process: int, deadline: float) -> bool:
    poller = select.poll()
    poller.register(process, select.POLLIN)
    return bool(poller.poll(deadline * 1000))
