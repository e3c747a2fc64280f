"""Authentication with paramiko: one method after the other, in a thread; questions are put in the loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import paramiko
from paramiko.agent import AgentSSH
from paramiko.pkey import UnknownKeyType

from .contract import NotAnswered
from .ssh_asking import Asker
from .ssh_config import HostSettings
from .ssh_errors import AnsweredTooLate

_PASSPHRASE_TRIES = 3
_GLANCE = 0.5  # how often a thread that waits for an answer looks whether it still makes sense
_METHODS = ("publickey", "keyboard-interactive", "password")


class Refused(Exception):
    """No method is left; caught where the host is known."""


class Login:
    """One try; remembers what was done, for those who read why it failed."""

    def __init__(self, settings: HostSettings, asker: Asker, loop: asyncio.AbstractEventLoop) -> None:
        self.tried: list[str] = []
        self.allowed: list[str] = []
        self.banner = ""
        self._transport: paramiko.Transport | None = None
        self.answered = False
        self._settings = settings
        self._asker = asker
        self._loop = loop
        self._declined = False
        self._used: set[str] = set()

    def run(self, transport: paramiko.Transport) -> None:
        """Raises `Refused`, or paramiko's own errors."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as self._plug:
            self._transport = transport
            try:
                self._run(transport)
            finally:
                self._hear(transport)

    def _run(self, transport: paramiko.Transport) -> None:
        try:
            left = transport.auth_none(self._settings.user)
        except paramiko.BadAuthenticationType as error:
            left = list(error.allowed_types)
        while not transport.is_authenticated():
            self.allowed = left
            method = next((each for each in self._order() if each in left and each not in self._used), None)
            if method is None or self._declined:
                raise Refused
            self._used.add(method)
            left = self._try(transport, method) or left
            self._hear(transport)

    def _hear(self, transport: paramiko.Transport) -> None:
        """What the host says to whom it lets in, or not: paramiko forgets it with each method, and with the end."""
        words = (getattr(transport.auth_handler, "banner", None) or b"").decode("utf-8", "replace")
        if words not in self.banner:
            self.banner = (self.banner + words)[-4096:]

    def _order(self) -> Sequence[str]:
        wanted = [each for each in self._settings.methods if each in _METHODS] or list(_METHODS)
        switches = {
            "publickey": self._settings.public_key,
            "keyboard-interactive": self._settings.interactive,
            "password": self._settings.password,
        }
        return [each for each in wanted if switches[each]]

    def _try(self, transport: paramiko.Transport, method: str) -> list[str]:
        """What the host wants besides, when this was right but not enough; nothing when it was not right."""
        if method == "publickey":
            return self._public_key(transport)
        for _ in range(self._settings.prompts):
            try:
                if method == "password":
                    text = f"{self._settings}'s password: "
                    return transport.auth_password(self._settings.user, self._ask(text, True), fallback=False)
                return transport.auth_interactive(self._settings.user, self._challenge)
            except NotAnswered:
                return []
            except paramiko.BadAuthenticationType:
                return []
            except paramiko.AuthenticationException:
                if self._declined or not transport.is_active():
                    raise
        return []

    def _public_key(self, transport: paramiko.Transport) -> list[str]:
        for name, key in self._keys():
            self.tried.append(f"key {name}")
            try:
                return transport.auth_publickey(self._settings.user, key)
            except paramiko.BadAuthenticationType:
                return []
            except paramiko.AuthenticationException:
                if not transport.is_active():
                    raise
        return []

    def _keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """The SSH agent's, then files."""
        named = {public for path in self._settings.identity_files if (public := _public_blob(path))}
        held = set()
        for key in _agent_keys(self._agent_path(), self._plug):
            held.add(key.asbytes())
            if not self._settings.identities_only or key.asbytes() in named:
                yield f"{key.get_name()} of the SSH agent", key
        for path in self._settings.identity_files:
            if _public_blob(path) not in held:
                loaded = self._load(path)
                if loaded is not None:
                    yield from self._with_certificates(path, loaded)

    def _with_certificates(self, path: str, key: paramiko.PKey) -> Iterator[tuple[str, paramiko.PKey]]:
        for certificate in (*self._settings.certificate_files, path + "-cert.pub"):
            with contextlib.suppress(OSError, ValueError, paramiko.SSHException):
                key.load_certificate(certificate)
                yield certificate, key
                return
        yield path, key

    def _agent_path(self) -> str:
        if self._settings.identity_agent == "none":
            return ""
        return self._settings.identity_agent or self._asker.environment().get("SSH_AUTH_SOCK", "")

    def _load(self, path: str) -> paramiko.PKey | None:
        passphrase: Any = None  # bytes; the types say a string, which it would not take
        for _ in range(_PASSPHRASE_TRIES + 1):
            try:
                return paramiko.PKey.from_path(path, passphrase)
            except (OSError, UnknownKeyType):
                return None
            except (paramiko.SSHException, ValueError, TypeError):  # locked, or locked by another passphrase
                try:
                    passphrase = self._ask(f"Passphrase for the key {path}: ", True).encode()
                except NotAnswered:
                    return None
        return None

    def _challenge(self, title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        before = "".join(f"{text.strip()}\n" for text in (title, instructions) if text.strip())
        return [
            self._ask(f"{before if not number else ''}({self._settings}) {prompt}", not echo)
            for number, (prompt, echo) in enumerate(prompts)
        ]

    def _wait(self, asking: Future[str]) -> str:
        """As long as the host waits too (LoginGraceTime in its sshd_config)."""
        while True:
            with contextlib.suppress(TimeoutError):
                return asking.result(_GLANCE)
            if self._transport is not None and not self._transport.is_active():
                asking.cancel()
                raise AnsweredTooLate(self._settings.host)

    def _ask(self, text: str, hidden: bool) -> str:
        try:
            answer = self._wait(asyncio.run_coroutine_threadsafe(self._asker.ask(text, hidden), self._loop))
        except NotAnswered:
            self._declined = True
            raise
        self.answered = True
        self.tried.append("a password or code")
        return answer


def _agent_keys(path: str, plug: socket.socket) -> Sequence[paramiko.PKey]:
    if not path:
        return ()
    agent = AgentSSH()
    try:
        plug.settimeout(5)
        plug.connect(path)
        agent._connect(plug)  # type: ignore[attr-defined]  # the way for agents that are not in os.environ
        return agent.get_keys()
    except (OSError, paramiko.SSHException):
        return ()


def _public_blob(path: str) -> bytes:
    """From ``PATH.pub``; empty if it cannot be had."""
    import base64

    try:
        with open(path + ".pub", encoding="utf-8", errors="replace") as stream:
            return base64.b64decode(stream.readline().split()[1])
    except (OSError, ValueError, IndexError):
        return b""
