"""Another user of the machine gets nothing: not from sockets, files, ports, `ps` or logs (DESIGN §3, promise 5)."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.manager import KernelManager

from ..sites.engine import Engine, connected, run_cell

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

SPY = Path(__file__).with_name("spy.py")


def spy(*arguments: str) -> dict[str, Any]:
    """As the user ``nobody``: the tests run as root where this is run (scripts/test says so elsewhere)."""
    nobody = pwd.getpwnam("nobody")
    command = ["/usr/bin/env", "-i", "/usr/bin/python3", "-", *arguments]
    found = subprocess.run(
        command,
        input=SPY.read_bytes(),
        capture_output=True,
        check=True,
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        cwd="/",
    )
    result: dict[str, Any] = json.loads(found.stdout)
    assert result["uid"] == nobody.pw_uid
    return result


def open_the_way(path: Path) -> None:
    """Only our own directories shall keep the spy out, not those that the test run made around them."""
    for parent in [path, *path.parents][1:]:
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)


def test_a_spy_gets_nothing(engine: Engine, home: Path) -> None:
    engine.target("here", kernel="python3", env={"TOKEN": "env-secret-5150"})
    engine.entry("here", "here")
    manager = KernelManager(kernel_name="here", transport="ipc")
    manager.start_kernel()
    try:
        with connected(manager.connection_file) as client:
            run_cell(client, "secret = 'cell-secret-4711'; print(secret)")
            run = Path(os.environ["FARKERNEL_RUN_DIR"])
            state = Path(os.environ["XDG_STATE_HOME"]) / "farkernel"
            open_the_way(run)
            open_the_way(state)
            secrets = ["cell-secret-4711", "env-secret-5150", manager.session.key.decode()]
            secrets += [far_key(state)]
            found = spy(str(run), str(state), *secrets)
            assert found["sockets"] == []
            assert found["files"] == []
            # The spy's own command line holds the secrets; nobody else's does.
            assert [each for each in found["processes"] if "cmdline" not in each] == []
            assert len(found["processes"]) <= 1
            # (ipykernel itself opens a port on loopback, for what its subprocesses print.)
            ours = [engine.keeper_pid(), *engine.agent_pids()]
            assert len(ours) == 3
            for pid in ours:
                assert psutil.Process(pid).net_connections("inet") == [], (
                    f"process {pid} can be reached by a port"
                )
            for log in (*run.rglob("*log*"), *state.rglob("*log*")):
                if log.is_file():
                    text = log.read_text(errors="replace")
                    assert not [secret for secret in secrets if secret in text], f"{log} tells a secret"
    finally:
        manager.shutdown_kernel(now=True)


def far_key(state: Path) -> str:
    """The key between agent and kernel, as the keeper wrote it down (0600, in a 0700 directory)."""
    (facts,) = state.glob("*/kernels/*.json")
    return str(json.loads(facts.read_text())["far_key"])
