"""The provisioner under jupyter_client's own managers, with a small keeper on a real socket behind it."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import zmq.asyncio
from jupyter_client.ioloop.restarter import AsyncIOLoopKernelRestarter
from jupyter_client.manager import AsyncKernelManager, KernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from traitlets.config import Config

from farkernel.kernelspecs import entries
from farkernel.launcher import client_async
from farkernel.launcher.client import KeeperClient, keeper_directory
from farkernel.launcher.client_protocol import NotAKeeper
from farkernel.launcher.errors import FarkernelError, RemoteError
from farkernel.launcher.provisioner import FarkernelProvisioner, read_connection
from tests.launcher.fake_keeper import CONNECTION, FakeKeeper, launched


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*arguments: Any, **more: Any) -> None:
        asyncio.run(test(*arguments, **more))

    return run


@pytest.fixture
def keeper() -> Iterator[FakeKeeper]:
    with FakeKeeper(Path(keeper_directory())) as fake:
        fake.handlers["launch"] = launched
        yield fake


@pytest.fixture(autouse=True)
def installation(keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A menu entry, the provisioner registered, and a client of this test's own that starts no keeper."""
    spec = entries.build("lab", "lab", "python", {"target": "lab", "resources": {"gpus": 1}})
    spec["env"] = {"GREETING": "hello", "FROM_SERVER": "${HOME}/x"}
    entries.install("lab", spec, entries.data_directory("user"), {})
    factory = KernelProvisionerFactory.instance()
    point = EntryPoint("farkernel", "farkernel.launcher.provisioner:FarkernelProvisioner", factory.GROUP_NAME)
    monkeypatch.setitem(factory.provisioners, "farkernel", point)
    with KeeperClient(start=False) as client:
        monkeypatch.setattr(client_async, "_clients", {(os.getpid(), None): client})
        yield


MakeManager = Callable[..., AsyncKernelManager]


@pytest.fixture
def make_manager(tmp_path: Path) -> Iterator[MakeManager]:
    with zmq.asyncio.Context() as context:

        def make(**more: Any) -> AsyncKernelManager:
            file = str(tmp_path / "kernel-k1.json")
            return AsyncKernelManager(kernel_name="lab", connection_file=file, context=context, **more)

        yield make
        context.destroy(linger=0)


@pytest.fixture
def manager(make_manager: MakeManager) -> AsyncKernelManager:
    return make_manager()


def provisioner_of(manager: KernelManager) -> FarkernelProvisioner:
    assert isinstance(manager.provisioner, FarkernelProvisioner)
    return manager.provisioner


def ended_by(keeper: FakeKeeper, life: int = 1, **more: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A handler: the kernel ends."""

    def handler(request: dict[str, Any]) -> dict[str, Any]:
        keeper.state(request["kernel"], "ended", life, **(more or {"exit": 0, "reason": {"kind": "stopped"}}))
        return {}

    return handler


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens on another thread
            await asyncio.sleep(0.005)


@in_loop
async def test_what_the_keeper_is_asked(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    environment = {**os.environ, "JPY_SESSION_NAME": "work/a.ipynb", "SET_FOR_THIS": "1"}
    await manager.start_kernel(kernel_id="k1", env=environment, cwd="/tmp")
    request = keeper.wait_for("launch")
    assert request | {"env": 0, "id": 0} == {
        "id": 0,
        "do": "launch",
        "kernel": "k1",
        "entry": "lab",
        "settings": {"target": "lab", "resources": {"gpus": 1}},
        "connection": None,
        "cwd": "/tmp",
        "env": 0,
        "notebook": "work/a.ipynb",
        "front": "provisioner",
        "restart": False,
        "life": None,
    }
    assert request["env"] == {
        "JPY_SESSION_NAME": "work/a.ipynb",
        "SET_FOR_THIS": "1",
        "GREETING": "hello",
        "FROM_SERVER": os.environ["HOME"] + "/x",
    }
    assert (manager.transport, manager.ip, manager.session.key) == ("ipc", "/run/k/ipc", b"secret")
    assert manager.get_connection_info()["shell_port"] == 1
    assert await manager.is_alive()


@in_loop
async def test_a_stale_connection_file_is_no_obstacle(
    keeper: FakeKeeper, manager: AsyncKernelManager, tmp_path: Path
) -> None:
    # As a killed server leaves it: the same kernel, the same keeper, so the same content.
    (tmp_path / "kernel-k1.json").write_text(json.dumps({**CONNECTION, "kernel_name": "lab"}))
    await manager.start_kernel(kernel_id="k1")
    assert manager.shell_port == 1


@in_loop
async def test_the_keepers_error_reaches_the_user(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    class NoSuchTarget(FarkernelError):
        kind = "unknown-target"

    def refuse(_: dict[str, Any]) -> None:
        raise NoSuchTarget("there is no target 'lab'", "Add it: farkernel add lab ADDRESS")

    keeper.handlers["launch"] = refuse
    with pytest.raises(RemoteError, match=r"there is no target 'lab'\. Add it: farkernel add lab ADDRESS"):
        await manager.start_kernel(kernel_id="k1")
    keeper.wait_for("detach")
    assert not manager.has_kernel


@in_loop
async def test_a_cancelled_start_leaves_the_kernel(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    keeper.handlers["launch"] = lambda _: None
    starting = asyncio.ensure_future(manager.start_kernel(kernel_id="k1"))
    await asyncio.to_thread(keeper.wait_for, "launch")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert (await asyncio.to_thread(keeper.wait_for, "detach"))["kernel"] == "k1"


@in_loop
async def test_poll_knows_what_the_watch_says(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    await manager.start_kernel(kernel_id="k1")
    provisioner = provisioner_of(manager)
    keeper.wait_for("watch")
    assert await provisioner.poll() is None
    keeper.state("k1", "ended", 1, exit=-9, reason={"kind": "oom", "text": "out of \x1b[31mmemory"})
    await until(lambda: "ended" in repr(provisioner))
    assert await provisioner.poll() == -9
    assert not await manager.is_alive()


@in_loop
async def test_wait_waits_for_the_end(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    await manager.start_kernel(kernel_id="k1")
    provisioner = provisioner_of(manager)
    keeper.wait_for("watch")
    waiting = asyncio.ensure_future(provisioner.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    keeper.state("k1", "ended", 1, exit=3)
    assert await asyncio.wait_for(waiting, 10) == 3
    assert not provisioner.has_process


@in_loop
async def test_signals(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    await manager.start_kernel(kernel_id="k1")
    await manager.interrupt_kernel()
    await manager.signal_kernel(signal.SIGUSR1)
    await manager.signal_kernel(0)
    await manager.signal_kernel(signal.SIGTERM)
    await manager.signal_kernel(signal.SIGKILL)
    told = [request for request in keeper.requests if request["do"] not in ("launch", "watch")]
    assert [{key: value for key, value in request.items() if key != "id"} for request in told] == [
        {"do": "interrupt", "kernel": "k1"},
        {"do": "signal", "kernel": "k1", "signum": signal.SIGUSR1},
        {"do": "stop", "kernel": "k1", "now": False, "restart": True},
        {"do": "stop", "kernel": "k1", "now": True, "restart": True},
    ]


@in_loop
async def test_shutdown_by_the_user(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    await manager.start_kernel(kernel_id="k1")
    keeper.wait_for("watch")
    keeper.handlers["shutdown"] = ended_by(keeper)
    await manager.shutdown_kernel()
    assert keeper.asked() == ["launch", "watch", "interrupt", "shutdown", "cleanup"]
    assert keeper.wait_for("shutdown")["restart"] is False
    assert keeper.wait_for("cleanup")["restart"] is False
    assert not manager.has_kernel


@in_loop
async def test_restart_keeps_the_allocation(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    await manager.start_kernel(kernel_id="k1")
    keeper.wait_for("watch")
    keeper.handlers["stop"] = ended_by(keeper)
    await manager.restart_kernel(now=True)
    assert keeper.asked() == ["launch", "watch", "interrupt", "stop", "cleanup", "launch"]
    assert keeper.wait_for("stop")["restart"] is True
    assert keeper.wait_for("cleanup")["restart"] is True
    second = keeper.wait_for("launch", 2)
    assert (second["kernel"], second["restart"], second["life"]) == ("k1", True, 2)
    # The end of the first life says nothing about the second.
    assert await manager.is_alive()
    keeper.state("k1", "ended", 1, exit=0)
    keeper.state("k1", "live", 2)
    await until(lambda: provisioner_of(manager)._last.get("life") == 2)
    assert await manager.is_alive()


@in_loop
async def test_shutdown_goes_on_when_the_keeper_refuses(
    keeper: FakeKeeper, manager: AsyncKernelManager
) -> None:
    class LinkDown(FarkernelError):
        kind = "link"

    def refuse(_: dict[str, Any]) -> None:
        raise LinkDown("the link is down", "Wait")

    await manager.start_kernel(kernel_id="k1")
    keeper.wait_for("watch")
    keeper.handlers["interrupt"] = refuse
    with pytest.raises(RemoteError, match="the link is down"):
        await manager.interrupt_kernel()
    keeper.handlers["shutdown"] = refuse
    keeper.handlers["stop"] = ended_by(keeper)
    await manager.shutdown_kernel(now=True)
    assert keeper.asked()[-1] == "cleanup"


class Server:
    """As much of a notebook server as can be seen from below."""

    def __init__(self, stopping: bool) -> None:
        self._stopping = stopping
        self.parent = None


class ServerApp:
    """A notebook server in which the private attribute is gone."""

    parent = None


def above(manager: AsyncKernelManager, server: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a server above the manager; `parent` is a trait and takes only Configurables, so by way of the class."""
    monkeypatch.setattr(type(manager), "parent", server)


@in_loop
async def test_a_server_that_stops_leaves_the_kernel(
    keeper: FakeKeeper, manager: AsyncKernelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager.start_kernel(kernel_id="k1")
    keeper.wait_for("watch")
    above(manager, Server(stopping=True), monkeypatch)
    began = time.monotonic()
    await manager.shutdown_kernel()
    assert time.monotonic() - began < 2
    assert keeper.asked() == ["launch", "watch", "detach"]


@in_loop
async def test_a_server_that_goes_on_ends_the_kernel(
    keeper: FakeKeeper, manager: AsyncKernelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager.start_kernel(kernel_id="k1")
    keeper.wait_for("watch")
    above(manager, Server(stopping=False), monkeypatch)
    keeper.handlers["shutdown"] = ended_by(keeper)
    await manager.shutdown_kernel()
    assert "detach" not in keeper.asked()


@in_loop
async def test_a_server_that_does_not_say_leaves_it_to_keep(
    keeper: FakeKeeper, manager: AsyncKernelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager.start_kernel(kernel_id="k1")
    keeper.wait_for("watch")
    above(manager, ServerApp(), monkeypatch)
    await manager.shutdown_kernel(now=True)
    assert keeper.asked() == ["launch", "watch", "detach"]


@in_loop
async def test_stopped_by_hand_is_not_started_again(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    await manager.start_kernel(kernel_id="k1")
    keeper.wait_for("watch")
    dead: list[bool] = []
    manager._restarter = AsyncIOLoopKernelRestarter(kernel_manager=manager, parent=manager)
    manager.add_restart_callback(lambda: dead.append(True), "dead")
    keeper.state("k1", "ended", 1, exit=0, reason={"kind": "stopped"})
    await until(lambda: "ended" in repr(provisioner_of(manager)))
    await manager._restarter.poll()
    assert dead == [True]
    assert keeper.asked().count("launch") == 1


@in_loop
async def test_a_kernel_that_died_is_started_again(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    await manager.start_kernel(kernel_id="k1")
    keeper.wait_for("watch")
    manager._restarter = AsyncIOLoopKernelRestarter(kernel_manager=manager, parent=manager)
    keeper.state("k1", "ended", 1, exit=-11, reason={"kind": "signal", "signum": 11})
    await until(lambda: "ended" in repr(provisioner_of(manager)))
    await manager._restarter.poll()
    assert keeper.wait_for("launch", 2)["life"] == 2
    assert await manager.is_alive()


@in_loop
async def test_tcp_is_obeyed_where_it_was_configured(keeper: FakeKeeper, make_manager: MakeManager) -> None:
    manager = make_manager(config=Config({"KernelManager": {"transport": "tcp"}}))
    await manager.start_kernel(kernel_id="k1")
    asked = keeper.wait_for("launch")["connection"]
    assert (asked["transport"], asked["ip"]) == ("tcp", "127.0.0.1")
    assert asked["shell_port"] == manager.shell_port > 0
    assert asked["key"] == manager.session.key.decode()


@in_loop
async def test_encryption_is_provided_where_it_was_asked(
    keeper: FakeKeeper, make_manager: MakeManager
) -> None:
    manager = make_manager(transport_encryption="required")
    await manager.start_kernel(kernel_id="k1")
    asked = keeper.wait_for("launch")["connection"]
    assert len(asked["curve_publickey"]) == len(asked["curve_secretkey"]) == 40
    assert manager.curve_publickey == asked["curve_publickey"].encode()


def test_a_blocking_manager_works_too(keeper: FakeKeeper, tmp_path: Path) -> None:
    manager = KernelManager(kernel_name="lab", connection_file=str(tmp_path / "kernel-k1.json"))
    manager.start_kernel(kernel_id="k1")
    keeper.wait_for("watch")
    assert manager.is_alive()
    keeper.handlers["shutdown"] = ended_by(keeper)
    manager.shutdown_kernel()
    assert not manager.is_alive()


@in_loop
async def test_persisting_managers_find_the_kernel_again(
    keeper: FakeKeeper, manager: AsyncKernelManager
) -> None:
    await manager.start_kernel(kernel_id="k1")
    info = await provisioner_of(manager).get_provisioner_info()
    other = FarkernelProvisioner(kernel_id="k1", kernel_spec=manager.kernel_spec, parent=None)
    await other.load_provisioner_info(info)
    assert other.has_process
    assert await other.poll() is None
    assert other.settings == {"target": "lab", "resources": {"gpus": 1}}
    assert other.get_shutdown_wait_time(5.0) == 10.0


@in_loop
async def test_nothing_blocks_the_servers_loop(keeper: FakeKeeper, manager: AsyncKernelManager) -> None:
    def slowly(request: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.5)
        return launched(request)

    keeper.handlers["launch"] = slowly
    manager.kernel_spec  # noqa: B018 - found before the clock runs
    longest, before = 0.0, time.monotonic()
    starting = asyncio.ensure_future(manager.start_kernel(kernel_id="k1"))
    while not starting.done():
        await asyncio.sleep(0.001)
        longest, before = max(longest, time.monotonic() - before), time.monotonic()
    await starting
    assert longest < 0.1  # 20 ms on a machine that does nothing else


@pytest.mark.parametrize("found", [None, [], {}, {**CONNECTION, "shell_port": "x"}, {"key": "k"}])
def test_a_connection_that_is_none(found: object) -> None:
    with pytest.raises(NotAKeeper):
        read_connection(found)


def test_importing_it_costs_little_more_than_jupyter() -> None:
    program = (
        "import jupyter_client.manager, sys, time; before = set(sys.modules); began = time.perf_counter();"
        "import farkernel.launcher.provisioner; print(time.perf_counter() - began)"
    )
    times = [float(subprocess.check_output([sys.executable, "-c", program])) for _ in range(3)]
    assert min(times) < 0.06
