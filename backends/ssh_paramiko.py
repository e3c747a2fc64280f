"""The route over paramiko, for those who must use it (extra ``paramiko``): its threads, bridged to the loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import paramiko

from . import ssh_errors, ssh_tcp
from .contract import Receiver, RouteError
from .ssh_asking import Asker
from .ssh_config import HostSettings
from .ssh_connections import Done, SshConnection
from .ssh_host_keys import accept, known_of, refusal
from .ssh_known_hosts import HostKey, Known
from .ssh_paramiko_login import Login, Refused
from .ssh_paramiko_stream import ThreadedStream
from .ssh_settling import Settling
from .ssh_undo import whole_or_undone

LOGIN_DEADLINE = 30.0
_ALIVE_INTERVAL = 15
_WINDOW = 16 * 1024 * 1024
_PACKET = 32 * 1024
_PATIENT = 24 * 3600.0  # our own deadline counts, which stands still while people type
# Its threads write tracebacks of what they raise anyway, and what they raise we translate.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

T = TypeVar("T")

_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


class ParamikoConnection:
    """One login by paramiko."""

    def __init__(self, settings: HostSettings, transport: paramiko.Transport) -> None:
        self.transport = transport
        self._settings = settings
        self._closed = False
        self._settling = Settling()

    def __repr__(self) -> str:
        return f"<ParamikoConnection to {self._settings}, {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        return not self._closed and self.transport.is_active()

    async def open(self, command: str, receiver: Receiver, done: Done) -> ThreadedStream:
        try:
            channel = await whole_or_undone(in_own_thread(self._session, command), hang_up)
        except asyncio.CancelledError:
            self._settling.note()
            raise
        except paramiko.ChannelException as error:
            raise ssh_errors.NoMoreSessions(self._settings.host, error.text) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ssh_errors.Cut(self._settings.host, str(error)) from error

        def ended(dead: bool) -> None:
            self._settling.note()
            done(dead)

        return ThreadedStream(channel, receiver, ended)

    def _session(self, command: str) -> paramiko.Channel:
        channel = self.transport.open_session(window_size=_WINDOW, max_packet_size=_PACKET)
        for name, value in self._settings.set_env:
            channel.set_environment_variable(name, value)
        channel.exec_command(command)
        return channel

    async def settle(self) -> bool:
        return await self._settling.wait()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            hang_up(self.transport)


class ParamikoClient:
    """See `SshClient`."""

    name = "paramiko"

    async def connect(
        self, settings: HostSettings, through: SshConnection | None, asker: Asker
    ) -> ParamikoConnection:
        connection = await self._try(settings, through, asker)
        if isinstance(connection, HostKey):
            await accept(settings, connection, asker)
            connection = await self._try(settings, through, asker)
        if isinstance(connection, HostKey):
            raise ssh_errors.HostKeyUnknown(settings.host, str(connection))
        return connection

    async def _try(
        self, settings: HostSettings, through: SshConnection | None, asker: Asker
    ) -> ParamikoConnection | HostKey:
        """Log in; or the host's key, when nothing is known of it."""
        limit = float(settings.connect_timeout or LOGIN_DEADLINE)
        plug = await self._plug(settings, through)
        login = Login(settings, asker, asyncio.get_running_loop())
        transport: paramiko.Transport | None = None
        try:
            async with asker.limit(limit):
                transport = await in_own_thread(_prepared, settings, plug)
                key = await in_own_thread(_meet, settings, transport)
                if key is not None:
                    hang_up(transport)
                    return key
                await in_own_thread(login.run, transport)
            transport.set_keepalive(settings.alive_interval or _ALIVE_INTERVAL)
            return ParamikoConnection(settings, transport)
        except BaseException as error:
            hang_up(plug if transport is None else transport)
            if isinstance(error, TimeoutError):
                raise ssh_errors.TimedOut(settings.host, limit, "logging in") from error
            if isinstance(error, paramiko.SSHException | OSError | EOFError | Refused):
                raise translate(settings, login, asker, error) from error
            raise

    async def _plug(self, settings: HostSettings, through: SshConnection | None) -> Any:
        """A socket, or what paramiko takes for one."""
        if isinstance(through, ParamikoConnection):
            where = (settings.host, settings.port)
            try:
                return await in_own_thread(
                    through.transport.open_channel, "direct-tcpip", where, ("127.0.0.1", 0)
                )
            except paramiko.ChannelException as error:
                raise ssh_errors.JumpFailed(
                    str(settings.via), f"{settings.host}:{settings.port}", error.text
                ) from error
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise ssh_errors.Cut(str(settings.via), str(error)) from error
        if settings.proxy_command is not None:
            return _through(settings.proxy_command)
        deadline = None if settings.connect_timeout is None else float(settings.connect_timeout)
        return await ssh_tcp.connect(settings.host, settings.port, settings.family, deadline)


async def in_own_thread(act: Callable[..., T], *arguments: Any) -> T:
    """As `asyncio.to_thread`, whose few threads a handful of hosts that hang would keep from everybody else."""
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        if outcome.set_running_or_notify_cancel():
            try:
                outcome.set_result(act(*arguments))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is for whoever waits
                outcome.set_exception(error)

    threading.Thread(target=run, name="paramiko", daemon=True).start()
    return await asyncio.wrap_future(outcome)


def _through(command: str) -> socket.socket:
    """The other end of a ProxyCommand (paramiko's own class leaves its pipes open when it is closed)."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [os.environ.get("SHELL") or "/bin/sh", "-c", "exec " + command],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    threading.Thread(target=process.wait, name="ssh proxy", daemon=True).start()
    return ours


def _prepared(settings: HostSettings, plug: Any) -> paramiko.Transport:
    if isinstance(plug, socket.socket):
        plug.setblocking(True)
    if isinstance(plug, socket.socket) and plug.family != socket.AF_UNIX:
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(plug, default_window_size=_WINDOW)
    transport.auth_timeout = _PATIENT
    transport.use_compression(settings.compression)
    options = transport.get_security_options()
    options.key_types = _key_types(
        options.key_types, known_of(settings), settings.chosen("hostkeyalgorithms")
    )
    for keyword, name in (("ciphers", "ciphers"), ("kexalgorithms", "kex"), ("macs", "digests")):
        chosen = [each for each in settings.chosen(keyword) if each in getattr(options, name)]
        if chosen:
            setattr(options, name, tuple(chosen))
    return transport


def _key_types(usual: Sequence[str], known: Known, chosen: Sequence[str]) -> tuple[str, ...]:
    """The kinds of which a key is known come first, or the host might show another one, which looks like a change."""
    allowed = [kind for kind in chosen if kind in usual] or list(usual)
    kinds = [kind for key in known.marked() for kind in (_RSA if key.kind == "ssh-rsa" else (key.kind,))]
    return tuple(dict.fromkeys([*(kind for kind in kinds if kind in allowed), *allowed]))


def _meet(settings: HostSettings, transport: paramiko.Transport) -> HostKey | None:
    """Exchange keys; the host's key if nothing is known of it, None if it is the right one.  Raises `RouteError`."""
    transport.start_client(timeout=_PATIENT)
    shown = transport.get_remote_server_key()
    key = HostKey(shown.get_name(), shown.asbytes())
    refused = refusal(settings, known_of(settings), key)
    if isinstance(refused, ssh_errors.HostKeyUnknown):
        return key
    if refused is not None:
        raise refused
    return None


def hang_up(what: Any) -> None:
    """Close a transport or a socket: in a thread, because it waits for others.  Whatever still waits for it ends."""
    threading.Thread(target=_close, args=(what,), name="ssh hang up", daemon=True).start()


def _close(what: Any) -> None:
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):  # it was broken already
        what.close()


def translate(settings: HostSettings, login: Login, asker: Asker, error: BaseException) -> RouteError:
    """paramiko's errors in our words."""
    host, text = settings.host, str(error)
    if asker.declined is not None:
        return ssh_errors.NobodyAnswered(asker.declined, login.tried)
    banner = login.banner
    if isinstance(error, paramiko.AuthenticationException | Refused):
        return ssh_errors.LoginRefused(str(settings), login.tried, login.allowed, banner, login.answered)
    if "oo many authentication failures" in text:
        return ssh_errors.TooManyFailures(str(settings))
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return ssh_errors.NothingInCommon(host, text)
    if banner.strip():
        return ssh_errors.NoAccess(str(settings), banner)
    if settings.proxy_command is not None:
        return ssh_errors.ProxyFailed(host, text)
    if isinstance(error, EOFError | ConnectionResetError) or "Error reading SSH protocol banner" in text:
        return ssh_errors.Overloaded(host)
    if isinstance(error, OSError):
        return ssh_errors.from_os_error(host, settings.port, error)
    return ssh_errors.Cut(host, text)
