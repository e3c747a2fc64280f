"""The agent at the far end of real logins: every shell, noise, read-only and full homes, Pythons that are not there."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farkernel.backends.archive import build_archive
from farkernel.backends.boot import BootError, NoPython
from farkernel.backends.ssh import BACKEND, SshRoute, place_of
from farkernel.backends.ssh_config import Place
from farkernel.launcher.address import parse_address
from farkernel.launcher.configuration import Target
from farkernel.launcher.keeper.driver import DriverState
from farkernel.launcher.keeper.far_agent import FarAgent

from ..sites.accounts import Account, account, own
from ..sites.dropbear import Dropbear
from ..sites.releases import program_of
from ..sites.small_disk import SmallDisk
from ..sites.ssh import Sshd
from .ssh_near_end import CLIENTS, Person, play

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


def target_at(place: Place, client: str = "auto", **settings: Any) -> Target:
    address = parse_address(f"ssh://{place.user}@{place.host}:{place.port}")
    return Target("far", address, ssh=client, ssh_config=place.config, **settings)


async def ask_agent(target: Target, downs: list[str]) -> list[Any]:
    """Its kernels (none); ``downs``: why the link was down on the way.  Raises what makes trying again pointless."""
    route = SshRoute(target, Person())

    async def find() -> SshRoute:
        return route

    def changed(state: DriverState, why: str) -> None:
        if state is DriverState.PAUSED:
            downs.append(why)

    agent = FarAgent(
        {}, find, build_archive(), "host", lambda: None, lambda event: None, changed, target.agent_python
    )
    running = asyncio.create_task(agent.run())
    asking = asyncio.create_task(agent.request("list"))
    try:
        async with asyncio.timeout(40):
            await asyncio.wait([running, asking], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        return list((await asking)["kernels"])
    finally:
        for task in (asking, running):
            task.cancel()
        await asyncio.gather(asking, running, return_exceptions=True)


def answers(target: Target) -> None:
    async def act(_: object) -> None:
        downs: list[str] = []
        assert await ask_agent(target, downs) == []
        assert downs == []

    play(act, "asyncssh", deadline=60)


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/dash", "/bin/tcsh", "/usr/bin/fish", "/usr/bin/zsh"])
def test_the_agent_answers_under_every_login_shell(shell: str, home: Path) -> None:
    with account(home.parent, shell) as user, Sshd(home.parent / "sshd", {}, user.name) as host:
        answers(target_at(host.place()))


@pytest.mark.parametrize("client", CLIENTS)
def test_the_agent_answers_over_every_client(client: str, home: Path) -> None:
    with Sshd(home.parent / "sshd") as host:
        answers(target_at(host.place(), client))


HOSTILE = (
    "$(touch CANARY)",
    "`touch CANARY`",
    "';touch CANARY;'",
    '"; touch CANARY; "',
    "-c",
    "a b",
    "\\",
    "!x",
    "*",
)


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/tcsh", "/usr/bin/fish"])
def test_configured_pythons_are_words_and_nothing_else(shell: str, home: Path) -> None:
    with account(home.parent, shell) as user, Sshd(home.parent / "sshd", {}, user.name) as host:
        canary = user.home / "canary"
        words = tuple(word.replace("CANARY", str(canary)) for word in HOSTILE)
        answers(target_at(host.place(), agent_python=(*words, "/usr/bin/python3")))
        assert not canary.exists()


NOISE = {
    "/bin/bash": (
        ".bashrc",
        "echo Welcome to the cluster; cat /etc/os-release; printf '\\033[31m'; echo oh >&2\n",
    ),
    "/bin/tcsh": (".tcshrc", "echo Welcome to the cluster\ncat /etc/os-release\n"),
    "/usr/bin/fish": (".config/fish/config.fish", "echo Welcome to the cluster\ncat /etc/os-release\n"),
    "/usr/bin/zsh": (".zshenv", "echo Welcome to the cluster\ncat /etc/os-release\n"),
}


@pytest.mark.parametrize("shell", NOISE)
def test_noisy_start_up_files_are_skipped(shell: str, home: Path) -> None:
    with account(home.parent, shell) as user, Sshd(home.parent / "sshd", {}, user.name) as host:
        name, text = NOISE[shell]
        (user.home / name).parent.mkdir(parents=True, exist_ok=True)
        (user.home / name).write_text(text)
        own(user.home, user)
        answers(target_at(host.place()))


def refused(target: Target, check: Callable[[BootError], None]) -> None:
    async def act(_: object) -> None:
        with pytest.raises(BootError) as caught:
            await ask_agent(target, [])
        check(caught.value)

    play(act, "asyncssh", deadline=60)


def test_a_start_up_file_without_end_is_cut_off(home: Path) -> None:
    with account(home.parent) as user, Sshd(home.parent / "sshd", {}, user.name) as host:
        (user.home / ".bashrc").write_text("yes '\033]0;owned\007'\n")
        own(user.home, user)

        def check(error: BootError) -> None:
            assert "printed more than 64 KiB" in error.what

        refused(target_at(host.place()), check)


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/tcsh", "/usr/bin/fish"])
def test_no_python_says_what_was_tried(shell: str, home: Path) -> None:
    with account(home.parent, shell) as user, Sshd(home.parent / "sshd", {}, user.name) as host:
        host.environment["PATH"] = "/nowhere"
        host.restart()

        def check(error: BootError) -> None:
            assert isinstance(error, NoPython)
            assert error.what == (
                "no Python 3.6 or newer was found there: of python3, python3.15 to python3.6, python, "
                "/usr/libexec/platform-python, none"
            )
            assert "agent_python" in error.advice

        refused(target_at(host.place()), check)
        named = ("/opt/python/bin/python3", "python3.99")

        def check_named(error: BootError) -> None:
            assert error.what.endswith(": of /opt/python/bin/python3, python3.99, none")

        refused(target_at(host.place(), agent_python=named), check_named)


def test_a_python_that_is_too_old_is_named(home: Path) -> None:
    programs = home.parent / "programs"
    programs.mkdir()
    (programs / "python3").write_text("#!/bin/sh\nexit 99\n")
    (programs / "python3").chmod(0o755)
    with Sshd(home.parent / "sshd") as host:
        host.environment["PATH"] = str(programs)
        host.restart()

        def check(error: BootError) -> None:
            assert "only too old or incomplete ones (python3)" in error.what

        refused(target_at(host.place()), check)


def test_the_configured_python_is_taken_where_none_is_on_the_path(home: Path) -> None:
    with Sshd(home.parent / "sshd") as host:
        host.environment["PATH"] = "/nowhere"
        host.restart()
        answers(target_at(host.place(), agent_python=("/usr/bin/python3",)))


def test_a_home_that_cannot_be_written_is_no_hindrance(home: Path) -> None:
    with account(home.parent) as user, Sshd(home.parent / "sshd", {}, user.name) as host:
        os.chown(user.home, 0, 0)
        user.home.chmod(0o555)
        answers(target_at(host.place()))


@pytest.fixture
def full_home(home: Path) -> Iterator[tuple[Sshd, Account]]:
    """An account whose home is on a disk without a byte left, and an sshd that sees it."""
    with account(home.parent) as user:
        disk = SmallDisk(user.home, "1m")
        try:
            os.chown(disk.root, user.uid, user.uid)
            disk.fill()
            host = Sshd(home.parent / "sshd", {}, user.name)
            host.before = disk.inside()
            with host:
                yield host, user
        finally:
            disk.close()


def test_a_full_home_is_no_hindrance(full_home: tuple[Sshd, Account]) -> None:
    answers(target_at(full_home[0].place()))


def test_a_full_run_directory_is_said(full_home: tuple[Sshd, Account]) -> None:
    host, user = full_home
    host.environment["FARKERNEL_RUN_DIR"] = str(user.home / "r")
    host.restart()

    def check(error: BootError) -> None:
        assert "No space left" in str(error) or "no space left" in str(error)

    refused(target_at(host.place()), check)


def test_an_account_without_a_shell_is_said_in_its_own_words(home: Path) -> None:
    with account(home.parent, "/usr/sbin/nologin") as user, Sshd(home.parent / "sshd", {}, user.name) as host:

        async def act(_: object) -> None:
            downs: list[str] = []
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3):
                    await ask_agent(target_at(host.place()), downs)
            assert "This account is currently not available" in downs[0]

        play(act, "asyncssh")


@pytest.mark.parametrize("client", CLIENTS)
def test_the_agent_answers_behind_dropbear(client: str, home: Path) -> None:
    with account(home.parent) as user, Dropbear(home.parent / "dropbear", user) as host:
        answers(target_at(host.place(), client))
        answers(target_at(host.place(), client))


@pytest.mark.long
@pytest.mark.parametrize("client", CLIENTS)
def test_the_agent_answers_behind_an_older_dropbear(client: str, home: Path) -> None:
    """Later ones start themselves anew for each connection, which they cannot with another release's loader."""
    (home / "programs").mkdir()
    server = program_of("bullseye", "/usr/sbin/dropbear", home / "programs")
    said = subprocess.run([server, "-V"], capture_output=True, text=True, check=True)
    assert "2020.81" in said.stdout + said.stderr
    with account(home.parent) as user, Dropbear(home.parent / "dropbear", user, server) as host:
        answers(target_at(host.place(), client))
        answers(target_at(host.place(), client))


# -- the backend ---------------------------------------------------------------------------------------------


def found_key(target: Target) -> str:
    asyncio.run(BACKEND.inquire(target))
    return BACKEND.key(target, "k")


def test_a_slow_ssh_config_holds_up_nobody_else(home: Path) -> None:
    config, reached = home / "ssh_config", home / "reached"
    os.mkfifo(reached)
    config.write_text(f'Match exec "cat {reached}"\nHostName real\nUser me\n')
    target = Target("far", parse_address("ssh://slow"), ssh_config=str(config))

    async def act() -> None:
        asking = asyncio.create_task(BACKEND.inquire(target))
        # Only this loop lets it go on: were it blocked, nothing would come after.
        writing = await asyncio.to_thread(reached.open, "wb")
        assert not asking.done()
        assert BACKEND.key(target, "k") == "ssh:slow"  # what is not known is not waited for
        writing.close()
        await asking
        assert BACKEND.key(target, "k") == "ssh:me@real"

    asyncio.run(act())


def test_two_names_of_a_host_are_one_allocation(home: Path) -> None:
    config = home / "ssh_config"
    config.write_text("Host one two\nHostName real\nUser me\nHost behind\nProxyJump one\n")
    keys = [
        found_key(Target(name, parse_address(f"ssh://{name}"), ssh_config=str(config)))
        for name in ("one", "two", "behind")
    ]
    assert keys[:2] == ["ssh:me@real"] * 2
    assert keys[2].endswith("@behind via me@real")


def test_a_key_does_without_a_readable_ssh_config(home: Path) -> None:
    config = home / "ssh_config"
    config.write_text("NoSuchKeyword yes\n")
    target = Target("far", parse_address("ssh://me@host:23"), ssh_config=str(config))
    assert found_key(target) == "ssh:me@host:23"
    assert place_of(target) == Place("host", "me", 23, str(config))
