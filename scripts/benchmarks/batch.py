"""A kernel in a batch job, against one that the job's own script starts (DESIGN §6).

A real Slurm on this machine (it needs root): from the moment at which its controller gives the job its node, and the
whole way from the click.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

from _driver import Notebook
from _site import PYTHON_KERNEL, local_spec, menu_entry, site
from _ssh_contestants import PORT_NAMES
from report import Benchmark, Contestant, finish, limit
from tests.sites.slurm import SlurmSite
from tests.sites.ssh import free_port

BY_HAND = "started by the job's own script"
OURS = "farkernel"
_GIVEN = re.compile(r"^\[(\S+)\] sched(?:/backfill: _start_job: Started| *: Allocate) JobId=", re.MULTILINE)

WHY_NOT = (
    "remote_ikernel 0.4.6 takes no part: its Slurm mode waits for the line 'srun: Node X, 1 tasks started', and srun "
    "22.05 prints another one; beyond that it ends on Python 3 with a TypeError (a colon is looked for in the "
    "bytes of the node's name)"
)


class Arena:
    """One cluster, and ways to a kernel in it."""

    def __init__(self, top: Path, slurm: SlurmSite) -> None:
        self._top = top
        self._slurm = slurm
        self._keeps: list[str] = []

    def ran(self) -> float:
        """When the last job got its node."""
        return datetime.fromisoformat(
            _GIVEN.findall((self._slurm.root / "slurmctld.log").read_text())[-1]
        ).timestamp()

    def by_hand(self) -> tuple[float, float]:
        """From sbatch, and from RUNNING, to the first result: the client knows the ports before."""
        file = self._top / f"by-hand-{uuid.uuid4().hex[:8]}.json"
        about = {
            "ip": "127.0.0.1",
            "transport": "tcp",
            "signature_scheme": "hmac-sha256",
            "key": uuid.uuid4().hex,
        }
        file.write_text(
            json.dumps({**about, **dict(zip(PORT_NAMES, (free_port() for _ in PORT_NAMES), strict=True))})
        )
        kernel = " ".join(PYTHON_KERNEL).replace("{connection_file}", str(file))
        words = ["sbatch", "--parsable", "--output=/dev/null", "--chdir=/", f"--wrap=exec {kernel}"]
        return self._first({"argv": words, "file": str(file)})

    def entry(self, name: str) -> tuple[float, float]:
        return self._first({"kernel": name})

    def _first(self, request: dict[str, object]) -> tuple[float, float]:
        began = time.time()
        notebook = Notebook(request)
        try:
            notebook.reply("6 * 7")
            now = time.time()
            return now - began, now - self.ran()
        finally:
            notebook.close()
            while self._slurm.jobs():
                time.sleep(0.1)


@contextmanager
def cluster(top: Path) -> Iterator[SlurmSite]:
    slurm = SlurmSite(top / "slurm")
    try:
        slurm.start()
        os.environ.update(slurm.environment)
        yield slurm
    finally:
        slurm.stop()


def main() -> None:
    print(WHY_NOT, flush=True)
    with site() as top, cluster(top) as slurm:
        local_spec("local", PYTHON_KERNEL)
        menu_entry("ours", "local", "slurm:///debug", 'resources = { time = "10m" }')
        arena = Arena(top, slurm)
        whole: dict[str, list[float]] = {BY_HAND: [], OURS: []}

        def running(name: str, kernel: str = "") -> float:
            click, run = arena.entry(kernel) if kernel else arena.by_hand()
            whole[name].append(click)
            return run

        run = Benchmark("from RUNNING to the first result in a Slurm job", "s", BY_HAND, rounds=7)
        ours = Contestant(OURS, lambda: running(OURS, "ours"))
        run.run([Contestant(BY_HAND, lambda: running(BY_HAND)), ours])
        hand, far = run.results[0].median, run.results[1].median
        promise = Benchmark("the same against what is promised", "s", "by hand + 1 s", rounds=1)
        promise.run(
            [Contestant("by hand + 1 s", limit(hand + 1)), Contestant(OURS, limit(far), at_most=1)], warm_up=0
        )
        click = Benchmark("the whole way, from the click", "s", BY_HAND, rounds=len(whole[OURS]))
        turns = {name: iter(whole[name]) for name in whole}
        click.run([Contestant(name, partial(next, turns[name])) for name in whole], warm_up=0)
    finish(run, promise, click)


if __name__ == "__main__":
    main()
