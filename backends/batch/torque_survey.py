"""Torque: the same commands as PBS, with other attributes of nodes (Torque Administrator Guide, pbsnodes(8B))."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ...launcher.discovery.cluster import Gpus, Node
from ...launcher.text import one_line
from .pbs_survey import PbsSurveyor, fitted, node_state, number
from .torque import ADAPTER


class TorqueSurveyor(PbsSurveyor):
    """See `survey.Surveyor`."""

    adapter = ADAPTER
    vnodes = ("pbsnodes", "-a")

    def node(self, name: str, facts: Mapping[str, str]) -> Node:
        """``np`` slots, of which each job in ``jobs`` has some."""
        slots, state = number(facts.get("np", "")), node_state(facts.get("state", ""))
        used = sum(1 for _ in used_slots(facts.get("jobs", "")))
        left = None if slots is None else max(slots - used, 0)
        if state == "idle" and used and left is not None:
            state = "mixed" if left else "allocated"
        status = dict(part.partition("=")[::2] for part in facts.get("status", "").split(","))
        gpus, free = number(facts.get("gpus", "")), free_gpus(facts.get("gpu_status", ""))
        return fitted(
            Node(
                name=one_line(name),
                state=state,
                word=one_line(facts.get("state", "")) or None,
                cpus=slots,
                cpus_free=left,
                memory=number(status.get("physmem", "")),
                gpus=(Gpus(None, gpus, free),) if gpus else (),
                features=tuple(map(one_line, filter(None, facts.get("properties", "").split(",")))),
            )
        )


def used_slots(text: str) -> Iterator[int]:
    """``0/3.ctl, 1/4.ctl``, or in ranges as later releases write them: ``0-3,5/7.ctl``."""
    for slots in re.findall(r"([0-9][0-9,-]*)/", text, re.ASCII):
        for part in slots.split(","):
            match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part, re.ASCII)
            if match:
                yield from range(int(match[1]), min(int(match[2] or match[1]), int(match[1]) + 10_000) + 1)


def free_gpus(text: str) -> int | None:
    """Of ``gpu[0]=gpu_id=…;gpu_state=Unallocated;…,gpu[1]=…``; None where the server does not watch them."""
    states = re.findall(r"gpu_state=(\w+)", text)
    return sum(state.lower() == "unallocated" for state in states) if states else None


SURVEYOR = TorqueSurveyor()
