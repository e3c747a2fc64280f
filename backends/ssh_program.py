"""The route over the ssh program: for what only it can do, and for connections that the user has open already."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import subprocess
from typing import Any

from . import ssh_stderr
from .contract import Receiver, Stream
from .ssh_asking import Asker
from .ssh_config import HostSettings, place_arguments
from .ssh_connections import Done, SshConnection
from .ssh_errors import NoClient, TimedOut
from .ssh_mux import Control, MuxSessions, find_master
from .ssh_questions import Questions, ssh_directory
from .ssh_tcp import TCP_DEADLINE

LOGIN_DEADLINE = 45.0  # the TCP connections of all jumps included
_UP = b"farkernel-up"
_ALIVE_INTERVAL = 15
_STDERR_KEPT = 64 * 1024

# The master must not outlive the keeper, whatever ends that: this shell waits for the end of its stdin.
_GUARDED = 'exec 3<&0; "$@" 3<&- </dev/null & child=$!; exec >&- 2>&-; read line <&3; kill $child'


class ProgramConnection:
    """One login that an ssh program holds: ours, or one of the user's (without ``master``).

    ``control`` is a connection to the master's socket on which nothing is ever said but its end.
    """

    def __init__(self, settings: HostSettings, path: str, control: Control, master: _Master | None) -> None:
        self.path = path
        self._settings = settings
        self._master = master
        self._control = control
        self._sessions = MuxSessions(path, settings.host)
        self._closed = False
        asyncio.get_running_loop().add_reader(control.plug, self.close)

    def __repr__(self) -> str:
        whose = "ours" if self._master is not None else "the user's"
        return f"<ProgramConnection to {self._settings}, {whose}, {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        return not self._closed

    async def open(self, command: str, receiver: Receiver, done: Done) -> Stream:
        return await self._sessions.open(command, receiver, done)

    async def settle(self) -> bool:
        return await self._sessions.settle()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        asyncio.get_running_loop().remove_reader(self._control.plug)
        self._control.close()
        if self._master is not None:
            self._master.end()


class ProgramClient:
    """See `SshClient`."""

    name = "program"

    def __init__(self) -> None:
        self._users: dict[str, ProgramConnection] = {}

    async def connect(
        self, settings: HostSettings, through: SshConnection | None, asker: Asker
    ) -> ProgramConnection:
        path = settings.control_path
        held = self._users.get(path or "")
        if path is not None and (held is None or not held.is_open):
            control = await find_master(path)
            if control is not None:
                self._users[path] = ProgramConnection(settings, path, control, None)
                return self._users[path]
        return await self._own(settings, through, asker)

    async def _own(
        self, settings: HostSettings, through: SshConnection | None, asker: Asker
    ) -> ProgramConnection:
        path = str(ssh_directory() / secrets.token_hex(4))
        questions = Questions(settings, asker)
        async with questions.listening():
            jump = through.path if isinstance(through, ProgramConnection) else None
            master = _Master(
                _start(arguments(settings, path, jump), {**asker.environment(), **questions.environment()})
            )
            try:
                async with asker.limit(LOGIN_DEADLINE):
                    waits: list[asyncio.Future[Any]] = [master.up, questions.refused]
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if questions.refused.done():
                    raise questions.refused.result()
                control = await find_master(path) if master.up.result() else None
                if control is None:
                    raise ssh_stderr.translate(settings, master.said(), questions.tried, bool(asker.asked))
                return ProgramConnection(settings, path, control, master)
            except TimeoutError:
                master.end()
                raise TimedOut(settings.host, LOGIN_DEADLINE, "logging in") from None
            except BaseException:
                master.end()
                raise


def arguments(settings: HostSettings, path: str, jump: str | None) -> list[str]:
    """The master's argv.  Values are words of their own behind -o, and the place stands behind ``--``."""
    options = {
        "ControlPersist": "no",
        "ClearAllForwardings": "yes",
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "PermitLocalCommand": "yes",
        "LocalCommand": f"echo {_UP.decode()}",
        "ConnectTimeout": str(settings.connect_timeout or int(TCP_DEADLINE)),
        "ServerAliveInterval": str(settings.alive_interval or _ALIVE_INTERVAL),
        "StrictHostKeyChecking": settings.strict,
        "LogLevel": "DEBUG1",  # says which key the host has, and what was tried; see ssh_stderr.py
    }
    if jump is not None:
        # Over the jump host's own master, or not at all: `false` keeps ssh from logging in there once more.
        over = ["ssh", "-F", "none", "-S", jump, "-o", "ProxyCommand=false", "-W", "[%h]:%p", "--", "jump"]
        options["ProxyCommand"] = " ".join(word if "%" in word else shlex.quote(word) for word in over)
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", "-M", "-N", "-T", "-S", path, *words, *place_arguments(settings.place)]


def _start(argv: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["/bin/sh", "-c", _GUARDED, "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={**os.environ, **environment},
            start_new_session=True,  # no terminal to ask at
        )
    except OSError as error:
        raise NoClient("the ssh program", error.strerror or str(error)) from error


_ending: set[subprocess.Popen[bytes]] = set()


class _Master:
    """An ssh program of ours and the shell that guards it: its first word on stdout, all that it says on stderr."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.up: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._process = process
        self._stderr = b""
        self._loop = asyncio.get_running_loop()
        assert process.stdout is not None
        assert process.stderr is not None
        self._out, self._err = process.stdout.fileno(), process.stderr.fileno()
        for number, reader in ((self._out, self._heard), (self._err, self._complained)):
            os.set_blocking(number, False)
            self._loop.add_reader(number, reader)

    def said(self) -> str:
        self._complained()
        return self._stderr.decode("utf-8", "replace")

    def end(self) -> None:
        """Let the guarding shell go, which ends the master.  They are collected when the next one ends."""
        for number in (self._out, self._err):
            self._loop.remove_reader(number)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        _ending.add(self._process)
        _ending.difference_update([each for each in _ending if each.poll() is not None])

    def _heard(self) -> None:
        """Some ssh versions close their stdout once they are up; before that it means that they have ended."""
        data = os.read(self._out, 4096)
        if not data:
            self._loop.remove_reader(self._out)
        if not self.up.done() and (not data or _UP in data):
            self.up.set_result(bool(data))

    def _complained(self) -> None:
        """Read on also when nobody wants it any more: a full pipe would stop the master."""
        with contextlib.suppress(OSError):
            while data := os.read(self._err, 65536):
                self._stderr = (self._stderr + data)[-_STDERR_KEPT:]
            self._loop.remove_reader(self._err)
