"""How the hosts of a fleet are: from what the keeper says of machines and kernels to one row for each host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..discovery.machine import Machine, read_machine
from ..keeper.pool_choice import HOT
from ..text import one_line
from .record import Recorded
from .roster import Host, board_name

#: Parts of the probe that are wanted (launcher/agent/probe): what takes a Pi no time.
PARTS = ("host", "cpu", "memory", "raspberrypi")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class HostStatus:
    """One host at one moment."""

    fleet: str
    host: Host
    machine: Machine | None  # None: it could not be asked
    kernels: tuple[Row, ...] = ()  # rows of the keeper's listing
    what: str = ""
    advice: str = ""

    @property
    def state(self) -> str:
        """In one word: down, hot, throttled, up."""
        if self.machine is None:
            return "down"
        pi = self.machine.raspberrypi
        if pi is not None and pi.temperature is not None and pi.temperature >= HOT:
            return "hot"
        return "throttled" if pi is not None and pi.throttled else "up"

    def as_dict(self) -> dict[str, Any]:
        machine = self.machine or Machine()
        pi = machine.raspberrypi
        return {
            "fleet": self.fleet,
            "host": self.host.name,
            "student": self.host.student,
            "model": (pi.model if pi else None) or machine.host.model or self.host.model or None,
            "state": self.state,
            "ok": self.machine is not None,
            "what": self.what,
            "advice": self.advice,
            "temperature": pi.temperature if pi else None,
            "throttled": list(pi.throttled) if pi and pi.throttled is not None else None,
            "throttled_before": list(pi.throttled_before) if pi and pi.throttled_before is not None else None,
            "uptime": machine.uptime,
            "load": list(machine.load),
            "memory": {"total": machine.memory.total, "available": machine.memory.available},
            "users": [user.name for user in machine.users],
            "kernels": [
                {key: row.get(key) for key in ("kernel", "entry", "notebook", "state", "since", "host")}
                for row in self.kernels
            ],
        }


def statuses(
    fleets: Sequence[Recorded], probed: Mapping[str, Any], kernels: Iterable[Row]
) -> list[HostStatus]:
    """``probed``: the keeper's answer to `probe`, by target; ``kernels``: rows of `list` and `elsewhere`."""
    on: dict[str, list[Row]] = {}
    for row in kernels:
        if row.get("state") != "ended" and not row.get("spare"):
            on.setdefault(str(row.get("member") or row.get("target")), []).append(row)
    return [
        _status(fleet.name, host, probed.get(host.name), [*on.get(host.name, ()), *on.get(board_name(host.name), ())])
        for fleet in fleets
        for host in fleet.hosts
    ]  # fmt: skip


def _status(fleet: str, host: Host, answer: Any, kernels: Sequence[Row]) -> HostStatus:
    answer = answer if isinstance(answer, dict) else {}
    if answer.get("ok") and isinstance(answer.get("machine"), dict):
        return HostStatus(fleet, host, read_machine(answer["machine"]), tuple(kernels))
    what = one_line(answer.get("what") or "the keeper says nothing of it")
    return HostStatus(fleet, host, None, tuple(kernels), what, one_line(answer.get("advice") or ""))


def answering(probed: Mapping[str, Any]) -> list[str]:
    """The targets that can be asked more."""
    return [name for name, answer in probed.items() if isinstance(answer, dict) and answer.get("ok")]
