"""The questions of one ssh program, answered by whoever waits for its connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from ..launcher.agent.places import private_directory, subdirectory
from . import ssh_askpass
from .contract import NotAnswered, RouteError
from .ssh_asking import Asker
from .ssh_config import HostSettings
from .ssh_errors import AnsweredTooLate, NobodyAnswered
from .ssh_host_keys import ask
from .ssh_known_hosts import append

_FINGERPRINT = re.compile(r"(\S+) key fingerprint is (SHA256:[A-Za-z0-9+/=]+)")
_NEW_HOST = re.compile(r"The authenticity of host '([^']*)'")
_LONGEST = 64 * 1024
# ssh does not notice that the host has hung up while it waits for an answer; hosts wait 120 s (LoginGraceTime).
PATIENCE = 115.0


def ssh_directory() -> Path:
    """Where our masters and askpass have their sockets: short paths, in the keeper's private directory."""
    return Path(subdirectory(private_directory(), "ssh"))


def askpass_program() -> Path:
    """A script, because SSH_ASKPASS is a path without arguments."""
    path = ssh_directory() / "askpass"
    text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(ssh_askpass.__file__)} "$@"\n'
    if not path.exists() or path.read_text() != text:
        fresh = path.with_name(f"askpass-{secrets.token_hex(4)}")
        fresh.write_text(text)
        fresh.chmod(0o700)
        fresh.rename(path)
    return path


class Questions:
    """Listens while a master logs in.  ``refused`` is set when it must not go on."""

    def __init__(self, settings: HostSettings, asker: Asker) -> None:
        self.tried: list[str] = []
        self.refused: asyncio.Future[RouteError] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._asker = asker
        self._path = ssh_directory() / f"q-{secrets.token_hex(4)}"
        self._one_at_a_time = asyncio.Lock()
        self._answering: set[asyncio.Task[str | None]] = set()

    def environment(self) -> dict[str, str]:
        # DISPLAY: ssh before 8.4 knows no SSH_ASKPASS_REQUIRE, and asks in this way only where it is set.
        return {
            "SSH_ASKPASS": str(askpass_program()),
            "SSH_ASKPASS_REQUIRE": "force",
            "DISPLAY": os.environ.get("DISPLAY") or ":",
            ssh_askpass.SOCKET: str(self._path),
        }

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, self._path, limit=_LONGEST)
        try:
            yield
        finally:
            server.close()
            for task in self._answering:
                task.cancel()  # ssh has ended meanwhile: nobody need answer any more
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering = asyncio.ensure_future(self._answer(reader))
        self._answering.add(answering)
        try:
            await asyncio.wait([answering])
            if not answering.cancelled() and answering.exception() is None and answering.result() is not None:
                writer.write(json.dumps(answering.result()).encode() + b"\n")
        finally:
            self._answering.discard(answering)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> str | None:
        question = json.loads(await reader.readline())
        text, kind = str(question["text"]), str(question["kind"])
        async with self._one_at_a_time:
            if self.refused.done():
                return None
            host = _NEW_HOST.search(text)
            try:
                async with asyncio.timeout(PATIENCE):
                    if host is not None:
                        return await self._about_key(host[1], text)
                    return await self._about_login(text, kind)
            except TimeoutError:
                self._refuse(AnsweredTooLate(self._settings.host))
                return None

    async def _about_key(self, host: str, text: str) -> str | None:
        found = _FINGERPRINT.search(text)
        key = f"{found[1]} {found[2]}" if found else "no fingerprint was said"
        try:
            await ask(host.partition(" (")[0], key, self._asker)
        except RouteError as error:
            self._refuse(error)
            return None
        if self._settings.known_hosts:
            with contextlib.suppress(OSError):  # then ssh will say so
                append(self._settings.known_hosts[0], "")
        return "yes"

    async def _about_login(self, text: str, kind: str) -> str | None:
        try:
            answer = await self._asker.ask(text, hidden=kind != "confirm")
        except NotAnswered as error:
            self._refuse(NobodyAnswered(error, self.tried))
            return None
        self.tried.append("a password or code")
        return answer

    def _refuse(self, error: RouteError) -> None:
        if not self.refused.done():
            self.refused.set_result(error)
