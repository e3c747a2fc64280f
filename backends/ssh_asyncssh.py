"""The route over asyncssh: SSH in this process, the usual one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.encryption import get_default_encryption_algs, get_encryption_algs
from asyncssh.kex import get_kex_algs
from asyncssh.mac import get_mac_algs
from asyncssh.public_key import (
    get_default_certificate_algs,
    get_default_public_key_algs,
    get_public_key_algs,
)

from . import ssh_errors, ssh_tcp
from .contract import NotAnswered, Receiver, RouteError
from .ssh_asking import Asker
from .ssh_asyncssh_packets import spare_empty_packets
from .ssh_asyncssh_plug import Plug
from .ssh_asyncssh_stream import SessionStream
from .ssh_config import HostSettings
from .ssh_connections import Done, SshConnection
from .ssh_host_keys import accept, known_of, refusal
from .ssh_keys import key_pairs
from .ssh_known_hosts import HostKey, Known
from .ssh_undo import whole_or_undone

LOGIN_DEADLINE = (
    30.0  # after the TCP connection: key exchange and authentication, without the time that people take
)
_SETTLE = 5.0
_ALIVE_INTERVAL = 15
# What a channel may send before we have said that we took it.  We take all at once: the link bounds what is on the way.
_WINDOW = 16 * 1024 * 1024
# Half of what a packet of 32 KiB costs asyncssh has nothing to do with its size.  sshd makes larger ones only of what
# it has had to hold back, and of that the link allows no more than the line carries in a tenth of a second.
_PACKET = 224 * 1024
# It tells of every channel at INFO; what matters we log ourselves.
asyncssh.set_log_level("WARNING")

# With AES in the processor at both ends a byte costs half of what ChaCha20 takes, which is the usual first choice.
_FAST = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


class Login(asyncssh.SSHClient):
    """What asyncssh asks us while it logs in; remembers what was tried, for those who read why it failed."""

    def __init__(self, settings: HostSettings, known: Known, asker: Asker) -> None:
        self.shown: HostKey | None = None
        self.tried: list[str] = []
        self.banner = ""
        self.lost: Exception | None = None
        self._settings = settings
        self._asker = asker
        self._keys = self._key_pairs()
        self._known = known
        self._rounds = {"password": 0, "keyboard-interactive": 0}

    async def _key_pairs(self) -> AsyncGenerator[asyncssh.SSHKeyPair]:
        agent = agent_path(self._settings, self._asker)
        async with contextlib.aclosing(key_pairs(self._settings, agent, self._asker)) as pairs:
            async for pair in pairs:
                self.tried.append(f"key {pair.get_comment(errors='replace') or pair.get_algorithm()}")
                yield pair

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self.banner = (self.banner + msg)[-4096:]

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Asked only for keys that known_hosts does not have."""
        self.shown = HostKey(key.get_algorithm(), key.public_data)
        return False

    async def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        return await anext(self._keys, None)

    async def password_auth_requested(self) -> str | None:
        if not self._another_round("password"):
            return None
        return await self._answer(f"{self._settings}'s password: ", True)

    async def kbdint_auth_requested(self) -> str | None:
        return "" if self._another_round("keyboard-interactive") else None

    async def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> Sequence[str] | None:
        before = "".join(f"{text.strip()}\n" for text in (name, instructions) if text.strip())
        answers = []
        for number, (prompt, echo) in enumerate(prompts):
            text = f"{before if not number else ''}({self._settings}) {prompt}"  # as ssh says who asks
            answer = await self._answer(text, not echo)
            if answer is None:
                return None
            answers.append(answer)
        return answers

    def _another_round(self, method: str) -> bool:
        """As often as ssh would, and not at all once somebody has declined."""
        self._rounds[method] += 1
        return self._asker.declined is None and self._rounds[method] <= self._settings.prompts

    async def _answer(self, text: str, hidden: bool) -> str | None:
        try:
            answer = await self._asker.ask(text, hidden)
        except NotAnswered:
            return None
        self.tried.append("a password or code")
        return answer

    async def end(self) -> None:
        """Nothing will be asked any more."""
        with contextlib.suppress(
            RuntimeError
        ):  # it is waiting for somebody at this moment, and has been cancelled
            await self._keys.aclose()


class AsyncsshConnection:
    """One login by asyncssh."""

    def __init__(
        self,
        settings: HostSettings,
        connection: asyncssh.SSHClientConnection,
        login: Login,
        plug: Plug | None,
    ) -> None:
        self.connection = connection
        self._plug = plug
        self._settings = settings
        self._login = login
        self._closed = False
        self._closing: set[SessionStream] = set()

    def __repr__(self) -> str:
        return f"<AsyncsshConnection to {self._settings}, {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        return not self._closed and not self.connection.is_closed()

    async def open(self, command: str, receiver: Receiver, done: Done) -> SessionStream:
        stream = SessionStream(receiver, done, self._closing)
        try:
            await whole_or_undone(self._session(stream, command), lambda _: stream.close())
        except asyncio.CancelledError:
            stream.forsake()
            raise
        except asyncssh.ChannelOpenError as error:
            if self.connection.is_closed():
                raise self._cut(error) from error
            raise ssh_errors.NoMoreSessions(self._settings.host, error.reason) from error
        except (asyncssh.Error, OSError) as error:
            raise self._cut(error) from error
        if self._plug is not None:
            self._plug.session_opened()
        return stream

    async def _session(self, stream: SessionStream, command: str) -> None:
        await self.connection.create_session(
            lambda: stream,
            command,
            encoding=None,
            window=_WINDOW,
            max_pktsize=_PACKET,
            request_pty=False,
            env=dict(self._settings.set_env),
            send_env=list(self._settings.send_env),
        )

    def _cut(self, error: Exception) -> RouteError:
        return ssh_errors.Cut(self._settings.host, str(self._login.lost or error))

    async def settle(self) -> bool:
        closing = list(self._closing)
        if closing:
            waits = [asyncio.ensure_future(stream.gone.wait()) for stream in closing]
            _, late = await asyncio.wait(waits, timeout=_SETTLE)
            for each in late:
                each.cancel()
            self._closing.difference_update(closing)
        return bool(closing)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.connection.abort()


class AsyncsshClient:
    """See `SshClient`."""

    name = "asyncssh"

    async def connect(
        self, settings: HostSettings, through: SshConnection | None, asker: Asker
    ) -> AsyncsshConnection:
        tunnel = through.connection if isinstance(through, AsyncsshConnection) else None
        connection = await self._try(settings, tunnel, asker)
        if isinstance(connection, HostKey):
            # A new key has been accepted: nobody keeps a login waiting while people look at fingerprints.
            connection = await self._try(settings, tunnel, asker)
        if isinstance(connection, HostKey):
            raise ssh_errors.HostKeyUnknown(settings.host, str(connection))
        return connection

    async def _try(
        self, settings: HostSettings, tunnel: asyncssh.SSHClientConnection | None, asker: Asker
    ) -> AsyncsshConnection | HostKey:
        """Log in; or the host's key, when it was unknown and has been accepted just now."""
        known = await asyncio.to_thread(known_of, settings)
        login = Login(settings, known, asker)
        try:
            plug = await self._plug(settings, tunnel, asker)
            async with asker.limit(float(settings.connect_timeout or LOGIN_DEADLINE)):
                connection = await asyncssh.connect(
                    settings.host, **options_of(settings, login, known, tunnel or plug)
                )
        except TimeoutError as error:
            limit = float(settings.connect_timeout or LOGIN_DEADLINE)
            raise ssh_errors.TimedOut(settings.host, limit, "logging in") from error
        except asyncssh.HostKeyNotVerifiable as error:
            if login.shown is None:
                raise ssh_errors.HostKeyChanged(settings.host, settings.known_as, str(error), None) from error
            refused = refusal(settings, known, login.shown)
            if not isinstance(refused, ssh_errors.HostKeyUnknown):
                raise refused or ssh_errors.HostKeyUnknown(settings.host, str(login.shown)) from error
            await accept(settings, login.shown, asker)
            return login.shown
        except (asyncssh.Error, OSError, ValueError) as error:
            raise translate(settings, login, tunnel is not None, asker, error) from error
        finally:
            await login.end()
        spare_empty_packets(connection)
        return AsyncsshConnection(settings, connection, login, plug)

    async def _plug(
        self, settings: HostSettings, tunnel: asyncssh.SSHClientConnection | None, asker: Asker
    ) -> Plug | None:
        if tunnel is not None or settings.proxy_command is not None:
            return None
        deadline = None if settings.connect_timeout is None else float(settings.connect_timeout)
        async with asker.aside():  # a dead host costs only itself
            return Plug(await ssh_tcp.connect(settings.host, settings.port, settings.family, deadline))


def agent_path(settings: HostSettings, asker: Asker) -> str:
    """The SSH agent's socket; empty: none."""
    if settings.identity_agent == "none":
        return ""
    return settings.identity_agent or asker.environment().get("SSH_AUTH_SOCK", "")


def options_of(
    settings: HostSettings, login: Login, known: Known, through: asyncssh.SSHClientConnection | Plug | None
) -> dict[str, Any]:
    def keys(marker: str = "") -> list[asyncssh.SSHKey]:
        return [key for each in known.marked(marker) if (key := _imported(each)) is not None]

    trusted = (keys(), keys("@cert-authority"), keys("@revoked"))
    options: dict[str, Any] = {
        "port": settings.port,
        "tunnel": through,
        "config": None,
        "username": settings.user,
        "known_hosts": lambda host, address, port: trusted,
        "host_key_alias": settings.host_key_alias,
        "server_host_key_algs": _host_key_algorithms(settings, known),
        "client_factory": lambda: login,
        "client_keys": None,
        "agent_path": None,
        "login_timeout": 0,
        "connect_timeout": None,
        "keepalive_interval": settings.alive_interval or _ALIVE_INTERVAL,
        "keepalive_count_max": settings.alive_count,
        "public_key_auth": settings.public_key,
        "password_auth": settings.password,
        "kbdint_auth": settings.interactive,
        "gss_auth": settings.gssapi,
        "gss_kex": False,
        "compression_algs": ["zlib@openssh.com", "none"]
        if settings.compression
        else ["none", "zlib@openssh.com"],
    }
    if settings.methods:
        options["preferred_auth"] = list(settings.methods)
    if settings.proxy_command is not None:
        options["proxy_command"] = proxy_words(settings.proxy_command)
    for keyword, option, supported in (
        ("ciphers", "encryption_algs", get_encryption_algs()),
        ("kexalgorithms", "kex_algs", get_kex_algs()),
        ("macs", "mac_algs", get_mac_algs()),
    ):
        chosen = [name for name in settings.chosen(keyword) if name.encode() in supported]
        if chosen:
            options[option] = chosen
    if "encryption_algs" not in options and has_aes():
        usual = [name.decode() for name in get_default_encryption_algs()]
        options["encryption_algs"] = [*(name for name in _FAST if name in usual), *usual]
    return options


@functools.cache
def has_aes() -> bool:
    """Whether this processor has instructions for AES (proc(5), cpuinfo)."""
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return False
    return any("aes" in line.split() for line in lines if line.lower().startswith(("flags", "features")))


def proxy_words(command: str) -> list[str]:
    """As ssh does (ssh_config(5), ProxyCommand): the user's own shell, and exec, so that no shell lingers."""
    return [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"]


def lacks(settings: HostSettings) -> str | None:
    """What ssh_config asks of this host that asyncssh cannot do; None: nothing."""
    if settings.unusual:
        return settings.unusual[0]
    for keyword, supported in (
        ("ciphers", get_encryption_algs()),
        ("kexalgorithms", get_kex_algs()),
        ("macs", get_mac_algs()),
    ):
        chosen = settings.chosen(keyword)
        if chosen and not any(name.encode() in supported for name in chosen):
            return keyword
    return None


def _host_key_algorithms(settings: HostSettings, known: Known) -> list[str]:
    """The kinds of which a key is known come first, or the host might show another one, which looks like a change."""
    usual = [name.decode() for name in (*get_default_certificate_algs(), *get_default_public_key_algs())]
    supported = {name.decode() for name in get_public_key_algs()} | set(usual)
    chosen = [name for name in settings.chosen("hostkeyalgorithms") if name in supported] or usual
    kinds = [kind for key in known.marked() for kind in (_RSA if key.kind == "ssh-rsa" else (key.kind,))]
    certificates = [name for name in chosen if "-cert-" in name] if known.marked("@cert-authority") else []
    first = [*certificates, *(kind for kind in kinds if kind in chosen)]
    return list(dict.fromkeys([*first, *chosen]))


@functools.lru_cache(maxsize=256)
def _imported(key: HostKey) -> asyncssh.SSHKey | None:
    try:
        return asyncssh.public_key.decode_ssh_public_key(key.blob)
    except asyncssh.KeyImportError:  # a kind of key that this asyncssh does not know
        return None


def translate(
    settings: HostSettings, login: Login, jumped: bool, asker: Asker, error: Exception
) -> RouteError:
    """asyncssh's errors in our words."""
    host, text = settings.host, str(error)
    if asker.declined is not None:
        return ssh_errors.NobodyAnswered(asker.declined, login.tried)
    if isinstance(error, asyncssh.PermissionDenied):
        return ssh_errors.LoginRefused(str(settings), login.tried, [], login.banner, bool(asker.asked))
    if isinstance(error, asyncssh.ChannelOpenError) and settings.via is not None:
        return ssh_errors.JumpFailed(str(settings.via), f"{host}:{settings.port}", error.reason)
    if "oo many authentication failures" in text:
        return ssh_errors.TooManyFailures(str(settings))
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return ssh_errors.NothingInCommon(host, text)
    closed = isinstance(error, asyncssh.ConnectionLost | ConnectionResetError)
    if closed and asker.asked and not jumped:
        return ssh_errors.ClosedAfterAsking(str(settings), login.banner)
    if login.banner.strip() and isinstance(error, asyncssh.DisconnectError):
        return ssh_errors.NoAccess(str(settings), login.banner)
    if closed:
        return ssh_errors.ProxyFailed(host, text) if settings.proxy_command else ssh_errors.Overloaded(host)
    if isinstance(error, OSError):
        return ssh_errors.from_os_error(host, settings.port, error)
    return ssh_errors.Cut(host, text)
