"""The document about a cluster: its sums, its words, and what is read of it from anybody."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.discovery.cluster import (
    Cluster,
    Gpus,
    Limit,
    Most,
    MyJob,
    Node,
    Queue,
    read_cluster,
    with_nodes,
)
from farkernel.launcher.discovery.cluster_text import about_queue, free_in, gpus_text, limit_text

GIB = 1 << 30
NODES = (
    Node("a", "mixed", queues=("gpu",), cpus=8, cpus_free=2, memory=8 * GIB, memory_free=GIB, gpus=(Gpus("a100", 4, 1),)),
    Node("b", "idle", queues=("gpu", "all"), cpus=8, cpus_free=8, memory=8 * GIB, memory_free=8 * GIB,
         gpus=(Gpus("a100", 2, 2), Gpus("v100", 2, 0))),
    Node("c", "down", queues=("all",), cpus=8, cpus_free=0, gpus=(Gpus(None, 2, None),)),
)  # fmt: skip


def test_a_queue_has_the_sums_of_its_nodes() -> None:
    gpu = with_nodes(Queue("gpu"), NODES)
    assert (gpu.nodes, gpu.nodes_free, gpu.cpus, gpu.cpus_free, gpu.memory_free) == (2, 2, 16, 10, 9 * GIB)
    assert gpu.gpus == (Gpus("a100", 6, 3), Gpus("v100", 2, 0))
    assert gpu.most == Most(8, 8 * GIB, 2)
    shut = with_nodes(Queue("gpu", open=False), NODES)
    assert (shut.cpus, shut.cpus_free, shut.nodes_free, shut.most.gpus) == (16, 0, 0, 0)


def test_a_node_without_queues_serves_all() -> None:
    assert with_nodes(Queue("x"), [Node("n", cpus=2, cpus_free=1)]).cpus_free == 1
    empty = with_nodes(Queue("x"), NODES)
    assert (empty.nodes, empty.cpus, empty.gpus, empty.most) == (0, None, (), Most())


def test_gpus_in_words() -> None:
    assert gpus_text(()) == ""
    assert gpus_text((Gpus("a100", 2, 1),)) == "1 of 2 GPUs free (a100)"
    assert gpus_text((Gpus(None, 1, 1),)) == "1 of 1 GPU free"
    assert gpus_text((Gpus("a100", 4, None),)) == "4 GPUs (a100)"
    assert (
        gpus_text((Gpus("a100", 6, 3), Gpus(None, 2, 0))) == "3 of 8 GPUs free (a100 3 of 6, others 0 of 2)"
    )


def test_limits_in_words() -> None:
    assert limit_text(Limit("user", "gpus", 2, "QOS high")) == "at most 2 GPUs for you (QOS high)"
    assert limit_text(Limit("job", "nodes", 1)) == "at most 1 node in each job"
    assert limit_text(Limit("job", "time", 7200)) == "at most 2h in each job"
    assert limit_text(Limit("all", "memory", 100 * GIB)) == "at most 100 GiB of memory for all users together"
    assert limit_text(Limit("user", "a100", 1)) == "at most 1 a100 for you"


def test_what_is_free_in_a_line() -> None:
    gpu = replace(with_nodes(Queue("gpu", time_limit=7200, time_default=3600, waiting=1), NODES))
    assert free_in(gpu) == (
        "10 of 16 CPUs free; 3 of 8 GPUs free (a100 3 of 6, v100 0 of 2); "
        "8 CPUs and 2 GPUs and 8.0 GiB free on one node; up to 2h (1h if not said); 1 job waiting"
    )
    one = with_nodes(Queue("one"), [replace(NODES[0], queues=())])
    assert list(about_queue(one)) == ["1 of 4 GPUs free (a100)", "1.0 GiB of memory free"]
    assert free_in(Queue("x", open=False)) == "it starts no jobs now"


def test_the_default_queue() -> None:
    found = Cluster(queues=(Queue("a"), Queue("b", default=True)))
    assert found.queue(None) == Queue("b", default=True)
    assert found.queue("a") == Queue("a")
    assert found.queue("c") is None


def test_it_comes_through_as_it_was_sent() -> None:
    sent = Cluster(
        time=1.5, scheduler="Slurm", queues=(with_nodes(Queue("gpu"), NODES),), nodes=NODES, accounts=(),
        jobs=(MyJob("1", "fk-x", "queued", ours=True),),
    )  # fmt: skip
    assert read_cluster(json.loads(json.dumps(asdict(sent)))) == sent


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(asdict(Cluster()))), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_whatever_is_sent_gives_a_document(document: Any) -> None:
    found = read_cluster(document)
    assert all(isinstance(queue, Queue) for queue in found.queues)
    assert found.accounts is None or isinstance(found.accounts, tuple)
