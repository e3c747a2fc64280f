"""`farkernel fleet diff|apply --hosts`: the kernels' environment on every host of a roster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...backends.archive import errand_text
from ..errors import FarkernelError
from ..fleet.plan import Change
from ..fleet.roster import Environment, Roster
from ..text import one_line
from . import copying_over
from .asking import Asking
from .far_command import FarCommand, reach
from .fleet_servers import Answer

_AT_A_TIME = 10
_WHEELS = ".cache/farkernel/wheels"  # in the home there
_BOOT = (
    "import sys\nPROGRAM = sys.stdin.buffer.read(int(sys.argv[1])).decode()\n"
    "exec(compile(PROGRAM, 'environment', 'exec'))"
)


class NoEnvironment(FarkernelError):
    kind = "usage"

    def __init__(self, file: str) -> None:
        super().__init__(
            f"{one_line(file)} says nothing of an environment, and --hosts is given",
            "Add [environment] with its packages to the roster, or leave --hosts out",
        )


class HostFailed(FarkernelError):
    kind = "host"

    def __init__(self, why: str) -> None:
        super().__init__(
            one_line(why)[:600] or "it said nothing", "See to that on the host, and run it again"
        )


def on_hosts(action: str, roster: Roster) -> Iterator[Answer]:
    """`diff` or `apply`.  The hosts must be targets already.  Raises NoEnvironment."""
    environment = roster.environment
    if environment is None:
        raise NoEnvironment(roster.file)
    title = roster.title or environment.name
    with ThreadPoolExecutor(_AT_A_TIME) as workers:
        yield from workers.map(lambda host: _one(host.name, action, environment, title), roster.hosts)


def _one(host: str, action: str, environment: Environment, title: str) -> Answer:
    try:
        with Asking() as client:
            reach(client, host)
            order = {
                "directory": environment.directory,
                "kernels": environment.kernelspecs,
                "name": environment.name,
                "display_name": title,
                "packages": list(environment.packages),
                "wheels": None,
            }
            change = _change(host, environment, _ask(client, host, {**order, "role": "look"}))
            if change is not None and action == "apply":
                if environment.wheels is not None:
                    copying_over.copy(client, host, str(environment.wheels), _WHEELS, False, False)
                    order["wheels"] = _WHEELS
                left = _change(host, environment, _ask(client, host, {**order, "role": "make"}))
                if left is not None:
                    raise HostFailed(f"it is still not as it shall be: {left.detail}")
            return Answer(host, () if change is None else (change,))
    except FarkernelError as error:
        return Answer(host, error=error)


def _ask(client: Asking, host: str, order: dict[str, Any]) -> dict[str, Any]:
    program = errand_text("class_environment").encode()
    argv = ["{python}", "-I", "-c", _BOOT, str(len(program)), json.dumps(order)]
    command = FarCommand(client, host, argv)
    command.socket.sendall(program)
    said = command.read_all()
    status, complaint = command.ended()
    if status != 0:
        raise HostFailed(complaint)
    try:
        found = json.loads(said)
    except ValueError:
        raise HostFailed("its answer cannot be read") from None
    return found if isinstance(found, dict) else {}


def _change(host: str, environment: Environment, found: dict[str, Any]) -> Change | None:
    """What differs there; from a machine that may say anything."""
    missing = found.get("missing")
    names = (
        [one_line(each)[:80] for each in missing] if isinstance(missing, list) else list(environment.packages)
    )
    if not found.get("python"):
        return Change("add", "environment", environment.name, environment.directory, host)
    parts = [f"without {', '.join(names)}"] if names else []
    if not found.get("kernelspec"):
        parts.append("no kernelspec")
    return Change("change", "environment", environment.name, "; ".join(parts), host) if parts else None
