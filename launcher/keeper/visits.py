"""Looking at a target without a kernel of its own: `farkernel scan`, and the steps of `doctor` beyond this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from ...backends import contract, find_backend, steps_to
from ...backends.archive import errand_text
from ...backends.boot import PYTHONS, NoPython, places_text
from ...backends.contract import Stream, User
from ..configuration import Target
from ..errors import FarkernelError
from ..text import one_line
from . import engines
from .allocations import HeldAllocation
from .bringing_up import surroundings
from .kernel import Kernel
from .programs import ENGINES, with_programs
from .server import BadRequest, ClientConnection, Handler

SCAN_DEADLINE = 20.0
_DEADLINE = 30.0
_MOST_SAID = 256 * 1024


class Owner(Protocol):
    """What a visit needs of the keeper."""

    async def inquire(self, target: Target) -> None: ...
    def allocation_for(self, target: Target, kernel: str | None) -> HeldAllocation: ...


Find = Callable[[str], Target]


class NoAnswer(FarkernelError):
    kind = "no-answer"

    def __init__(self, target: str, seconds: float, why: str) -> None:
        super().__init__(
            f"{target} did not answer within {seconds:g} s{': ' + why if why else ''}",
            f"See what is in the way: farkernel doctor {target}",
        )


class OutOfReach(FarkernelError):
    """The link could not be opened; it is tried again, but not for those who do not wait."""

    kind = "out-of-reach"

    def __init__(self, target: str, why: str) -> None:
        super().__init__(
            f"{target} cannot be reached: {why}", f"See what is in the way: farkernel doctor {target}"
        )
        self.why = why


class LoginNeeded(FarkernelError):
    """The link is not tried again before somebody has done something."""

    kind = "login-needed"

    def __init__(self, why: str) -> None:
        what, _, advice = why.partition(". ")
        super().__init__(what, advice)


class StepFailed(FarkernelError):
    """A step of `doctor` found what is wrong."""

    kind = "step"


def handlers(
    owner: Owner, find: Find, user: User, find_kernel: Callable[[dict[str, Any]], Kernel]
) -> dict[str, Handler]:
    """`scan`: ``target`` → kernelspecs, environments.  `doctor`: ``target``, ``step`` → ``what``, or the error.

    `connection`: ``kernel`` → its ``connection``, for a client that wants to talk to it.  `look`: ``target`` and
    ``kernel`` (a kernelspec there, or null) → ``language``, ``display_name``, ``logos`` (base64, by name).
    """

    async def scan(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        return await look_around(owner, find(str(request.get("target"))))

    async def doctor(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        target = find(str(request.get("target")))
        if request.get("step") is None:
            return {"steps": [each.name for each in await steps_to(target, user)]}
        step = await _step(str(request["step"]), target, user)
        deadline = request.get("deadline") or _DEADLINE
        if not isinstance(deadline, int | float):
            raise BadRequest("deadline must be a number of seconds")
        try:
            async with asyncio.timeout(deadline):
                return await step(owner, target, user)
        except TimeoutError:
            raise StepFailed(f"no answer within {deadline:g} s", "Is it up, and is the network?") from None

    async def connection(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        kernel = find_kernel(request)
        kernel.local.refresh_endpoints()
        return {"connection": kernel.facts.connection, "state": kernel.facts.state}

    async def look(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        return await look_at_kernel(owner, find(str(request.get("target"))), request.get("kernel"))

    return {"scan": scan, "doctor": doctor, "connection": connection, "look": look}


# -- with the agent ----------------------------------------------------------------------------------------


class Visitor:
    """A tenant of an allocation that is no kernel: holds it while something is asked.

    Without ``patience`` it gives up when the link could not be opened twice; once may be the end of an old connection.
    """

    def __init__(self, held: HeldAllocation, patient: bool = True) -> None:
        self.held = held
        self._tries = None if patient else 2
        self.id = self.far = f"visit-{secrets.token_hex(4)}"
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def agent_fresh(self) -> None:
        """Nothing is attached."""

    def agent_event(self, event: dict[str, Any]) -> None:
        """None concerns it."""

    def link_changed(self) -> None:
        """Requests wait for the link by themselves; but not for a person who is not there."""
        if self.held.needs_user:
            self.allocation_lost(LoginNeeded(self.held.why))
        elif self._tries is not None and self.held.paused:
            self._tries -= 1
            if not self._tries:
                self.allocation_lost(OutOfReach(self.held.target, self.held.why))

    def notice(self, sentence: str) -> None:
        """It is no kernel."""

    def allocation_lost(self, error: FarkernelError) -> None:
        if not self.lost.done():
            self.lost.set_exception(error)

    def allocation_emptied(self, reason: Mapping[str, Any]) -> None:
        """What the visitor asks is asked of whatever agent there is."""

    def waiting(self, sentence: str) -> None:
        """Who asked sees that it takes its time."""


@contextlib.asynccontextmanager
async def visit(
    owner: Owner, target: Target, patient: bool = True
) -> AsyncIterator[Callable[..., Awaitable[dict[str, Any]]]]:
    """Gives what asks the agent; it raises what the agent says, or why there will be no agent."""
    await owner.inquire(target)
    held = owner.allocation_for(target, None)
    visitor = Visitor(held, patient)
    held.enter(visitor, visitor.waiting)

    async def ask(do: str, patience: float = _DEADLINE, **arguments: Any) -> dict[str, Any]:
        asking = asyncio.ensure_future(held.agent.request(do, **arguments))
        try:
            waits: list[asyncio.Future[Any]] = [asking, visitor.lost]
            await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if visitor.lost.done():
                visitor.lost.result()
            if not asking.done():
                raise NoAnswer(target.name, patience, held.why)
            return asking.result()
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, FarkernelError):
                await asking

    try:
        yield ask
    finally:
        held.leave(visitor, visitor.waiting)
        if not visitor.lost.cancel() and not visitor.lost.cancelled():
            visitor.lost.exception()  # seen, also when nothing was asked any more


async def look_around(owner: Owner, target: Target) -> dict[str, Any]:
    async with visit(owner, target) as ask:
        program = errand_text("environments")
        found = await ask("scan", SCAN_DEADLINE + _DEADLINE, deadline=SCAN_DEADLINE, program=program)
    return {name: found.get(name) for name in ("kernelspecs", "environments", "modules", "complete")}


async def look_at_kernel(owner: Owner, target: Target, kernel: object) -> dict[str, Any]:
    if kernel is not None:
        named = {"kernelspec": str(kernel)}
    else:
        named = {"python": target.python} if target.python else {"kernelspec": target.kernel or "python3"}
    async with visit(owner, target) as ask:
        found = await ask("look", **named, before=target.before, logos=True)
    return {name: found.get(name) for name in ("language", "display_name", "logos")}


async def _agent(owner: Owner, target: Target, user: User) -> dict[str, Any]:
    async with visit(owner, target) as ask:
        kernels = (await ask("list")).get("kernels") or []
    count = len(kernels)
    return {"what": "it answers; " + ("no kernels" if not count else f"{count} kernel{'s' * (count > 1)}")}


async def _kernelspec(owner: Owner, target: Target, user: User) -> dict[str, Any]:
    async with visit(owner, target) as ask:
        found = await ask("look", **surroundings(target))
    name = found.get("display_name") or target.python or target.kernel
    return {"what": f"{name}, in {found['directory']}" if found.get("directory") else str(name)}


async def _engine(owner: Owner, target: Target, user: User) -> dict[str, Any]:
    """Whether it is installed in the kernel's environment; on a cluster, as far as the login host has that."""
    cluster = await engines.wanted(target)
    async with visit(owner, target) as ask:
        found = await with_programs(
            ask, "look", ENGINES, patience=_DEADLINE, **surroundings(target), **cluster
        )
    if found.get("problem"):
        advice = one_line(found.get("advice") or "")[:300] or "Run it there by hand, and see what it says"
        raise StepFailed(one_line(found["problem"])[:300], advice)
    count = cluster["cluster"]["nodes"] if cluster else 0
    return {"what": f"{one_line(found.get('installed') or '')[:100]}, across {count} node{'s' * (count > 1)}"}


# -- with a shell ------------------------------------------------------------------------------------------


class Said:
    """Collects what a command says, until its end."""

    def __init__(self) -> None:
        self.data = b""
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data = (self.data + data)[:_MOST_SAID]
        if len(self.data) == _MOST_SAID and not self.over.done():
            self.over.set_result("it prints without end")

    def writable(self) -> None:
        """All goes out at once."""

    def closed(self, said: str) -> None:
        if not self.over.done():
            self.over.set_result(said)


async def run(target: Target, user: User, script: str) -> tuple[str, str, str]:
    """Run a script by the target's route; what it said after our mark, before it, and on stderr."""
    route = find_backend(target.address.scheme).door(target, user)
    said = Said()
    mark = secrets.token_hex(16)
    stream: Stream | None = None
    try:
        stream = await route.open(("/bin/sh", "-s"), said)
        stream.write([f"echo {mark}\n{script}\nexit\n".encode()])
        complaint = await said.over
    finally:
        if stream is not None:
            stream.close()
    before, found, after = said.data.decode("utf-8", "replace").partition(mark + "\n")
    if not found:
        what = complaint.splitlines()[-1] if complaint else before.strip()[-200:] or "it said nothing"
        raise StepFailed(f"no shell runs there: {what}", "Log in by hand, and see what it says")
    return after, before, complaint


async def _route(owner: Owner, target: Target, user: User) -> dict[str, Any]:
    route = find_backend(target.address.scheme).door(target, user)
    said = Said()
    stream = await route.open(("/bin/sh", "-c", "echo here"), said)
    try:
        complaint = await said.over
    finally:
        stream.close()
    if not said.data:
        raise StepFailed(complaint or "it ran nothing", "Log in by hand, and see what it says")
    return {"what": f"{target.address} opens"}


async def _shell(owner: Owner, target: Target, user: User) -> dict[str, Any]:
    after, before, _ = await run(target, user, 'echo "${SHELL:-/bin/sh}"; uname -nsr')
    shell, _, system = after.strip().partition("\n")
    what = f"{shell} on {system}" if system else shell
    if before.strip():
        what += f"; start-up files print {len(before)} characters, which are skipped"
    return {"what": what}


_FIND_PYTHON = """\
for python in {pythons}; do
  path=$(command -v "$python" 2>/dev/null) || continue
  "$path" -c 'import sys
if sys.version_info < (3, 6): sys.exit(1)
import ctypes, mmap, zlib' >/dev/null 2>&1 || {{ tried="$tried $path"; continue; }}
  echo "found $path"
  "$path" -c {program}
  exit
done
echo "none $tried"
"""
_VERSION = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
_HOME = """
import errno, json, os, subprocess
home = os.path.expanduser("~")
found = {"home": home, "free": 0}
try:
    space = os.statvfs(home)
    found["free"] = space.f_bavail * space.f_frsize
    name = os.path.join(home, ".farkernel-doctor-%d" % os.getpid())
    try:
        with open(name, "wb") as stream:
            stream.write(b"x" * (1 << 20))
            stream.flush()
            os.fsync(stream.fileno())
    finally:
        if os.path.exists(name):
            os.unlink(name)
except OSError as error:
    found["failure"] = errno.errorcode.get(error.errno, str(error))
try:
    said = subprocess.check_output(["quota", "-s"], stderr=subprocess.DEVNULL, timeout=5).decode("utf-8", "replace")
    over = [line.split()[0] for line in said.splitlines()[2:] if "*" in line]
    if over:
        found["quota"] = "over its quota: " + ", ".join(over)
except Exception:
    pass
print(json.dumps(found))
"""
_PLACE = """
import json, os
try:
    place = private_directory()
    space = os.statvfs(place)
    print(json.dumps({"place": place, "free": space.f_bavail * space.f_frsize}))
except PlaceError as error:
    print(json.dumps({"what": error.what, "advice": error.advice}))
"""


async def _with_python(target: Target, user: User, program: str) -> tuple[str, str]:
    """The Python that the agent would run with, and what the program says in it."""
    pythons = " ".join(map(shlex.quote, target.agent_python or PYTHONS))
    script = _FIND_PYTHON.format(pythons=pythons, program=shlex.quote(program))
    after, _, complaint = await run(target, user, script)
    first, _, rest = after.partition("\n")
    word, _, text = first.partition(" ")
    if word != "found":
        raise NoPython(target.agent_python or PYTHONS, one_line(text)[:1000])
    if not rest.strip():
        raise StepFailed(f"{text} fails: {complaint[-200:]}", "Run it there by hand, and see what it says")
    return text, rest.strip()


async def _python(owner: Owner, target: Target, user: User) -> dict[str, Any]:
    path, version = await _with_python(target, user, _VERSION)
    return {"what": f"{path}, version {version}"}


async def _disk(owner: Owner, target: Target, user: User) -> dict[str, Any]:
    """The home there: its room, and whether a file can be written, which quotas and read-only mounts forbid."""
    _, said = await _with_python(target, user, _HOME)
    try:
        found = json.loads(said.splitlines()[-1])
        home, free = str(found["home"]), int(found["free"])
    except (ValueError, KeyError, TypeError):
        raise StepFailed(f"unreadable answer: {said[-200:]}", "Run that Python there by hand") from None
    what = f"{home}, {free / 1e9:.1f} GB free"
    if found.get("quota"):
        what += f"; {one_line(found['quota'])[:200]}"
    failure = found.get("failure")
    if failure == "EROFS":
        return {"what": f"{what}; it is read-only, which kernels can live with"}
    if failure in ("ENOSPC", "EDQUOT"):
        why = "the quota is used up" if failure == "EDQUOT" else "the disk is full"
        raise StepFailed(f"{home}: {why}", "Make room there; many kernels need to write into their home")
    if failure:
        raise StepFailed(f"{home} cannot be written: {failure}", "See who owns it, and its mode")
    return {"what": what}


async def _run_directory(owner: Owner, target: Target, user: User) -> dict[str, Any]:
    _, said = await _with_python(target, user, places_text() + _PLACE)
    try:
        found = json.loads(said.splitlines()[-1])
        if "what" in found:
            raise StepFailed(str(found["what"]), str(found["advice"]))
        place, free = str(found["place"]), int(found["free"])
    except (ValueError, KeyError, TypeError):
        raise StepFailed(f"unreadable answer: {said[-200:]}", "Run that Python there by hand") from None
    if free < 64 * 1024 * 1024:
        advice = "Make room there, or set FARKERNEL_RUN_DIR to a directory on another local disk"
        raise StepFailed(f"{place} has only {free / 1e6:.0f} MB free", advice)
    return {"what": f"{place}, {free / 1e9:.1f} GB free"}


Step = Callable[[Owner, Target, User], Awaitable[dict[str, Any]]]


async def _step(name: str, target: Target, user: User) -> Step:
    """One of ours, or one of the backend's, which are called "backend:NAME"."""
    if name in STEPS:
        return STEPS[name]
    for each in await steps_to(target, user):
        if name == f"backend:{each.name}":
            return partial(_backend_step, each)
    raise BadRequest(f"there is no step {name[:40]!r}")


async def _backend_step(step: contract.Step, owner: Owner, target: Target, user: User) -> dict[str, Any]:
    return {"what": await step.take()}


STEPS: dict[str, Step] = {
    "route": _route,
    "shell": _shell,
    "python": _python,
    "disk": _disk,
    "run-directory": _run_directory,
    "agent": _agent,
    "kernelspec": _kernelspec,
    "engine": _engine,
}
