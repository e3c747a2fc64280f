"""Jobs of other releases of Slurm: submitted, waited for, entered, ended, explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..sites.batch_notebook import Notebook
from ..sites.engine import Engine, wait_until
from ..sites.netns import Network
from ..sites.slurm_releases import VERSIONS, ReleaseSlurm

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("release", VERSIONS)
def test_from_the_queue_to_the_end(release: str, home: Path, engine: Engine) -> None:
    """Their Python has no ipykernel: the agent in the job says so, and that is as far as we need to get."""
    with Network() as network:
        # A short path: sockets of slurmstepd lie in there (unix(7): 107 bytes).
        slurm = ReleaseSlurm(home.parent / "slurm", network, release)
        try:
            slurm.start()
            assert VERSIONS[release] in slurm.command("sinfo", "--version")
            through_it(slurm, engine)
            engine.close()
        finally:
            slurm.stop()


def no_ipykernel(row: dict[str, Any]) -> bool:
    return bool(row["reason"]) and "that Python has no ipykernel" in row["reason"]["text"]


def through_it(slurm: ReleaseSlurm, engine: Engine) -> None:
    address = f"slurm://root@{slurm.login.address_there}"
    config = str(slurm.login.client_config)
    engine.target("batch", address=f"{address}/closed", ssh_config=config, python="/usr/bin/python3")
    engine.entry("batch", "batch")
    queued = Notebook("batch")
    queued.ready()
    queued.client.execute("1")
    assert "the partition is down" in queued.said("is queued", 60)
    queued.close()
    wait_until(lambda: not slurm.jobs(), "the job to be cancelled")
    engine.target("batch", address=f"{address}/debug", ssh_config=config, python="/usr/bin/python3")
    running = Notebook("batch")
    wait_until(lambda: any(no_ipykernel(row) for row in engine.kernels()), "the agent's words", 120)
    (held,) = engine.client.request("list")["allocations"]
    assert held["way"] == "step"
    assert held["left"] > 0
    (job,) = slurm.jobs("RUNNING")
    assert held["job"] == job
    slurm.command("scancel", job)
    wait_until(lambda: not slurm.jobs(), "the job to end")
    running.close()
