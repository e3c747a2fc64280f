"""`farkernel doctor` on the way to an SSH host: names, TCP, host keys, and each way to prove who we are, hop by hop.

Keys are shown to the host and not used; passwords and codes are only named.  To look at a host behind another one,
that one is logged in to, over the connection that kernels use as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncssh

from . import ssh_errors, ssh_tcp
from .contract import RouteError, Step, User
from .ssh import find_client
from .ssh_asking import Asker
from .ssh_asyncssh import AsyncsshConnection, options_of, proxy_words, translate
from .ssh_choice import choose_client
from .ssh_config import ConfigError, HostSettings, Place, read_settings
from .ssh_connections import Who, shared_connections
from .ssh_host_keys import known_of, refusal
from .ssh_known_hosts import HostKey
from .ssh_trying import Trying

_DEADLINE = 20.0
_METHODS = {
    "publickey": "keys",
    "password": "a password",
    "keyboard-interactive": "answers to questions (a code, a password)",
    "gssapi-with-mic": "Kerberos tickets",
    "hostbased": "trusted hosts",
}


async def steps(place: Place, user: User, wanted: str = "auto") -> Sequence[Step]:
    """For `Backend.steps`; ``wanted``: the client, as the configuration says."""

    async def settings_step() -> str:
        hops = await _hops(place)
        if hops[0].proxy_command is not None:
            return f"{hops[-1]}, through a ProxyCommand"
        return f"{hops[-1]}" + (f", through {', '.join(map(str, hops[:-1]))}" if hops[1:] else "")

    found = [Step("ssh_config", settings_step)]
    try:
        hops = await _hops(place)
    except ConfigError:
        return found  # that step says so
    several = len(hops) > 1
    if several and await choose_client(wanted, hops[-1], user.environment()) != "asyncssh":
        del hops[1:]  # the others are looked at by the login itself: no second login, no second code
    for settings in hops:
        hop = Hop(settings, Who(user, place.host))
        name = f" of {settings.place.host}" if several else ""
        if settings.via is None:
            found.append(Step(f"name resolution{name}", hop.name_step))
        found += [
            Step(f"TCP{name}", hop.tcp_step),
            Step(f"host key{name}", hop.host_key_step),
            Step(f"authentication{name}", hop.authentication_step),
        ]
    return found


async def _hops(place: Place) -> list[HostSettings]:
    """From here to the host."""
    hops = [await asyncio.to_thread(read_settings, place)]
    while hops[0].via is not None:
        hops.insert(0, hops[0].via)
    return hops


class NoKeyTaken(RouteError):
    """Nothing that we have would let us in, and nobody would be asked for anything."""

    def __init__(self, login: str, takes: str, tried: str) -> None:
        super().__init__(
            f"{login} will not be let in: it takes {takes}; {tried}",
            "Put the public half of a key into ~/.ssh/authorized_keys there (ssh-copy-id does), or name the right key "
            "in ssh_config: IdentityFile",
            needs_user=True,
        )


class Hop:
    """One host on the way.  Each step stands by itself: the keeper may be asked for any of them alone."""

    def __init__(self, settings: HostSettings, who: Who) -> None:
        self._settings = settings
        self._who = who

    async def name_step(self) -> str:
        host, port = self._settings.host, self._settings.port
        if self._settings.proxy_command is not None:
            return f"{host} is looked up by the ProxyCommand, not here"
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise ssh_errors.NameUnknown(host) from None
        addresses = dict.fromkeys(str(each[4][0]) for each in found)
        return f"{host} is {', '.join(addresses)}"

    async def tcp_step(self) -> str:
        settings = self._settings
        if settings.proxy_command is not None:
            return "the ProxyCommand connects"
        began = time.monotonic()
        async with self._way() as way:
            peer = settings.host if way["sock"] is None else way["sock"].getpeername()[0]
            if way["sock"] is None:
                await self._reach_from(way["tunnel"])
        taken = f"answers after {1000 * (time.monotonic() - began):.0f} ms"
        return f"{peer} port {settings.port} {taken}" + (f", from {settings.via}" if settings.via else "")

    async def host_key_step(self) -> str:
        settings = self._settings
        known = await asyncio.to_thread(known_of, settings)
        # The kinds that known_hosts has, or the host might show another one.
        kinds = [name for key in known.marked() for name in (_RSA if key.kind == "ssh-rsa" else (key.kind,))]
        async with self._way() as way:
            key = await asyncssh.get_server_host_key(
                settings.host, settings.port, config=None, server_host_key_algs=kinds or (), **way
            )
        if key is None:
            raise ssh_errors.NothingInCommon(settings.host, "it shows no key")
        shown = HostKey(key.get_algorithm(), key.public_data)
        refused = refusal(settings, known, shown)
        if refused is None:
            return f"{shown}, as known"
        if isinstance(refused, ssh_errors.HostKeyUnknown) and settings.strict == "accept-new":
            return f"{shown}, new: it is accepted at the first login (StrictHostKeyChecking accept-new)"
        raise refused

    async def authentication_step(self) -> str:
        settings = self._settings
        async with self._way() as way:
            methods = await asyncssh.get_server_auth_methods(
                settings.host, settings.port, username=settings.user, config=None, **way
            )
        if not methods:
            return f"{settings.host} lets {settings.user} in without any proof"
        takes = ", ".join(_METHODS.get(method, method) for method in methods)
        trying = await self._show_keys() if "publickey" in methods and settings.public_key else None
        tried = ", ".join(map(str, trying.keys)) if trying else ""
        said = f"tried: {tried}" if tried else self._none_here()
        if not (trying is not None and trying.some_taken) and not self._asks(methods):
            raise NoKeyTaken(str(settings), takes, said)
        return f"{settings.host} takes {takes}; {said}"

    def _asks(self, methods: Sequence[str]) -> bool:
        """Whether something remains that is not tried here: what somebody types, or a ticket."""
        settings = self._settings
        left = {
            "password": settings.password,
            "keyboard-interactive": settings.interactive,
            "gssapi-with-mic": settings.gssapi,
            "hostbased": True,
        }
        return any(left.get(method) for method in methods)

    def _none_here(self) -> str:
        agent = self._settings.identity_agent or self._who.user.environment().get("SSH_AUTH_SOCK") or ""
        has_agent = agent not in ("", "none") and os.path.exists(agent)
        return f"here is no key, and {'nothing in the' if has_agent else 'no'} SSH agent"

    async def _show_keys(self) -> Trying:
        settings = self._settings
        known = await asyncio.to_thread(known_of, settings)
        asker = Asker()
        asker.join(self._who.user, self._who.host)
        trying = Trying(settings, known, asker)
        async with self._way() as way:
            options = options_of(settings, trying, known, way.get("tunnel"))
            try:
                connection = await asyncssh.connect(settings.host, sock=way["sock"], **options)
                connection.abort()
            except asyncssh.PermissionDenied:
                pass  # all of them have been shown
            except asyncssh.DisconnectError as error:
                # A host counts only the keys that it refuses: after one that it takes, a login would be through.
                if not trying.some_taken:
                    raise translate(settings, trying, settings.via is not None, asker, error) from error
            finally:
                await trying.end()
        return trying

    async def _reach_from(self, tunnel: asyncssh.SSHClientConnection) -> None:
        _, writer = await tunnel.open_connection(self._settings.host, self._settings.port)
        writer.close()

    @contextlib.asynccontextmanager
    async def _way(self) -> AsyncIterator[dict[str, Any]]:
        """How asyncssh gets there; foreign errors become ours."""
        settings = self._settings
        async with contextlib.AsyncExitStack() as held:
            way: dict[str, Any] = {"sock": None}
            if settings.via is not None:
                client = find_client("asyncssh")
                jump = await held.enter_async_context(
                    shared_connections().lent(client, settings.via, self._who)
                )
                assert isinstance(jump, AsyncsshConnection)
                way["tunnel"] = jump.connection
            elif settings.proxy_command is not None:
                way["proxy_command"] = proxy_words(settings.proxy_command)
            else:
                way["sock"] = held.enter_context(
                    await ssh_tcp.connect(settings.host, settings.port, settings.family)
                )
            async with _translating(settings):
                yield way


_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


@contextlib.asynccontextmanager
async def _translating(settings: HostSettings) -> AsyncIterator[None]:
    """Foreign errors become ours."""
    try:
        async with asyncio.timeout(_DEADLINE):
            yield
    except TimeoutError:
        raise ssh_errors.TimedOut(settings.host, _DEADLINE, "greeting") from None
    except asyncssh.ChannelOpenError as error:
        raise ssh_errors.JumpFailed(
            str(settings.via), f"{settings.host}:{settings.port}", error.reason
        ) from error
    except asyncssh.KeyExchangeFailed as error:
        raise ssh_errors.NothingInCommon(settings.host, str(error)) from None
    except OSError as error:
        raise ssh_errors.from_os_error(settings.host, settings.port, error) from error
    except asyncssh.Error as error:
        raise ssh_errors.Cut(settings.host, str(error)) from error
