"""One connection per host for all that runs there: kernels, visits, schedulers' commands.

A connection is shared by everything whose settings are equal (`HostSettings`), and is kept for a while after the
last use.  One attempt at a time per host, for all who wait; at most ten logins at a time over all hosts, those apart
that take unusually long; and a second connection to a host only when it opens no more sessions on the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from .contract import Receiver, RouteError, Stream, User
from .ssh_asking import Asker, Through
from .ssh_config import HostSettings
from .ssh_errors import Cut, NoMoreSessions, TimedOut

log = logging.getLogger(__name__)

LINGER = 30.0
LOGINS = 10
# A login is some tens of milliseconds of work.  One that takes this long waits for something, and ten hosts that hang
# would hold up all the others.
_WORKING = 2.0
# MaxStartups counts a login until it is through: a burst over many connections is what sshd drops.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_LATE, _LATE_PAUSE = 5, 0.1
_SESSION_DEADLINE = 15.0
_MOST_CONNECTIONS = 8  # to one host, when it opens few sessions on each

Done = Callable[[bool], None]


class SshConnection(Protocol):
    """One login."""

    @property
    def is_open(self) -> bool:
        """It has not been closed, and nothing has been heard of its end."""

    async def open(self, command: str, receiver: Receiver, done: Done) -> Stream:
        """Run a command; raises `NoMoreSessions` or another `RouteError`.

        ``done`` is called once when the stream has ended, with what `Stream.close` was told.
        """

    async def settle(self) -> bool:
        """Wait, not for long, until the host knows too that a closed stream has ended; False: there is none such."""

    def close(self) -> None:
        """Log out.  May be called again."""


class SshClient(Protocol):
    """One way of logging in."""

    name: str

    async def connect(
        self, settings: HostSettings, through: SshConnection | None, asker: Asker
    ) -> SshConnection:
        """Log in (by way of another connection of the same client, if given); raises `RouteError`.

        Questions go to the asker, whose deadline it obeys.
        """


@dataclass(frozen=True)
class Who:
    """On whose behalf: who can be asked, and what they call the host."""

    user: User
    host: str


class _Held:
    """A connection that is open, and how many hold it."""

    def __init__(self, connection: SshConnection, via: _Held | None) -> None:
        self.connection = connection
        self.via = via
        self.holders = 0
        self.sessions = 0
        self.most: int | None = None  # sessions, once the host has refused one
        self.dropped = False
        self._linger: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        through = self.via is None or self.via.connection.is_open
        return through and not self.dropped and self.connection.is_open

    @property
    def has_room(self) -> bool:
        return self.usable and (self.most is None or self.sessions < self.most)

    def take(self) -> None:
        self.holders += 1
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def leave(self, linger: float) -> None:
        self.holders -= 1
        if self.holders or self.dropped:
            return
        if not self.usable:
            self.drop()
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(linger, self.drop)

    def drop(self) -> None:
        """It must not be used any more; who still holds it hears that it has ended."""
        if self.dropped:
            return
        self.dropped = True
        if self._linger is not None:
            self._linger.cancel()
        self.connection.close()
        if self.via is not None:
            self.via.leave(LINGER)


class _Attempt:
    """A login on its way, and those who wait for it."""

    def __init__(self, asker: Asker, task: asyncio.Task[_Held]) -> None:
        self.asker = asker
        self.task = task


class _Host:
    """Everything about one login: its connections, and the attempt to make another."""

    def __init__(self) -> None:
        self.held: list[_Held] = []
        self.attempt: _Attempt | None = None
        self.failures = 0
        self.not_before = 0.0

    def find(self) -> _Held | None:
        for each in [each for each in self.held if not each.usable]:
            self.held.remove(each)
            each.drop()
        return next((each for each in self.held if each.has_room), None)

    def failed(self, unreached: bool) -> None:
        longest = _FIRST_PAUSE if unreached else _LONGEST_PAUSE
        pause = min(_FIRST_PAUSE * 2.0**self.failures, longest)
        self.failures += 1
        self.not_before = asyncio.get_running_loop().time() + pause * random.uniform(0.5, 1.0)

    def worked(self, held: _Held) -> None:
        self.failures = 0
        self.not_before = 0.0
        self.held.append(held)


class Connections:
    """All SSH connections of one keeper.  Belongs to the running loop, and logs out when that ends."""

    def __init__(self, linger: float = LINGER, logins: int = LOGINS) -> None:
        self._linger = linger
        self._hosts: dict[tuple[str, HostSettings], _Host] = {}
        self._slots = asyncio.Semaphore(logins)
        self._end = asyncio.get_running_loop().create_task(self._until_the_end(), name="ssh connections")

    def __repr__(self) -> str:
        return f"<Connections, {self.count()} open, to {len(self._hosts)} hosts>"

    def count(self) -> int:
        """How many connections are open."""
        return sum(each.usable for host in self._hosts.values() for each in host.held)

    async def open(
        self, client: SshClient, settings: HostSettings, who: Who, command: str, receiver: Receiver
    ) -> Stream:
        """Run a command over whatever connection there is, or over a new one; raises `RouteError`."""
        silent, late = False, 0
        while True:
            held = await self._connected(client, settings, who)
            held.take()
            held.sessions += 1
            try:
                async with asyncio.timeout(_SESSION_DEADLINE):
                    return await held.connection.open(command, receiver, _Release(self, held))
            except NoMoreSessions:
                self._give_up(held)
                if await held.connection.settle():
                    continue
                if held.sessions == 0 and late < _LATE:
                    # sshd counts a session until it has reaped its process, a moment after it has told us the end.
                    late += 1
                    await asyncio.sleep(_LATE_PAUSE)
                    continue
                if held.sessions == 0 or len(self._host(client, settings).held) >= _MOST_CONNECTIONS:
                    raise
                held.most = held.sessions
                log.info("%s opens only %d sessions on a connection", settings, held.most)
            except TimeoutError:
                # A connection that was cut while nothing ran over it (a laptop's sleep) says nothing at all.
                self._give_up(held)
                held.drop()
                if silent:
                    raise TimedOut(settings.host, _SESSION_DEADLINE, "opening a session") from None
                silent = True
            except Cut:
                self._give_up(held)
                held.drop()
                if silent:
                    raise
                silent = True
            except BaseException:
                self._give_up(held)
                raise

    @contextlib.asynccontextmanager
    async def lent(self, client: SshClient, settings: HostSettings, who: Who) -> AsyncIterator[SshConnection]:
        """The connection itself, to look at a host behind that one; raises `RouteError`."""
        held = await self._connected(client, settings, who)
        held.take()
        try:
            yield held.connection
        finally:
            held.leave(self._linger)

    def close(self) -> None:
        """Log out everywhere."""
        for host in self._hosts.values():
            if host.attempt is not None:
                host.attempt.task.cancel()
            for held in list(host.held):
                held.drop()

    async def _until_the_end(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.close()

    def released(self, held: _Held, dead: bool) -> None:
        """A stream over that connection has ended; ``dead``: so has the connection, in all likelihood."""
        if dead:
            held.drop()
        self._give_up(held)

    def _give_up(self, held: _Held) -> None:
        held.sessions -= 1
        held.leave(self._linger)

    def _host(self, client: SshClient, settings: HostSettings) -> _Host:
        return self._hosts.setdefault((client.name, settings), _Host())

    async def _connected(self, client: SshClient, settings: HostSettings, who: Who) -> _Held:
        """A connection with room for one more session."""
        host = self._host(client, settings)
        while True:
            held = host.find()
            if held is not None:
                return held
            if any([await each.connection.settle() for each in host.held]):
                continue
            attempt = host.attempt
            joined = attempt is not None
            if attempt is None:
                attempt = self._begin(client, settings, host)
            try:
                held = await self._wait(host, attempt, who)
            except RouteError as error:
                # It failed for want of an answer, and we were not there yet when it was asked for.
                if not (
                    joined
                    and error.needs_user
                    and attempt.asker.declined
                    and who.user not in attempt.asker.asked
                ):
                    raise
            else:
                if held.has_room:
                    return held

    def _begin(self, client: SshClient, settings: HostSettings, host: _Host) -> _Attempt:
        slot = _Slot(self._slots)
        asker = Asker(slot.lent)
        task = asyncio.create_task(
            self._log_in(client, settings, asker, slot, host), name=f"login {settings}"
        )
        task.add_done_callback(_seen)
        host.attempt = _Attempt(asker, task)
        return host.attempt

    async def _wait(self, host: _Host, attempt: _Attempt, who: Who) -> _Held:
        """Share the attempt; it is given up with the last who waits."""
        attempt.asker.join(who.user, who.host)
        try:
            return await asyncio.shield(attempt.task)
        finally:
            if not attempt.asker.leave(who.user, who.host) and not attempt.task.done():
                attempt.task.cancel()
                if host.attempt is attempt:
                    host.attempt = None

    async def _log_in(
        self, client: SshClient, settings: HostSettings, asker: Asker, slot: _Slot, host: _Host
    ) -> _Held:
        via: _Held | None = None
        working: asyncio.TimerHandle | None = None
        try:
            await asyncio.sleep(max(host.not_before - asyncio.get_running_loop().time(), 0.0))
            if settings.via is not None:
                via = await self._via(client, settings.via, asker)
            await slot.take()
            working = asyncio.get_running_loop().call_later(_WORKING, slot.give_back)
            connection = await client.connect(settings, via.connection if via else None, asker)
            held = _Held(connection, via)
            held.take()  # until those who wait have taken it themselves
            asyncio.get_running_loop().call_later(1.0, held.leave, self._linger)
            via = None  # it is the connection's now
            host.worked(held)
            return held
        except RouteError as error:
            if not error.needs_user:
                host.failed(error.unreached)
            log.info("no connection to %s: %s", settings, error)
            raise
        finally:
            if working is not None:
                working.cancel()
            slot.give_back()
            if via is not None:
                via.leave(self._linger)
            if host.attempt is not None and host.attempt.asker is asker:
                host.attempt = None

    async def _via(self, client: SshClient, settings: HostSettings, asker: Asker) -> _Held:
        """The jump host's connection, which others may use too; its questions go to those who wait for ours."""
        held = await self._connected(client, settings, Who(Through(asker), ""))
        held.take()
        return held


class _Slot:
    """A place among the logins that go on at the same time."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._taken = False

    async def take(self) -> None:
        await self._slots.acquire()
        self._taken = True

    def give_back(self) -> None:
        if self._taken:
            self._taken = False
            self._slots.release()

    @contextlib.asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Somebody is being asked: it is free for others meanwhile."""
        taken = self._taken
        self.give_back()
        yield
        if taken:
            await self.take()


def _seen(task: asyncio.Task[_Held]) -> None:
    """Whoever waited has got the error; asyncio need not report it when nobody does any more."""
    if not task.cancelled():
        task.exception()


class _Release:
    """Called when a stream has ended."""

    def __init__(self, connections: Connections, held: _Held) -> None:
        self._connections = connections
        self._held: _Held | None = held

    def __call__(self, dead: bool) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._connections.released(held, dead)


_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Connections] = weakref.WeakKeyDictionary()


def shared_connections() -> Connections:
    """Those of the running loop, which is the keeper's."""
    loop = asyncio.get_running_loop()
    found = _of_loop.get(loop)
    if found is None:
        found = _of_loop[loop] = Connections()
    return found
