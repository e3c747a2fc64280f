"""`farkernel doctor` on the way to an SSH host: its name, TCP, its key, and what it takes as proof of who we are.

The login itself is the step after these; nothing here asks the user or proves anything.  A host behind others is
looked at as far as can be seen from here: the first hop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence

import asyncssh

from . import ssh_errors, ssh_tcp
from .contract import Step, User
from .ssh_config import HostSettings, Place, read_settings
from .ssh_host_keys import known_of, refusal
from .ssh_known_hosts import HostKey

_DEADLINE = 20.0
_METHODS = {
    "publickey": "keys",
    "password": "a password",
    "keyboard-interactive": "answers to questions (a code, a password)",
    "gssapi-with-mic": "Kerberos tickets",
    "hostbased": "trusted hosts",
}


def steps(place: Place, user: User) -> Sequence[Step]:
    """For `Backend.steps`."""
    looked = Looked(place, user)
    return (
        Step("ssh_config", looked.settings_step),
        Step("name resolution", looked.name_step),
        Step("TCP", looked.tcp_step),
        Step("host key", looked.host_key_step),
        Step("authentication", looked.authentication_step),
    )


class Looked:
    """Each step stands by itself: the keeper may be asked for any of them alone."""

    def __init__(self, place: Place, user: User) -> None:
        self._place = place
        self._user = user

    async def _hops(self) -> list[HostSettings]:
        """From here to the host."""
        settings = await asyncio.to_thread(read_settings, self._place)
        hops = [settings]
        while hops[0].via is not None:
            hops.insert(0, hops[0].via)
        return hops

    async def settings_step(self) -> str:
        hops = await self._hops()
        if hops[0].proxy_command is not None:
            return f"{hops[-1]}, through a ProxyCommand"
        return f"{hops[-1]}" + (f", through {', '.join(map(str, hops[:-1]))}" if hops[1:] else "")

    async def name_step(self) -> str:
        first = (await self._hops())[0]
        if first.proxy_command is not None:
            return f"{first.host} is looked up by the ProxyCommand, not here"
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                first.host, first.port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):
            raise ssh_errors.NameUnknown(first.host) from None
        addresses = dict.fromkeys(str(each[4][0]) for each in found)
        return f"{first.host} is {', '.join(addresses)}"

    async def tcp_step(self) -> str:
        first = (await self._hops())[0]
        if first.proxy_command is not None:
            return "the ProxyCommand connects"
        began = time.monotonic()
        with await ssh_tcp.connect(first.host, first.port, first.family) as plug:
            peer = plug.getpeername()[0]
        return f"{peer} port {first.port} answers after {1000 * (time.monotonic() - began):.0f} ms"

    async def host_key_step(self) -> str:
        first = (await self._hops())[0]
        if first.proxy_command is not None:
            return "it is checked at the login"
        known = await asyncio.to_thread(known_of, first)
        # The kinds that known_hosts has, or the host might show another one.
        kinds = [name for key in known.marked() for name in (_RSA if key.kind == "ssh-rsa" else (key.kind,))]
        with await ssh_tcp.connect(first.host, first.port, first.family) as plug:
            async with _translating(first):
                key = await asyncssh.get_server_host_key(
                    first.host, first.port, sock=plug, config=None, server_host_key_algs=kinds or ()
                )
        if key is None:
            raise ssh_errors.NothingInCommon(first.host, "it shows no key")
        shown = HostKey(key.get_algorithm(), key.public_data)
        refused = refusal(first, known, shown)
        if refused is None:
            return f"{shown}, as known"
        if isinstance(refused, ssh_errors.HostKeyUnknown) and first.strict == "accept-new":
            return f"{shown}, new: it is accepted at the first login (StrictHostKeyChecking accept-new)"
        raise refused

    async def authentication_step(self) -> str:
        first = (await self._hops())[0]
        if first.proxy_command is not None:
            return "it is tried at the login"
        with await ssh_tcp.connect(first.host, first.port, first.family) as plug:
            async with _translating(first):
                methods = await asyncssh.get_server_auth_methods(
                    first.host, first.port, username=first.user, sock=plug, config=None
                )
        takes = ", ".join(_METHODS.get(method, method) for method in methods) or "nothing that it says"
        agent = first.identity_agent or self._user.environment().get("SSH_AUTH_SOCK") or ""
        return f"{first.host} takes {takes}; here are {_at_hand(first.identity_files, agent)}"


_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


def _at_hand(files: Sequence[str], agent: str) -> str:
    there = [path for path in files if os.path.exists(path)]
    has_agent = agent not in ("", "none") and os.path.exists(agent)
    return f"{len(there)} key file{'s' * (len(there) != 1)} and {'an' if has_agent else 'no'} SSH agent"


@contextlib.asynccontextmanager
async def _translating(settings: HostSettings) -> AsyncIterator[None]:
    """Foreign errors become ours."""
    try:
        async with asyncio.timeout(_DEADLINE):
            yield
    except TimeoutError:
        raise ssh_errors.TimedOut(settings.host, _DEADLINE, "greeting") from None
    except asyncssh.KeyExchangeFailed as error:
        raise ssh_errors.NothingInCommon(settings.host, str(error)) from None
    except OSError as error:
        raise ssh_errors.from_os_error(settings.host, settings.port, error) from error
    except asyncssh.Error as error:
        raise ssh_errors.Cut(settings.host, str(error)) from error
