"""A kernel as it is written down and listed."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field
from typing import Any

from ..errors import FarkernelError
from ..text import clean


class KernelState(enum.Enum):
    """Where a kernel stands (docs/architecture.md §7)."""

    WAITING = "waiting"
    STARTING = "starting"
    LIVE = "live"
    ENDED = "ended"


# From each state, where it may go.  WAITING again after ENDED or LIVE is a restart.
MOVES = {
    KernelState.WAITING: {KernelState.WAITING, KernelState.STARTING, KernelState.ENDED},
    KernelState.STARTING: {KernelState.WAITING, KernelState.LIVE, KernelState.ENDED},
    KernelState.LIVE: {KernelState.WAITING, KernelState.ENDED},
    KernelState.ENDED: {KernelState.WAITING},
}


class IllegalMove(Exception):
    """A defect of ours: a kernel was told to go where it cannot go."""

    def __init__(self, kernel: str, old: KernelState, new: KernelState) -> None:
        super().__init__(f"kernel {kernel} cannot go from {old.value} to {new.value}")


class KernelGone(FarkernelError):
    """A kernel that ran there when the link was cut is not known there any more."""

    kind = "gone"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"the kernel is gone: {host} knows nothing of it any more, as when that machine was restarted while it "
            "could not be reached. What the kernel had in memory is lost",
            "Restart the kernel for a fresh one",
        )


@dataclass
class Facts:
    """What must be known to find a kernel again; saved before it is acted on."""

    kernel: str
    entry: str
    settings: dict[str, Any]
    connection: dict[str, Any]
    far_key: str
    given: bool = False  # the connection file was handed to us, not made by us
    cwd: str = ""
    env: dict[str, str] = field(default_factory=dict)
    notebook: str = ""
    front: str = "provisioner"
    life: int = 1
    session: str = ""
    state: str = KernelState.WAITING.value
    reason: dict[str, Any] | None = None
    created: float = field(default_factory=time.time)
    since: float = field(default_factory=time.time)
    interrupt: str = "signal"
    target: str = ""
    member: str = ""  # which of its targets, if that is a pool
    allocation: str = ""
    note: str = ""  # for the next cell
    said: str = ""  # the note that a cell has shown
    started: bool = False  # this life's start was asked of the agent
    far: str = ""  # what the agent calls it, when another keeper named it; else it has one name
    lives_before: int = 0  # lives that it had under other keepers
    left: dict[str, str] = field(
        default_factory=dict
    )  # member, out of reach, where it was given up → its name there
    base: dict[str, int] = field(
        default_factory=dict
    )  # numbers of its messages before its present agent counted
    owed: bool = False  # it was given up while out of reach: the agent must still be told to stop it
    answers: dict[str, Any] = field(default_factory=dict)  # what was asked for at the first cell (`ask`)
    asked: bool = False  # that was done, for the allocation that it has now
    detached: bool = False  # its front end went away and wants it to live on
    devices: list[dict[str, Any]] = field(default_factory=list)  # GPUs that the agent leased for it
    engine: dict[str, Any] | None = None  # across several nodes: what it said of itself (`engines.read`)

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Facts:
        """Raises `TypeError` when the dict is not one of ours."""
        return cls(**{name: facts[name] for name in cls.__dataclass_fields__ if name in facts})

    def wanted(self) -> dict[str, Any]:
        """The menu entry's settings with what its user answered: what `Configuration.resolve` takes."""
        settings = self.settings or {"target": self.entry}
        if not self.answers:
            return settings
        resources = settings.get("resources")
        return {
            **settings,
            "resources": {**(resources if isinstance(resources, dict) else {}), **self.answers},
        }

    @property
    def far_name(self) -> str:
        return self.far or self.kernel

    @property
    def far_life(self) -> int:
        return self.life + self.lives_before

    def row(self) -> dict[str, Any]:
        """For listings: nothing secret."""
        return {
            "kernel": self.kernel,
            "entry": self.entry,
            "target": self.target,
            "member": self.member,
            "allocation": self.allocation,
            "state": self.state,
            "reason": self.reason,
            "life": self.life,
            "notebook": self.notebook,
            "devices": self.devices,
            "answers": self.answers,
            "engine": self.engine,
            "created": self.created,
            "since": self.since,
        }


def reason_from_agent(said: Any) -> dict[str, Any]:
    """An agent's reason, in its form whatever was sent; it goes into notebooks and onto terminals."""
    told = said if isinstance(said, dict) else {"kind": "unknown", "text": "the kernel has ended"}
    words = {name: clean(told.get(name) or "", keep="\n\t")[:20_000] for name in ("kind", "text", "tail")}
    numbers = {name: told.get(name) for name in ("status", "signum")}
    return {**words, **{name: each if isinstance(each, int) else None for name, each in numbers.items()}}


def reason_from_error(error: dict[str, str]) -> dict[str, Any]:
    """The reason of a kernel that could not come up, in the shape that agents use (docs/architecture.md §4)."""
    what, advice = error.get("what", ""), error.get("advice", "")
    return {
        "kind": "failed",
        "text": f"{what.rstrip('.')}. {advice}".strip(),
        "tail": "",
        "error": error.get("kind", "error"),
    }
