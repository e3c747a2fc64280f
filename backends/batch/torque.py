"""Torque: PBS with other words (Torque Administrator Guide; qsub(1B), qstat(1B))."""

from __future__ import annotations

from collections.abc import Mapping

from .contract import EndKind, JobState, Request
from .pbs import KIB, STATES, Pbs, clock


class Torque(Pbs):
    title = "Torque"
    # qstat -x means XML here; a job that has ended is shown for a while (keep_completed) without any option.
    history = ""
    states: Mapping[str, JobState] = {**STATES, "C": JobState.ENDED}
    # Torque Administrator Guide, "Job exit status".
    killed: Mapping[int, EndKind] = {
        -10: EndKind.OUT_OF_MEMORY,
        -11: EndKind.TIME_LIMIT,
        -12: EndKind.TIME_LIMIT,
    }

    def resources(self, request: Request) -> list[str]:
        node = [str(request.nodes or 1), f"ppn={request.cpus or 1}"]
        if request.gpus:
            node.append(f"gpus={request.gpus}")
            node += [request.gpu_type] if request.gpu_type else []
        wanted = ["nodes=" + ":".join(node)]
        wanted += [f"mem={-(-request.memory // KIB)}kb"] if request.memory is not None else []
        wanted += [f"walltime={clock(request.time)}"] if request.time is not None else []
        return ["-l", ",".join(wanted)]


ADAPTER = Torque()
