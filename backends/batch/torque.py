"""Torque: PBS with other words (Torque Administrator Guide; qsub(1B), qstat(1B)).

Also slurm-wlm-torque, which is qsub, qstat and qdel in Perl over a Slurm: it takes the script from a file only, and
often says nothing but an exit status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .contract import Command, EndKind, JobState, Request, Said
from .pbs import KIB, STATES, Pbs, clock
from .private_file import with_script


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

    def submit(self, request: Request, script: str) -> Command:
        plain = super().submit(request, script)
        return with_script(request.name, plain.argv, script, plain.environment)

    def submitted(self, said: Said) -> str:
        # slurm-wlm-torque: what sbatch said is in quotes on stdout, after the whole command.
        words = said.out.partition("and the output was:\n")[2].strip(" '\n")
        return super().submitted(replace(said, err=words) if words else said)

    def cancelled(self, said: Said) -> None:
        # slurm-wlm-torque says nothing where the job is over, and words with every other status.
        if said.status != 1 or said.out.strip() or said.err.strip():
            super().cancelled(said)

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
