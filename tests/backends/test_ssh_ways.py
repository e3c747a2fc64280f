"""Ways to a host: jumps where only the login host is reachable, cables that are pulled, wires that are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farkernel.backends.contract import RouteError
from farkernel.backends.ssh_errors import JumpFailed

from ..sites.login_host import LoginAndInner
from ..sites.netns import Network
from ..sites.ssh import Sshd
from ..sites.wire import Wire
from .ssh_near_end import CLIENTS, Heard, Near, Person, play

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120), pytest.mark.parametrize("client", CLIENTS)]


@pytest.fixture
def site(home: Path) -> Iterator[LoginAndInner]:
    with Network() as network:
        site = LoginAndInner(home.parent, network)
        with site.login, site.inner:
            yield site


def test_an_inner_host_is_reached_by_the_login_host(client: str, site: LoginAndInner) -> None:
    async def act(near: Near) -> None:
        inner = await near.run(site.place(), "echo ${SSH_CONNECTION}")
        assert bytes(inner.data).split()[2].decode() == site.inner.address_there
        outer = await near.run(site.place("login"), "echo ${SSH_CONNECTION}")
        assert bytes(outer.data).split()[2].decode() == site.login.address_there
        await near.run(site.place(), "true")
        assert (site.login.logins(), site.inner.logins()) == (1, 1)  # one connection to each, jumps included

    play(act, client)


def test_a_login_host_that_forwards_nothing_is_named(client: str, site: LoginAndInner) -> None:
    site.login.options["AllowTcpForwarding"] = "no"
    site.login.restart()

    async def act(near: Near) -> None:
        with pytest.raises(JumpFailed, match=r"makes no connection to .*AllowTcpForwarding"):
            await near.run(site.place(), "true")
        assert (await near.run(site.place("login"), "echo in")).data == b"in\n"  # which needs no forwarding

    play(act, client)


def test_an_inner_host_that_is_down_is_told_from_its_login_host(client: str, site: LoginAndInner) -> None:
    site.inner.stop()

    async def act(near: Near) -> None:
        with pytest.raises(RouteError) as caught:
            await near.run(site.place(), "true")
        assert site.inner.address_there in caught.value.what

    play(act, client)


def test_each_hop_has_its_own_key_checked(client: str, site: LoginAndInner) -> None:
    site.inner.known_hosts.write_text(
        site.inner.known_hosts.read_text().replace(site.inner.address_there, "other")
    )
    site.write_config("StrictHostKeyChecking ask")
    person = Person({"SHA256": "yes"})

    async def act(near: Near) -> None:
        assert (await near.run(site.place(), "echo in")).data == b"in\n"
        assert len(person.questions) == 1
        assert site.inner.address_there in person.questions[0].text

    play(act, client, person)


def test_a_pulled_cable_is_silence_and_the_next_try_is_fresh(client: str, site: LoginAndInner) -> None:
    async def act(near: Near) -> None:
        heard = Heard()
        stream = await near.open(site.place("login"), heard)
        stream.write([b"echo here; exec cat\n"])
        await heard.until(b"here")
        site.network.pull(site.spaces[0], 0)
        stream.write([b"lost"])
        await asyncio.sleep(0.2)
        stream.close(dead=True)  # what the link's heartbeat does
        assert heard.said
        again = asyncio.create_task(near.run(site.place("login"), "echo in"))
        await asyncio.sleep(0.2)
        site.network.plug_in(site.spaces[0], 0)
        assert (await again).data == b"in\n"
        assert site.login.logins() == 2

    play(act, client)


# -- wires ---------------------------------------------------------------------------------------------------


@pytest.fixture
def host(home: Path) -> Iterator[Sshd]:
    with Sshd(home.parent / "sshd") as host:
        host.write_client_config(f"HostKeyAlias [127.0.0.1]:{host.port}")
        yield host


def test_a_cut_wire_is_told(client: str, host: Sshd) -> None:
    with Wire(host.port).running() as wire:
        place = replace(host.place(), port=wire.port)

        async def act(near: Near) -> None:
            heard = Heard()
            stream = await near.open(place, heard)
            stream.write([b"echo here; exec cat\n"])
            await heard.until(b"here")
            wire.cut()
            await heard.over.wait()
            assert len(heard.said) == 1
            assert (await near.run(place, "echo in")).data == b"in\n"

        play(act, client)


def from_the_server(limit: int) -> Callable[[], tuple[int, int]]:
    return lambda: (1, limit)


def test_a_wire_cut_at_any_byte_of_the_login_comes_to_an_error_of_ours(client: str, host: Sshd) -> None:
    async def act(near: Near) -> None:
        for limit in (0, 10, 200, 900, 1500, 2500, 20_000):
            with Wire(host.port).running() as wire:
                wire.cut_after = from_the_server(limit)
                place = replace(host.place(), port=wire.port)
                try:
                    heard = await near.run(place, "exec head -c 100000 /dev/zero")
                except RouteError as error:
                    assert error.what.isprintable()
                else:
                    assert len(heard.data) < 100_000
                    assert heard.said[0]

    play(act, client)


def test_an_idle_connection_that_went_silent_is_given_up_for_a_fresh_one(
    client: str, host: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a laptop's sleep: nothing ran over it, so nobody could notice."""
    monkeypatch.setattr("farkernel.backends.ssh_connections._SESSION_DEADLINE", 1.0)
    with Wire(host.port).running() as wire:
        place = replace(host.place(), port=wire.port)

        async def act(near: Near) -> None:
            await near.run(place, "true")
            wire.silence()
            opening = asyncio.create_task(near.run(place, "echo in"))
            await asyncio.sleep(1.5)
            wire.heal()
            assert (await opening).data == b"in\n"
            assert host.logins() == 2

        play(act, client)


def test_a_slow_and_thin_wire_carries_everything(client: str, host: Sshd) -> None:
    with Wire(host.port).running() as wire:
        wire.delay, wire.rate = 0.05, 400_000

        async def act(near: Near) -> None:
            heard = await near.run(replace(host.place(), port=wire.port), "head -c 300000 /dev/zero")
            assert bytes(heard.data) == bytes(300_000)

        play(act, client)
