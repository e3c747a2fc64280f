"""What is free at a target, in a line."""

from __future__ import annotations

import asyncio

import pytest

from farkernel.backends.batch.backend import Engine
from farkernel.backends.batch.contract import NoSurvey
from farkernel.launcher.address import parse_address
from farkernel.launcher.configuration import Target
from farkernel.launcher.discovery.cluster import Cluster, Gpus, Node, Queue, with_nodes
from farkernel.launcher.discovery.machine import read_machine
from farkernel.launcher.keeper.elsewhere import NoSuchJob
from farkernel.launcher.keeper.free import free_in_cluster, free_on
from farkernel.launcher.keeper.user import KeeperUser

NODES = (Node("n", "mixed", queues=("gpu",), cpus=8, cpus_free=2, gpus=(Gpus("a100", 4, 1),)),)


def test_in_a_queue() -> None:
    cluster = Cluster(
        scheduler="Slurm", queues=(with_nodes(Queue("gpu"), NODES), Queue("all", default=True)), nodes=NODES
    )
    assert free_in_cluster(cluster, "gpu") == "in gpu, 2 of 8 CPUs free; 1 of 4 GPUs free (a100)"
    assert free_in_cluster(cluster, None) == ""  # nothing is known of it
    assert free_in_cluster(cluster, "gqu") == "Slurm knows no queue 'gqu'"
    assert free_in_cluster(Cluster(nodes=NODES), None) == "1 of 4 GPUs free (a100)"


def test_on_a_machine() -> None:
    gpu = {"name": "A100", "kind": "gpu", "processes": []}
    found = [gpu, {**gpu, "lease": {"user": "bob"}}, {**gpu, "mig": True}, {**gpu, "processes": [{"pid": 1}]}]
    assert free_on(read_machine({"gpus": found})) == "1 of 3 GPUs free (A100)"
    assert free_on(read_machine({})) == "no GPUs"


def test_schedulers_of_which_nothing_is_known_are_named() -> None:
    async def scenario() -> None:
        with pytest.raises(NoSurvey) as raised:
            Engine(KeeperUser()).survey(Target("q", parse_address("lsf:///normal")))
        assert str(raised.value) == (
            "what a cluster of LSF has is not known here. This version asks Slurm, PBS, Torque, Grid Engine; kernels run "
            "there all the same"
        )

    asyncio.run(scenario())


def test_a_job_that_is_not_there() -> None:
    error = NoSuchJob("fk-x", "gpu")
    assert str(error) == "there is no job fk-x of another keeper of yours at gpu. See: farkernel ps --all"
