"""Many light hosts (`many_hosts`) in a process of their own, and an ssh_config with which one logs in to them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from .ssh import free_port


class Crowd(NamedTuple):
    """They listen at `many_hosts.address(number)`, on this port."""

    port: int
    config: Path
    process: psutil.Process


@contextmanager
def crowd_of(directory: Path, count: int, silent: Sequence[int] = ()) -> Iterator[Crowd]:
    """``silent``: the numbers of those that take connections and say nothing."""
    directory.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "tests.sites.many_hosts", str(directory), str(port), str(count)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [*command, *map(str, silent)], cwd=root, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Crowd(port, _client_config(directory, port), psutil.Process(process.pid))
        finally:
            process.terminate()


def _client_config(directory: Path, port: int) -> Path:
    kind, key = (directory / "host_key.pub").read_text().split()[:2]
    (directory / "known").write_text(f"[127.1.*]:{port} {kind} {key}\n")
    config = directory / "config"
    config.write_text(
        f"IdentityFile {directory}/id\nIdentitiesOnly yes\nIdentityAgent none\nStrictHostKeyChecking yes\n"
        f"UserKnownHostsFile {directory}/known\nGlobalKnownHostsFile none\n"
    )
    return config
