"""`farkernel doctor` of a host over SSH: what each step says where all is well, and where it is the one that is wrong."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farkernel.launcher import cli

from ..sites.accounts import account
from ..sites.engine import Engine, wait_until
from ..sites.small_disk import SmallDisk
from ..sites.ssh import Sshd, free_port, make_key

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


class Site:
    """A host that opens one session on a connection, and what may be wrong with it."""

    def __init__(self, engine: Engine, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.engine = engine
        self.host = Sshd(directory / "sshd", {"PasswordAuthentication": "yes", "MaxSessions": "1"})
        self.directory = directory
        self._capsys = capsys
        self._targets = 0

    def doctor(
        self, address: str = "", lines: tuple[str, ...] = (), **settings: Any
    ) -> tuple[int, dict[str, str]]:
        """Its exit status, and what it says of each step, with "failed" or "skipped" in front; the page is printed."""
        self._targets += 1
        name = f"far{self._targets}"
        config = self.host.write_client_config(*lines)
        own = config.with_name(f"ssh_config{self._targets}")  # what one says is remembered for a while
        config.rename(own)
        given = {"kernel": "python3", "ssh_config": str(own), **settings}
        self.engine.target(name, address=address or self.host.address, **given)
        status = cli.main(["doctor", name])
        page = self._capsys.readouterr()
        assert page.err == ""
        with self._capsys.disabled():
            print(f"\n{page.out}")
        return status, read_page(page.out)


def read_page(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    step = ""
    for line in text.splitlines():
        if match := re.match(r"(\S.*?)? +(ok|failed|skipped) +(\S.*)$", line):
            step = match[1] or "skipped"
            found[step] = f"{'' if match[2] == 'ok' else match[2] + ' '}{match[3]}"
        else:
            found[step] += f" {line.strip()}"
    return found


@pytest.fixture
def site(engine: Engine, home: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    site = Site(engine, home.parent, capsys)
    with site.host:
        yield site
        engine.close()
        wait_until(lambda: not site.host.agents(), "the far agent to end", 20)


STEPS = [
    "configuration",
    "address",
    "keeper",
    "ssh_config",
    "name resolution",
    "TCP",
    "host key",
    "authentication",
    "route",
    "shell",
    "Python",
    "disk",
    "run directory",
    "agent",
    "kernelspec",
    "kernel",
    "menu entry",
    "provisioner",
]


def test_each_step_where_all_is_well(site: Site) -> None:
    assert cli.main(["add", "far1", site.host.address]) == 0
    assert cli.main(["install", "far1", "--no-scan"]) == 0
    site._capsys.readouterr()
    os.unlink(Path(os.environ["XDG_CONFIG_HOME"]) / "farkernel/targets.toml")
    status, said = site.doctor()
    assert (status, list(said)) == (0, STEPS)
    assert not [name for name, text in said.items() if text.startswith(("failed", "skipped"))]
    wanted = {
        "name resolution": r"127\.0\.0\.1 is 127\.0\.0\.1$",
        "TCP": rf"127\.0\.0\.1 port {site.host.port} answers after \d+ ms$",
        "host key": r"ED25519 SHA256:\S+, as known$",
        "authentication": r"127\.0\.0\.1 takes keys, a password; tried: key \S+ \(taken\)$",
        "shell": r"\S+ on Linux ",
        "Python": r"\S+python3, version 3\.",
        "disk": r"\S+, [\d.]+ GB free",
        "run directory": r"\S+, [\d.]+ GB free$",
        "kernelspec": r"Python 3",
        "kernel": r"first reply after [\d.]+ s: ipython \S+ python 3\.",
        "menu entry": "far1$",
    }
    for name, pattern in wanted.items():
        assert re.match(pattern, said[name]), (name, said[name])


def wrong(site: Site, step: str, *wanted: str, **settings: Any) -> None:
    """That step, and no other one, is what is wrong; those after it are not taken."""
    status, said = site.doctor(**settings)
    assert status == 1
    assert said[step].startswith("failed "), said
    for text in wanted:
        assert text in said[step], (step, said[step])
    here = STEPS.index(step)
    left = STEPS[here + 1 : -2]  # menu entry and provisioner are looked at whatever happens
    assert list(said) == [*STEPS[: here + 1], *(["skipped"] if left else []), *STEPS[-2:]]
    assert said.get("skipped", "skipped ") == f"skipped {', '.join(left)}"
    assert not [name for name in STEPS[:here] if said[name].startswith("failed")], said
    assert said["menu entry"].startswith(
        "failed no menu entry is installed To have one: farkernel install far"
    )


def test_each_step_on_the_way_where_it_is_wrong(site: Site) -> None:
    host = site.host
    wrong(site, "name resolution", "no-such-host.invalid", address="ssh://no-such-host.invalid")
    wrong(site, "TCP", "refuses connections", address=f"ssh://127.0.0.1:{free_port()}")
    known = host.known_hosts.read_text()
    other = make_key(host.directory / "other").with_suffix(".pub").read_text().split()
    host.known_hosts.write_text("")
    wrong(site, "host key", "is not known (ED25519 SHA256:", "StrictHostKeyChecking yes")
    ask = ("StrictHostKeyChecking ask",)
    wrong(site, "host key", "is not known (ED25519 SHA256:", "farkernel login far", lines=ask)
    host.known_hosts.write_text(f"[127.0.0.1]:{host.port} {other[0]} {other[1]}\n")
    wrong(site, "host key", "changed", f"{host.known_hosts}")
    host.known_hosts.write_text(known)
    authorized = (host.directory / "authorized_keys").read_text()
    (host.directory / "authorized_keys").write_text("")
    only_keys = ("PasswordAuthentication no",)
    wrong(site, "authentication", "will not be let in", "id (refused)", "ssh-copy-id", lines=only_keys)
    (host.directory / "authorized_keys").write_text(authorized)
    wrong(
        site,
        "route",
        "'s password\", and nobody is here",
        "farkernel login far",
        lines=("PubkeyAuthentication no",),
    )


def test_each_step_at_the_far_end_where_it_is_wrong(site: Site, home: Path) -> None:
    host = site.host
    usual = dict(host.environment)

    def now(**changes: str) -> None:
        host.environment.clear()
        host.environment.update({**usual, **changes})
        host.restart()

    now(PATH="/nowhere")
    wrong(site, "Python", "of python3, python3.15 to python3.6, python, ", ", none", "agent_python")
    old = script(home / "old/python3", "exit 1")
    now(PATH=str(old.parent))
    wrong(site, "Python", f"only too old or incomplete ones ({old})")
    now()
    code = "import os, errno, sys\ndef full(_): raise OSError(errno.EDQUOT, 'over')\nos.fsync = full\nexec(sys.argv[1])"
    over = script(home / "over/python3", f'exec {sys.executable} -c "{code}" "$2"')
    wrong(site, "disk", "the quota is used up", "Make room there", agent_python=[str(over)])
    now(FARKERNEL_RUN_DIR="/proc/nowhere")
    wrong(site, "run directory", "/proc/nowhere")
    now()
    wrong(site, "kernelspec", "no kernelspec 'pyhton3'", "did you mean python3?", kernel="pyhton3")
    site.engine.kernelspec("dead", [sys.executable, "-c", "import sys; sys.exit('no such luck')"])
    wrong(site, "kernel", "status 1", "no such luck", kernel="dead")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_shell_that_runs_nothing(site: Site) -> None:
    with (
        account(site.directory, "/usr/sbin/nologin") as user,
        Sshd(site.directory / "other", {}, user.name) as host,
    ):
        site.host, former = host, site.host
        wrong(site, "shell", "This account is currently not available")
        site.host = former


def test_a_home_that_is_full_and_a_run_directory_that_is(site: Site, home: Path) -> None:
    place = home / "small"
    place.mkdir()
    disk = SmallDisk(place, "1m")
    try:
        site.host.before = disk.inside()
        site.host.environment["FARKERNEL_RUN_DIR"] = str(place / "run")
        site.host.restart()
        wrong(site, "run directory", f"{place}/run has only 1 MB free", "FARKERNEL_RUN_DIR")
        disk.fill()
        site.host.environment["HOME"] = str(place)
        site.host.restart()
        wrong(site, "disk", f"{place}: the disk is full", "Make room there")
        site.host.stop()
    finally:
        disk.close()


def test_a_quota_that_is_used_up_soon_is_said(site: Site, home: Path) -> None:
    """`quota` marks with an asterisk what is over its limit (quota(1))."""
    lines = "Disk quotas for user me (uid 1000):\n  Filesystem   space   quota   limit   grace\n  /dev/sda1   1100M*  1000M   1200M   6days\n"
    (home / "quotas").write_text(lines)
    tool = script(home / "tools/quota", f"cat {home}/quotas")
    site.host.environment["PATH"] = f"{tool.parent}:{site.host.environment['PATH']}"
    site.host.restart()
    _, said = site.doctor(kernel="nothing")
    assert said["disk"].endswith("GB free; over its quota: /dev/sda1")


# Binds what the connection file says, and says nothing.
MUTE = """
import json, sys, time, zmq
info = json.load(open(sys.argv[1]))
context = zmq.Context()
kinds = {"shell": zmq.ROUTER, "control": zmq.ROUTER, "stdin": zmq.ROUTER, "iopub": zmq.PUB, "hb": zmq.REP}
sockets = [context.socket(kind) for kind in kinds.values()]
for socket, name in zip(sockets, kinds):
    socket.bind(f"ipc://{info['ip']}-{info[name + '_port']}")
time.sleep(600)
"""


def test_a_kernel_that_never_answers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farkernel.launcher.cli.doctor.REPLY_DEADLINE", 1.5)
    site.engine.kernelspec("mute", [sys.executable, "-c", MUTE, "{connection_file}"])
    wrong(site, "kernel", "it runs, but did not answer within", "farkernel logs", kernel="mute")
