"""Where an engine stands: in goes what its processes and nodes say, out come words for the kernel's user."""

import enum
import re
from typing import Any, Dict, List, Optional, Sequence

from .contract import Engine, Facts


class State(enum.Enum):
    STARTING = "starting"  # its head
    JOINING = "joining"  # its workers
    READY = "ready"
    DEGRADED = "degraded"  # it works, without some of its workers
    FAILED = "failed"  # it did not come up
    ENDED = "ended"


_MOVES = {
    State.STARTING: {State.JOINING, State.FAILED, State.ENDED},
    State.JOINING: {State.READY, State.DEGRADED, State.FAILED, State.ENDED},
    State.READY: {State.DEGRADED, State.ENDED},
    State.DEGRADED: {State.READY, State.ENDED},
    State.FAILED: {State.ENDED},
    State.ENDED: set(),
}  # type: Dict[State, Any]
_SHOWN = 4


class Status(object):
    """Of one engine."""

    def __init__(self, engine: Engine, nodes: List[str], patience: float, log: str = "") -> None:
        self.engine = engine
        self.state = State.STARTING
        self.facts: Facts = {}
        self.text = ""
        self.advice = ""
        self.nodes = {name: {"state": "starting", "text": ""} for name in nodes}
        self._patience = patience
        self._again = "Its log is %s on the first node; restart the kernel to try again" % log
        self._joined = 0
        self._expected: Dict[str, int] = {}

    def __repr__(self) -> str:
        return "<Status of %s, %s, %s>" % (self.engine.name, self.state.value, self.nodes)

    @property
    def settled(self) -> bool:
        """Whether a kernel need not wait any longer."""
        return self.state not in (State.STARTING, State.JOINING)

    @property
    def works(self) -> bool:
        return self.state in (State.JOINING, State.READY, State.DEGRADED)

    def move(self, state: State, text: str = "", advice: str = "") -> None:
        if state is self.state:
            return
        if state not in _MOVES[self.state]:
            raise AssertionError("%r cannot become %s" % (self, state.value))
        self.state, self.text, self.advice = state, text, advice

    def as_dict(self) -> Dict[str, Any]:
        """For listings and sentences; nothing secret."""
        dashboard = self.engine.dashboard(self.facts) if self.works else None
        return {
            "kind": self.engine.name,
            "title": self.engine.title,
            "connects": self.engine.connects,
            "state": self.state.value,
            "text": self.text,
            "advice": self.advice,
            "address": self.facts.get("address"),
            "dashboard": dict(dashboard._asdict()) if dashboard is not None else None,
            "nodes": [dict(facts, node=name) for name, facts in self.nodes.items()],
        }

    # what is heard

    def head_line(self, line: str) -> bool:
        """Whether the head has become ready with it."""
        if self.state is State.STARTING:
            self.engine.read(line, self.facts)
            if self.engine.ready(self.facts):
                self.move(State.JOINING)
                return True
        elif self.engine.joined and re.search(self.engine.joined, line):
            self._joined += 1
            self._count()
        return False

    def head_ended(self, how: str, said: List[str]) -> None:
        self._fell(how, said, "of its head ", (State.STARTING,))

    def workers_ended(self, how: str, said: List[str]) -> None:
        """All of them, because the one program that had started them has."""
        for each in self.nodes.values():
            each["state"] = "ended"
        self._fell(how, said, "", (State.STARTING, State.JOINING))

    def _fell(self, how: str, said: List[str], what: str, early: Sequence[State]) -> None:
        if self.state in (State.FAILED, State.ENDED):
            return
        package = self.engine.missing(said)
        if package:
            text, advice = self.engine.lack(package)
            self.move(State.FAILED, text, advice + ", and restart the kernel")
        elif self.state in early:
            text = "%s could not be started: %s%s" % (self.engine.title, how, because(said))
            self.move(State.FAILED, text, self._again)
        else:
            text = "%s has ended: %s%s%s" % (self.engine.title, what, how, because(said))
            self.move(State.ENDED, text, "Restart the kernel for a fresh one")

    def late(self) -> None:
        """The time that a head, and then the workers, are waited for is over."""
        if self.state is State.STARTING:
            self.move(
                State.FAILED,
                "%s did not get ready within %g s" % (self.engine.title, self._patience),
                self._again,
            )
        elif self.state is State.JOINING:
            self.move(State.DEGRADED, self._lack())

    def node_said(
        self, name: str, state: str, text: str = "", said: Optional[List[str]] = None, processes: int = 0
    ) -> None:
        node = self.nodes.get(name)
        if node is None or self.state is State.ENDED:
            return
        if state == "alive" and node["state"] == "silent":
            state, node["text"] = "up", ""
        if state not in ("starting", "up", "lost", "silent", "ended") or (
            state == "silent" and node["state"] != "up"
        ):
            return
        if processes:
            self._expected[name] = processes
        package = self.engine.missing(said or [])
        if package:
            text = "%s is not installed there" % package
        elif text:
            text += because(said or [])
        if state == "lost":
            state = node["state"]
        node["state"], node["text"] = state, text or node["text"]
        self._count()

    def node_names(self, names: List[str]) -> None:
        self.nodes = {name: {"state": "starting", "text": ""} for name in names}

    def launcher_ended(self, names: List[str], how: str, said: List[str]) -> None:
        """What started a program on these nodes is gone; what it had there is, or will be."""
        for name in names:
            if name in self.nodes and self.nodes[name]["state"] != "ended":
                self.node_said(name, "ended", how, said)

    def _count(self) -> None:
        if self.state not in (State.JOINING, State.READY, State.DEGRADED):
            return
        waiting = [name for name, node in self.nodes.items() if node["state"] == "starting"]
        flawed = [name for name, node in self.nodes.items() if node["state"] == "ended" or node["text"]]
        missing = bool(self.engine.joined) and not flawed and self._joined < sum(self._expected.values())
        if self.state is State.JOINING and (waiting or missing):
            return
        if waiting or flawed:
            self.text, self.advice = self._lack(), "Restart the kernel for a whole one" if flawed else ""
            self.move(State.DEGRADED, self.text, self.advice)
        else:
            self.move(State.READY)

    def _lack(self) -> str:
        total = len(self.nodes)
        up = sum(node["state"] == "up" for node in self.nodes.values())
        lost = ["%s: %s" % (name, node["text"]) for name, node in self.nodes.items() if node["text"]]
        late = [name for name, node in self.nodes.items() if node["state"] == "starting"]
        if late:
            lost.append("%s: not there yet" % ", ".join(late[:_SHOWN]))
        if len(lost) > _SHOWN:
            lost = lost[:_SHOWN] + ["and %d more" % (len(lost) - _SHOWN)]
        return "%s has %d of its %d nodes (%s)" % (self.engine.title, up, total, "; ".join(lost))


def because(said: List[str]) -> str:
    """The line that says most: the last that looks like an error, or else the last."""
    lines = [" ".join(line.split()) for line in said]
    wrong = [line for line in lines if any(word in line.lower() for word in _TELLING)]
    chosen = (wrong or lines)[-1:]
    return " (%s)" % chosen[0][:300] if chosen else ""


_TELLING = (
    "error",
    "exception",
    "cannot",
    "no such",
    "denied",
    "refused",
    "fail",
    "unable",
    "not found",
    "killed",
)
