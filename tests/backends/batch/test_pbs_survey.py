"""What OpenPBS and Torque clusters have; the nodes as the real ones (23.06 and 6) describe them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.backends.batch.contract import CannotTell, Said
from farkernel.backends.batch.pbs_survey import SURVEYOR, node_blocks, node_state, number
from farkernel.backends.batch.torque_survey import SURVEYOR as TORQUE
from farkernel.backends.batch.torque_survey import free_gpus, used_slots
from farkernel.launcher.discovery.cluster import Gpus, Limit, Most

NODES = """\
c1
     Mom = c1
     state = free
     pcpus = 2
     jobs = 0.ctl/0, 1.ctl/1
     resources_available.arch = linux
     resources_available.mem = 24684096kb
     resources_available.ncpus = 4
     resources_assigned.mem = 204800kb
     resources_assigned.naccelerators = 0
     resources_assigned.ncpus = 2
     resv_enable = True
     last_state_change_time = Sat Nov 21 00:47:19 2026

c2
     Mom = c2
     state = free
     resources_available.mem = 24684096kb
     resources_available.ncpus = 4
     resources_available.ngpus = 2
     resources_available.queue_list = q_gpu,q_all
     resources_assigned.mem = 0kb
     resources_assigned.ncpus = 1
     resources_assigned.ngpus = 2

c3
     Mom = c3
     state = offline,down
     comment = disk is dead
     resources_available.ncpus = 8
     resources_assigned.ncpus = 0

"""
QUEUES = """\
Queue: workq
    queue_type = Execution
    total_jobs = 6
    state_count = Transit:0 Queued:2 Held:1 Waiting:0 Running:3 Exiting:0 Begu
\tn:0
    enabled = True
    started = True

Queue: gpu
    queue_type = Execution
    state_count = Transit:0 Queued:14 Held:0 Waiting:1 Running:10 Exiting:0
    acl_group_enable = True
    acl_groups = chiefs,staff
    resources_max.ngpus = 4
    resources_max.walltime = 336:00:00
    resources_default.walltime = 24:00:00
    default_chunk.queue_list = q_gpu
    max_run = [u:PBS_GENERIC=10]
    max_run_res.ncpus = [u:PBS_GENERIC=200], [o:PBS_ALL=1000]
    max_user_run = 7
    enabled = True
    started = False

Queue: route
    queue_type = Route
    enabled = True
    started = True

"""
JOBS = """\
Job Id: 0.ctl
    Job_Name = fk-one
    job_state = R
    queue = workq
    exec_host = c1/0
    Resource_List.walltime = 00:05:00
    resources_used.walltime = 00:01:00

Job Id: 3.ctl
    Job_Name = jk-kern
    job_state = Q
    queue = workq
    comment = Not Running: Insufficient amount of resource: ngpus (R: 2 A: 0 T:
\t 2)

"""


def said(nodes: str = NODES, queues: str = QUEUES, jobs: str = JOBS, groups: str = "users") -> list[Said]:
    return [Said(0, text, "") for text in (nodes, queues, jobs, "alice", groups)]


def test_an_openpbs_cluster() -> None:
    found = SURVEYOR.read(said())
    first, second, third = found.nodes
    assert (first.state, first.cpus, first.cpus_free, first.memory_free) == (
        "mixed",
        4,
        2,
        (24684096 - 204800) << 10,
    )
    assert (second.state, second.cpus_free, second.gpus) == ("mixed", 3, (Gpus(None, 2, 0),))
    assert (third.state, third.word, third.cpus, third.cpus_free) == ("down", "offline,down", 8, 0)
    work, gpu = found.queues  # the one that only passes jobs on is none
    assert (work.nodes, work.cpus, work.cpus_free, work.gpus) == (3, 16, 5, (Gpus(None, 2, 0),))
    assert (work.running, work.waiting, work.open, work.why, work.usable) == (3, 2, True, None, True)
    assert work.most == Most(3, 24684096 << 10, 0)
    assert (gpu.nodes, gpu.open, gpu.cpus_free) == (1, False, 0)  # it is stopped
    assert (gpu.usable, gpu.why, gpu.groups) == (
        False,
        "only for the groups chiefs, staff",
        ("chiefs", "staff"),
    )
    assert (gpu.time_limit, gpu.time_default, gpu.waiting) == (336 * 3600, 24 * 3600, 15)
    assert gpu.limits == (
        Limit("job", "gpus", 4),
        Limit("user", "jobs", 10),
        Limit("user", "cpus", 200),
        Limit("all", "cpus", 1000),
        Limit("user", "jobs", 7),
    )
    runs, waits = found.jobs
    assert (runs.name, runs.node, runs.ours, runs.state) == ("fk-one", "c1", True, "running")
    assert waits.reason == "Insufficient amount of resource: ngpus (R: 2 A: 0 T: 2)"


def test_who_is_on_the_list_may_use_the_queue() -> None:
    gpu = SURVEYOR.read(said(groups="users staff")).queues[1]
    assert (gpu.usable, gpu.why) == (True, "it starts no jobs now")


def test_the_only_queue_is_the_default() -> None:
    only = QUEUES.partition("Queue: gpu")[0]
    assert SURVEYOR.read(said(queues=only)).queue(None) is not None
    assert SURVEYOR.read(said()).queue(None) is None


def test_what_could_not_be_found_out_is_named() -> None:
    answers = said()
    answers[1] = Said(1, "", "qstat: cannot connect to server ctl (errno=111)")
    found = SURVEYOR.read(answers)
    assert [each.part for each in found.problems] == ["queues"]
    assert len(found.nodes) == 3
    with pytest.raises(CannotTell, match="PBS does not answer: pbsnodes: Server has no node list"):
        SURVEYOR.read([Said(1, "", "pbsnodes: Server has no node list"), *answers[1:]])


TORQUE_NODES = """\
c1
     state = free
     power_state = Running
     np = 4
     ntype = cluster
     properties = big,fast
     jobs = 0-1/5.ctl, 3/7.ctl
     status = opsys=linux,uname=Linux c1 6.18 x86_64,totmem=24684096kb,physmem=24684096kb,ncpus=2,state=free
     gpus = 2
     gpu_status = gpu[1]=gpu_id=0000:3;gpu_state=Unallocated;gpu_memory_total=40 MB,gpu[0]=gpu_id=0000:2;gpu_state=Exclusive

c2
     state = down
     np = 4
     ntype = cluster
     jobs = 0/3.ctl
     gpus = 2

"""
TORQUE_QUEUES = """\
Queue: batch
    queue_type = Execution
    total_jobs = 6
    state_count = Transit:0 Queued:2 Held:2 Waiting:0 Running:1 Exiting:0 Complete:1
    resources_max.walltime = 00:01:00
    resources_default.nodes = 1
    enabled = True
    started = True

"""


def test_a_torque_cluster() -> None:
    found = TORQUE.read(said(TORQUE_NODES, TORQUE_QUEUES))
    first, second = found.nodes
    assert (first.state, first.cpus, first.cpus_free, first.gpus) == ("mixed", 4, 1, (Gpus(None, 2, 1),))
    assert (first.memory, first.features) == (24684096 << 10, ("big", "fast"))
    assert (second.state, second.cpus_free, second.gpus) == ("down", 0, (Gpus(None, 2, None),))
    (batch,) = found.queues
    assert (batch.default, batch.cpus, batch.cpus_free, batch.time_limit, batch.waiting) == (
        True,
        8,
        1,
        60,
        2,
    )
    assert found.scheduler == "Torque"
    assert TORQUE.commands()[0].argv == ("pbsnodes", "-a")


def test_slots_and_gpus_of_torque() -> None:
    assert list(used_slots("0/3.ctl, 1/4.ctl")) == [0, 1]
    assert list(used_slots("0-3,5/7.ctl")) == [0, 1, 2, 3, 5]
    assert list(used_slots("")) == []
    assert free_gpus("") is None


@pytest.mark.parametrize(
    ("text", "state"),
    [("free", "idle"), ("job-exclusive", "allocated"), ("job-busy", "allocated"), ("offline", "drained"),
     ("down,job-exclusive", "down"), ("state-unknown,down", "down"), ("<various>", "unknown"), ("", "unknown")],
)  # fmt: skip
def test_states_of_nodes(text: str, state: str) -> None:
    assert node_state(text) == state


def test_amounts() -> None:
    texts = ("4", "24684096kb", "4gb", "2mw", "1024b", "lots", "")
    assert [number(text) for text in texts] == [4, 24684096 << 10, 4 << 30, 16 << 20, 1024, None, None]


@given(st.lists(st.text(max_size=300), min_size=5, max_size=5), st.integers(0, 1), st.booleans())
def test_whatever_the_commands_say_is_read_or_refused(texts: list[str], status: int, torque: bool) -> None:
    try:
        (TORQUE if torque else SURVEYOR).read([Said(status, text, text) for text in texts])
    except CannotTell:
        pass


@given(st.text(alphabet="abc \n=.,/0123456789kbfree_", max_size=300))
def test_whatever_a_node_says_is_read(text: str) -> None:
    for name, facts in node_blocks(text):
        assert SURVEYOR.node(name, facts).state
        assert TORQUE.node(name, facts).state
