"""What a Slurm cluster has, read from what Slurm's commands said."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.backends.batch import slurm_survey
from farkernel.backends.batch.contract import CannotTell, Said
from farkernel.backends.batch.slurm_survey import SURVEYOR, node_state, read_gres, seconds
from farkernel.launcher.discovery.cluster import Gpus, Limit, Most

from .transcript import Transcript

SLURM = Transcript("slurm-22.05-survey")
MIB = 1 << 20


def recorded() -> list[Said]:
    return [SLURM.said(shlex.join(command.argv)) for command in SURVEYOR.commands()]


def test_a_cluster_with_two_gpus_of_which_one_is_in_use() -> None:
    found = SURVEYOR.read(recorded())
    assert (found.scheduler, found.release) == ("Slurm", "22.05.8")
    assert [queue.name for queue in found.queues] == ["debug", "gpu", "closed"]
    gpu = found.queue("gpu")
    assert gpu is not None
    assert gpu.gpus == (Gpus("a100", 2, 1),)
    assert (gpu.cpus, gpu.cpus_free, gpu.memory_free, gpu.nodes, gpu.nodes_free) == (4, 3, 1950 * MIB, 1, 1)
    assert gpu.most == Most(3, 1950 * MIB, 1)
    assert (gpu.time_limit, gpu.time_default, gpu.running, gpu.waiting) == (3600, None, 1, 1)
    default = found.queue(None)
    assert default is not None
    assert (default.name, default.cpus_free, default.time_default) == ("debug", 24, 600)
    assert [node.name for node in found.nodes if node.gpus] == ["gpu1"]
    node1 = next(node for node in found.nodes if node.name == "node1")
    assert (node1.state, node1.queues, node1.gpus) == ("idle", ("closed", "debug"), ())
    assert found.accounts is None
    assert found.problems == ()


def test_a_partition_that_is_down_has_nothing_free() -> None:
    closed = SURVEYOR.read(recorded()).queue("closed")
    assert closed is not None
    assert (closed.open, closed.why, closed.cpus, closed.cpus_free) == (False, "it is down", 8, 0)


def test_my_jobs() -> None:
    waits, runs = SURVEYOR.read(recorded()).jobs
    assert (waits.name, waits.state, waits.ours, waits.queue) == ("fk-wait-1", "queued", True, "gpu")
    assert waits.reason == "it is next, and waits for nodes to become free (Resources)"
    assert (runs.id, runs.state, runs.node, runs.ours, runs.reason) == ("1", "running", "gpu1", False, None)
    assert runs.ends is not None


def with_answer(index: int, out: str, status: int = 0) -> list[Said]:
    said = recorded()
    said[index] = Said(status, out, "" if not status else "slurm_load_jobs error: no answer")
    return said


PARTITION = (
    "PartitionName=gpu AllowGroups={} AllowAccounts={} AllowQos=ALL Default=NO QoS=part MaxNodes=2 State=UP "
    "MaxTime=1-00:00:00 DefaultTime=00:30:00 MaxCPUsPerNode=UNLIMITED\n"
)
ASSOCIATIONS = "physics||normal,high|high|10|20|1-00:00:00|gres/gpu=2|cpu=64\nchem|debug|||||||\n"
QOS = "high|2-00:00:00|4|8|cpu=32,gres/gpu:a100=2,mem=100G||\npart|||||node=1|\n"


def test_accounts_and_limits() -> None:
    said = with_answer(5, ASSOCIATIONS)
    said[6] = Said(0, QOS, "")
    said[2] = Said(0, PARTITION.format("ALL", "physics,math"), "")
    found = SURVEYOR.read(said)
    assert found.accounts is not None
    physics, chem = found.accounts
    assert (physics.name, physics.qos, chem.queue) == ("physics", ("high", "normal"), "debug")
    assert Limit("user", "jobs", 10, "physics") in physics.limits
    assert Limit("job", "time", 86400, "physics") in physics.limits
    assert Limit("job", "gpus", 2, "physics") in physics.limits
    assert Limit("user", "a100", 2, "QOS high") in physics.limits  # of the QOS that is taken if none is named
    assert Limit("user", "memory", 100 << 30, "QOS high") in physics.limits
    (queue,) = found.queues
    assert queue.usable is True
    assert queue.limits == (Limit("job", "nodes", 1, "QOS part"), Limit("job", "nodes", 2))
    assert queue.accounts == ("physics", "math")


@pytest.mark.parametrize(
    ("groups", "accounts", "why"),
    [
        ("gpuusers,staff", "ALL", "only for the groups gpuusers, staff"),
        ("ALL", "math", "only for the accounts math"),
    ],
)
def test_who_may_not_use_a_partition(groups: str, accounts: str, why: str) -> None:
    said = with_answer(5, ASSOCIATIONS)
    said[2] = Said(0, PARTITION.format(groups, accounts), "")
    (queue,) = SURVEYOR.read(said).queues
    assert (queue.usable, queue.why) == (False, why)


def test_what_could_not_be_found_out_is_named_and_the_rest_is_there() -> None:
    found = SURVEYOR.read(with_answer(4, "", 1))
    assert [(each.part, each.what) for each in found.problems] == [
        ("jobs", "slurm_load_jobs error: no answer")
    ]
    assert len(found.nodes) == 4
    found = SURVEYOR.read(with_answer(2, "", 1))
    assert {queue.name for queue in found.queues} == {"debug", "gpu", "closed"}  # as the nodes name them


def test_without_nodes_nothing_can_be_told() -> None:
    with pytest.raises(CannotTell, match="Slurm does not answer: slurm_load_jobs error: no answer"):
        SURVEYOR.read(with_answer(0, "", 1))


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("gpu:a100:2(S:0-1)", {"a100": 2}),
        ("gpu:2", {None: 2}),
        ("gpu:0", {None: 0}),
        ("gpu:a100:1(IDX:0,2),gpu:v100:4(IDX:0-3)", {"a100": 1, "v100": 4}),
        ("gpu:a100_1g.5gb:7,mps:200,shard:a100:8", {"a100_1g.5gb": 7}),
        ("gpu:1080ti:4", {"1080ti": 4}),
        ("(null)", {}),
        ("craynetwork:4,gpu:mi250:8(S:0-7)", {"mi250": 8}),
    ],
)
def test_gres(text: str, counts: dict[str | None, int]) -> None:
    assert read_gres(text) == counts


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("idle", "idle"),
        ("idle~", "idle"),
        ("mixed-", "mixed"),
        ("allocated+", "allocated"),
        ("idle*", "down"),
        ("down$", "down"),
        ("drained*", "down"),
        ("draining", "drained"),
        ("reserved", "reserved"),
        ("planned", "idle"),
        ("fail", "down"),
        ("inval", "unknown"),
    ],
)
def test_states_of_nodes(word: str, state: str) -> None:
    assert node_state(word) == state


def test_times() -> None:
    texts = ("1-12:00:00", "04:00:00", "30:00", "UNLIMITED", "")
    assert [seconds(text) for text in texts] == [129600, 14400, 1800, None, None]


@given(st.lists(st.text(max_size=200), min_size=9, max_size=9), st.integers(0, 1))
def test_whatever_the_commands_say_is_read_or_refused(texts: list[str], status: int) -> None:
    try:
        found = SURVEYOR.read([Said(status, text, text) for text in texts])
    except CannotTell:
        return
    assert all(node.name.isprintable() for node in found.nodes)


NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=10)


@given(
    st.dictionaries(NAMES, st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 10**6)), max_size=5)
)
def test_nodes_are_read_as_they_are_written(nodes: dict[str, tuple[int, int, int]]) -> None:
    lines = [
        f"{name}|main|mixed|{used}/{free}/0/{used + free}|{memory}|gpu:x:{used + free}|a,b"
        for name, (used, free, memory) in nodes.items()
    ]
    taken = [f"{name} 0 gpu:x:{used}(IDX:0) " for name, (used, _, _) in nodes.items()]
    found = {node.name: node for node in slurm_survey.read_nodes("\n".join(lines), "\n".join(taken))}
    assert found.keys() == nodes.keys()
    for name, (used, free, memory) in nodes.items():
        node = found[name]
        assert (node.cpus, node.cpus_free, node.memory_free) == (used + free, free, memory * MIB)
        assert node.gpus == (Gpus("x", used + free, free),)
