"""One connection for all that runs on a host, and no storm of logins."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farkernel.backends.contract import RouteError
from farkernel.backends.ssh_config import Place
from farkernel.backends.ssh_connections import LOGINS
from farkernel.backends.ssh_errors import NoMoreSessions, Overloaded

from ..sites.ssh import Sshd
from .ssh_near_end import CLIENTS, Heard, Near, fresh_settings, play

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("client", CLIENTS)]


@pytest.fixture
def host(home: Path) -> Iterator[Sshd]:
    with Sshd(home.parent / "sshd", {"MaxSessions": "100"}) as host:
        yield host


async def until(condition: Callable[[], bool]) -> None:
    """For what gives no event: a clock that runs down, a server's view."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


def test_sixty_at_once_make_one_connection(client: str, host: Sshd) -> None:
    async def act(near: Near) -> None:
        heard = await asyncio.gather(*(near.run(host.place(), f"echo {number}") for number in range(60)))
        assert [each.data.decode() for each in heard] == [f"{number}\n" for number in range(60)]
        assert host.logins() == 1

    play(act, client)


def test_another_login_only_when_the_host_opens_no_more_sessions(client: str, host: Sshd) -> None:
    host.options["MaxSessions"] = "2"
    host.restart()

    async def act(near: Near) -> None:
        place = host.place()
        held = []
        for count in range(1, 6):
            heard = Heard()
            stream = await near.open(place, heard)
            stream.write([b"echo $$\n"])
            await heard.until(b"\n")
            held.append(stream)
            assert host.logins() == (count + 1) // 2
        for stream in held:
            stream.close()

    play(act, client)


def test_one_session_after_the_other_needs_one_connection(client: str, host: Sshd) -> None:
    host.options["MaxSessions"] = "1"
    host.restart()

    async def act(near: Near) -> None:
        for _ in range(5):
            heard = Heard()
            stream = await near.open(host.place(), heard)
            stream.write([b"echo here; exec cat\n"])
            await heard.until(b"here")
            stream.close()  # and the next comes before sshd can know
        assert host.logins() == 1

    play(act, client)


def test_an_account_without_sessions_is_said(client: str, host: Sshd) -> None:
    host.options["MaxSessions"] = "0"
    host.restart()

    async def act(near: Near) -> None:
        with pytest.raises(NoMoreSessions, match=r"does not open a session.*MaxSessions"):
            await near.run(host.place(), "echo in")

    play(act, client)


def test_a_connection_is_kept_for_a_while_and_then_given_back(client: str, host: Sshd) -> None:
    async def act(near: Near) -> None:
        near.connections._linger = 0.3
        await near.run(host.place(), "echo in")
        assert near.connections.count() == 1
        await asyncio.sleep(0.1)
        await near.run(host.place(), "echo in")
        assert host.logins() == 1
        await until(lambda: near.connections.count() == 0)

    play(act, client)


def test_what_the_link_found_silent_is_not_used_again(client: str, host: Sshd) -> None:
    async def act(near: Near) -> None:
        heard = Heard()
        stream = await near.open(host.place(), heard)
        stream.close(dead=True)
        assert near.connections.count() == 0
        assert (await near.run(host.place(), "echo in")).data == b"in\n"
        assert host.logins() == 2

    play(act, client)


def test_a_lost_connection_is_told_to_its_streams_and_made_anew(client: str, host: Sshd) -> None:
    async def act(near: Near) -> None:
        heard = Heard()
        stream = await near.open(host.place(), heard)
        stream.write([b"echo here; exec cat\n"])
        await heard.until(b"here")
        host.restart()
        await heard.over.wait()
        assert heard.said[0]
        assert (await near.run(host.place(), "echo in")).data == b"in\n"

    play(act, client)


def test_an_attempt_is_shared_and_ends_with_the_last_who_waits(client: str, home: Path) -> None:
    config = home / "ssh_config"
    config.write_text("IdentityFile none\nUserKnownHostsFile /dev/null\n")

    async def act(near: Near) -> None:
        came: list[asyncio.StreamWriter] = []
        gone = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.append(writer)
            while await reader.read(4096):
                continue
            writer.close()
            gone.set()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        place = Place("127.0.0.1", port=server.sockets[0].getsockname()[1], config=str(config))
        settings = fresh_settings(place)
        tries = [asyncio.create_task(near.open(settings, Heard())) for _ in range(5)]
        await until(lambda: bool(came))
        for each in tries[:4]:
            each.cancel()
        await asyncio.wait(tries[:4])
        assert not gone.is_set()
        tries[4].cancel()
        await gone.wait()
        assert len(came) == 1
        server.close()

    play(act, client)


def test_thirty_hosts_of_which_one_is_dead(client: str, host: Sshd) -> None:
    """The dead one costs only itself, and no more than ten logins go on at a time."""
    host.write_client_config("ConnectTimeout 3")

    async def act(near: Near) -> None:
        with socket.create_server(("127.0.0.1", 0)) as dead:
            real = fresh_settings(host.place())
            many = [replace(real, host_key_alias=real.known_as, set_env=(("N", str(n)),)) for n in range(29)]
            none = fresh_settings(replace(host.place(), port=dead.getsockname()[1]))
            began = time.monotonic()
            failing = asyncio.create_task(near.run(none, "echo in"))
            await asyncio.gather(*(near.run(each, "echo in") for each in many))
            took = time.monotonic() - began
            assert host.logins() == 29
            with pytest.raises(RouteError, match="did not answer within 3 s"):
                await failing
            assert took < 25

    play(act, client)


def test_as_many_hung_hosts_as_may_log_in_at_a_time_hold_up_nobody(client: str, host: Sshd) -> None:
    host.write_client_config("ConnectTimeout 40")

    async def act(near: Near) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=2 * LOGINS) as hung:
            silent = fresh_settings(replace(host.place(), port=hung.getsockname()[1]))
            many = [replace(silent, set_env=(("N", str(n)),)) for n in range(LOGINS)]
            trying = [asyncio.create_task(near.open(each, Heard())) for each in many]
            await asyncio.sleep(0)  # they are in the queue before us
            async with asyncio.timeout(20):
                assert (await near.run(host.place(), "echo in")).data == b"in\n"
            assert not any(each.done() for each in trying)
            for each in trying:
                each.cancel()
            await asyncio.wait(trying)

    play(act, client)


def test_a_host_that_drops_logins_is_not_stormed(client: str, home: Path) -> None:
    config = home / "ssh_config"
    config.write_text("IdentityFile none\nUserKnownHostsFile /dev/null\n")

    async def act(near: Near) -> None:
        came: list[float] = []

        def drop(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.append(time.monotonic())
            writer.close()

        server = await asyncio.start_server(drop, "127.0.0.1", 0)
        place = Place("127.0.0.1", port=server.sockets[0].getsockname()[1], config=str(config))
        settings = fresh_settings(place)

        async def insist() -> None:
            for _ in range(4):
                with pytest.raises(Overloaded):
                    await near.open(settings, Heard())

        await asyncio.gather(*(insist() for _ in range(20)))
        assert len(came) <= 8  # 80 were asked for
        gaps = [after - before for before, after in itertools.pairwise(came)]
        assert all(gap >= 0.1 for gap in gaps)
        server.close()

    play(act, client)


def test_few_startups_are_enough(client: str, host: Sshd) -> None:
    host.options["MaxStartups"] = "2"
    host.restart()

    async def act(near: Near) -> None:
        heard = await asyncio.gather(*(near.run(host.place(), "echo in") for _ in range(20)))
        assert {bytes(each.data) for each in heard} == {b"in\n"}

    play(act, client)


def test_a_session_given_up_while_it_opens_leaves_nothing(client: str, host: Sshd) -> None:
    """Cancelled at any moment: no session stays open at the far end, which counts them."""
    host.options["MaxSessions"] = "2"
    host.restart()

    async def act(near: Near) -> None:
        await near.run(host.place(), "true")
        settings = fresh_settings(host.place())
        for turns in (0, 1, 2, 3, 5, 8, 20, 100):
            opening = asyncio.create_task(near.open(settings, Heard()))
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait([opening])
            if not opening.cancelled():
                opening.result().close()
        assert (await near.run(host.place(), "echo in")).data == b"in\n"
        assert host.logins() == 1

    play(act, client)
