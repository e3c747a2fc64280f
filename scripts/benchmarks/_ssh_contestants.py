"""Who takes part in the benchmark over SSH, and the host where their kernels run.

The host is a network namespace of its own (it needs root): the others forward TCP ports, and take it that the host's
loopback is not ours.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _peers
from tests.sites.lossy_network import LossyNetwork
from tests.sites.netns import inside
from tests.sites.ssh import Sshd

DRIVER = str(Path(__file__).with_name("_driver.py"))
_PORTS = itertools.count(40_000, 5)
PORT_NAMES = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


class Failed(Exception):
    """What a contestant says of itself."""


class Driver:
    """A notebook's side, in a process of its own on the near host."""

    def __init__(self, net: LossyNetwork, python: str, path: str = "") -> None:
        environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]}
        self._process = subprocess.Popen(
            [*inside(net.near), python, DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=environment["HOME"],  # remote_ikernel leaves files behind where it runs
        )

    def ask(self, do: str, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "it has ended"}')
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Plain:
    """A menu entry that `KernelManager` starts."""

    def __init__(self, name: str, driver: Driver, kernel: str, **settings: Any) -> None:
        self.name = name
        self.driver = driver
        self._request = {"kernel": kernel, "settings": settings}

    def request(self) -> dict[str, Any]:
        return self._request

    def first(self) -> float:
        """Seconds from the click to the first result."""
        return float(self.driver.ask("first", **self.request()))

    def open(self) -> None:
        self.driver.ask("open", **self.request())

    def run(self, code: str, count: int = 1) -> list[float]:
        return list(self.driver.ask("code", code=code, count=count))

    def close(self) -> None:
        self.driver.ask("close")


class ByHand(Plain):
    """What people do without any of us: the kernel is started by ssh, and five ports are forwarded.

    ``apart``: by an `ssh -N` of its own, as guides say; else by the connection that the kernel's command has, which
    OpenSSH treats otherwise (TCP_NODELAY is set with the first session: packet.c, ssh_packet_set_interactive).
    """

    def __init__(
        self, name: str, driver: Driver, host: Sshd, place: Path, argv: Sequence[str], apart: bool
    ) -> None:
        super().__init__(name, driver, "")
        self._host = host
        self._place = place
        self._argv = list(argv)
        self._apart = apart

    def request(self) -> dict[str, Any]:
        first = next(_PORTS)
        ports = dict(zip(PORT_NAMES, range(first, first + 5), strict=True))
        file = self._place / f"by-hand-{first}.json"
        about = {
            "ip": "127.0.0.1",
            "transport": "tcp",
            "signature_scheme": "hmac-sha256",
            "key": uuid.uuid4().hex,
        }
        file.write_text(json.dumps({**about, **ports}))
        forwards = [word for port in ports.values() for word in ("-L", f"127.0.0.1:{port}:127.0.0.1:{port}")]
        kernel = " ".join(self._argv).replace("{connection_file}", str(file))
        login = ["-F", str(self._host.client_config), "-p", str(self._host.port), self._host.place().host]
        there = ["ssh", *login, f"exec {kernel}"]
        if not self._apart:
            return {"argv": ["ssh", *forwards, *login, f"exec {kernel}"], "file": str(file)}
        tunnel = shlex.join(["ssh", "-N", *forwards, *login])
        script = f'{tunnel} & trap "kill $!" EXIT; {shlex.join(there)}'
        return {"argv": ["sh", "-c", script], "file": str(file)}


def sshpyk(net: LossyNetwork, host: Sshd, python: Path, place: Path, kernel: str) -> Plain:
    """Its menu entry, made by its own command; it wants an alias with a ControlMaster of its own."""
    config = place / "sshpyk_config"
    lines = [
        "Host far_sshpyk",
        f"HostName {host.place().host}",
        f"Port {host.port}",
        f"User {host.user}",
        "BatchMode yes",
        "ControlMaster auto",
        f"ControlPath {place}/m-%C",
        "ControlPersist 10m",
        host.client_config.read_text(),
    ]
    config.write_text("\n".join(lines))
    command = [str(python.with_name("sshpyk")), "add", "--kernel-name", "sshpyk", "--display-name", "sshpyk"]
    command += ["--language", "python", "--ssh-host-alias", "far_sshpyk", "--ssh-config", str(config)]
    command += ["--remote-python", str(python), "--remote-kernel-name", kernel, "--ssh", "/usr/bin/ssh"]
    done = subprocess.run([*inside(net.near), *command], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"sshpyk add: {(done.stderr or done.stdout).strip()[-500:]}")
    return Plain(f"sshpyk {_peers.version(python, 'sshpyk')}", Driver(net, str(python)), "sshpyk")


def remote_ikernel(net: LossyNetwork, host: Sshd, python: Path, place: Path, argv: Sequence[str]) -> Plain:
    """Its menu entry as its `manage` writes it (which needs Notebook 6); it runs whatever `ssh` is on PATH."""
    programs = place / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {host.client_config} "$@"\n')
    (programs / "ssh").chmod(0o755)
    kernel = " ".join(argv).replace("{connection_file}", "{host_connection_file}")
    login = f"{host.user}@{host.place().host}:{host.port}"
    words = [
        str(python),
        "-m",
        "remote_ikernel",
        "--interface",
        "ssh",
        "--host",
        login,
        "--kernel_cmd",
        kernel,
    ]
    directory = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / "rik"
    directory.mkdir(parents=True)
    spec = {"argv": [*words, "{connection_file}"], "display_name": "rik", "language": "python"}
    (directory / "kernel.json").write_text(json.dumps(spec))
    name = f"remote_ikernel {_peers.version(python, 'remote_ikernel')}"
    return Plain(name, Driver(net, sys.executable, str(programs)), "rik")
