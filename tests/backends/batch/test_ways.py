"""Ways into a job: the threshold before which nothing is read, and which way is taken."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from farkernel.backends.batch import command_route
from farkernel.backends.batch.cluster import Cluster
from farkernel.backends.batch.command_route import CommandRoute
from farkernel.backends.batch.contract import Job, JobState, WayIn
from farkernel.backends.batch.door_keys import DoorKeys
from farkernel.backends.batch.job_script import RENDEZVOUS
from farkernel.backends.batch.slurm import Slurm
from farkernel.backends.batch.ways import Entrance, JobRoute, NoWay
from farkernel.backends.contract import Question, RouteError, Stream
from farkernel.backends.local import LocalRoute


class User:
    def environment(self) -> Mapping[str, str]:
        return {}

    async def ask(self, question: Question) -> str:
        raise AssertionError(question)


class Reader:
    """Collects what comes, until it ends."""

    def __init__(self) -> None:
        self.data = b""
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def writable(self) -> None:
        """Little is written."""

    def closed(self, said: str) -> None:
        self.over.set_result(said)


def play(work: Coroutine[Any, Any, None]) -> None:
    async def all_of_it() -> None:
        async with asyncio.timeout(40):
            try:
                await work
            finally:
                await asyncio.gather(
                    *(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True
                )

    asyncio.run(all_of_it())


async def converse(route: Any, script: bytes) -> tuple[bytes, str]:
    reader = Reader()
    stream: Stream = await route.open(("/bin/sh", "-s"), reader)
    stream.write([script])
    said = await reader.over
    stream.close()
    return reader.data, said


def by(*command: str) -> CommandRoute:
    return CommandRoute(
        LocalRoute(User()), "echo noise of a start-up file; echo more >&2", WayIn(command), "the job"
    )


def test_only_what_is_inside_comes_through() -> None:
    async def act() -> None:
        data, _ = await converse(by("env"), b"printf 'a\\0b\\377'; echo \"$0\"; exit\n")
        assert data == b"a\0b\xff/bin/sh\n"

    play(act())


def test_what_comes_together_with_the_threshold_is_not_lost() -> None:
    async def act() -> None:
        reader = Reader()
        stream = await by("env").open(("printf", "at once"), reader)
        await reader.over
        stream.close()
        assert reader.data == b"at once"

    play(act())


def test_a_command_that_does_not_get_in() -> None:
    async def act() -> None:
        with pytest.raises(RouteError) as caught:
            await converse(by("sh", "-c", "echo srun: error: Unable to confirm allocation >&2; exit 1"), b"")
        assert caught.value.what.startswith("sh does not get into the job: ")
        assert "Unable to confirm allocation" in caught.value.what
        assert caught.value.advice.endswith(" hostname")

    play(act())


def test_a_command_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_route, "_DEADLINE", 0.3)

    async def act() -> None:
        with pytest.raises(RouteError, match="nothing came back within"):
            await converse(by("sh", "-c", "sleep 3"), b"")

    play(act())


def test_a_command_that_prints_without_end() -> None:
    async def act() -> None:
        with pytest.raises(RouteError, match="more than 64 KiB before it was inside"):
            await converse(by("sh", "-c", "while :; do echo no; done | head -c 200000"), b"")

    play(act())


# -- which way -------------------------------------------------------------------------------------


class Without(Slurm):
    """A Slurm whose way in is another command, or none."""

    def __init__(self, command: Sequence[str] | None) -> None:
        self.command = command

    def way_in(self, job: Job) -> Any:
        return None if self.command is None else WayIn(tuple(self.command))


def job(node: str = "") -> Job:
    return Job("7", "fk-x", JobState.RUNNING, node=node)


@pytest.fixture
def note(home: Path) -> Path:
    """Where the job's script says on which node it runs."""
    place = home / RENDEZVOUS
    place.mkdir(parents=True)
    return place / "fk-x"


@pytest.fixture
def ssh(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh that leads to this machine, and says what it was asked."""
    (home / "bin").mkdir()
    program = home / "bin" / "ssh"
    program.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" >"$HOME/asked"\nwhile [ "$1" != -- ]; do shift; done; shift 2\nexec sh -c "$*"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(home / "bin"), prepend=os.pathsep)
    return home / "asked"


def enter(adapter: Slurm, node: str = "", keys: DoorKeys | None = None) -> str:
    """By which way it went."""
    ways: list[str] = []

    async def act() -> None:
        cluster = Cluster(adapter, LocalRoute(User()))
        route = JobRoute(cluster, job(node), Entrance(keys, remember=ways.append))
        data, _ = await converse(route, b"echo inside; exit\n")
        assert data == b"inside\n"

    play(act())
    return ways[0]


def test_the_schedulers_own_way_comes_first(note: Path) -> None:
    note.write_text(platform.node())
    assert enter(Without(["env"])) == "step"


def test_here(note: Path) -> None:
    note.write_text(platform.node() + "\n")
    assert enter(Without(["false"])) == "here"


def test_not_here_where_a_job_has_a_tmp_of_its_own(note: Path) -> None:
    """Its agent's sockets are in there: a shell beside the job would look for them in vain."""
    note.write_text(platform.node() + "\n")
    adapter = Without(["false"])
    adapter.own_tmp = True
    with pytest.raises(NoWay):
        enter(adapter)


def test_here_by_the_schedulers_name_for_the_node(home: Path) -> None:
    assert enter(Without(None), platform.node()) == "here"


def test_by_ssh(note: Path, ssh: Path) -> None:
    note.write_text("c17.cluster\n")
    assert enter(Without(None)) == "ssh"
    asked = ssh.read_text().splitlines()
    assert asked[:3] == ["-T", "-q", "-o"]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes"} <= set(asked)
    assert asked[asked.index("--") + 1] == "c17.cluster"


@pytest.mark.parametrize("hostile", ["-oProxyCommand=x", "a b", "$(id)", "a;b", ""])
def test_a_node_that_is_no_name_is_not_asked(note: Path, ssh: Path, hostile: str) -> None:
    note.write_text(hostile)
    with pytest.raises(NoWay) as caught:
        enter(Without(None))
    assert "no way leads into Slurm job 7" in caught.value.what
    assert "ssh to the node" in caught.value.advice
    assert not ssh.exists()


def test_what_worked_is_tried_first(note: Path) -> None:
    note.write_text(platform.node())

    async def act() -> None:
        adapter = Without(["false"])
        cluster = Cluster(adapter, LocalRoute(User()))
        ways: list[str] = []
        await converse(JobRoute(cluster, job(), Entrance(remember=ways.append)), b"exit\n")
        adapter.command = ["env"]
        await converse(JobRoute(cluster, job(), Entrance(last=ways[0], remember=ways.append)), b"exit\n")
        assert ways == ["here", "here"]

    play(act())
