"""What a Grid Engine cluster has, read from what Grid Engine's commands said."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.backends.batch.contract import CannotTell, Said
from farkernel.backends.batch.sge_survey import SURVEYOR, read_hosts, read_quotas, seconds, size
from farkernel.launcher.discovery.cluster import Gpus, Limit

from .transcript import Transcript

SGE = Transcript("gridengine-8.1.9-survey")


def recorded() -> list[Said]:
    return [SGE.said(shlex.join(command.argv).partition("\n")[0]) for command in SURVEYOR.commands()]


def test_a_host_with_two_gpus_of_which_one_is_in_use() -> None:
    found = SURVEYOR.read(recorded())
    assert (found.scheduler, found.release, found.problems) == ("Grid Engine", "8.1.9", ())
    (node,) = found.nodes
    assert (node.name, node.state, node.queues, node.gpus) == (
        "c1",
        "idle",
        ("all.q", "short.q"),
        (Gpus(None, 2, 1),),
    )
    assert node.memory is not None
    assert 23 << 30 < node.memory < 24 << 30
    every, short = found.queues
    assert (every.name, every.cpus, every.cpus_free, every.gpus) == ("all.q", 2, 1, (Gpus(None, 2, 1),))
    assert (short.cpus, short.cpus_free, short.time_limit, every.time_limit) == (4, 4, 600, None)
    assert every.usable is True
    assert (short.usable, short.why) == (False, "only for the access lists staff")
    assert every.limits == (Limit("user", "gpus", 1, "quota gpus"), Limit("all", "cpus", 8, "quota gpus"))
    assert short.limits == (Limit("user", "gpus", 1, "quota gpus"),)


def test_my_jobs() -> None:
    runs, waits = SURVEYOR.read(recorded()).jobs
    assert (runs.name, runs.state, runs.node, runs.ours) == ("fk-one", "running", "c1", True)
    assert (waits.name, waits.state, waits.reason) == ("fk-two", "queued", "it waits for free slots")


@pytest.mark.parametrize(
    ("letters", "state"), [("u", "down"), ("au", "down"), ("d", "drained"), ("E", "drained")]
)
def test_an_instance_that_starts_nothing_has_nothing_free(letters: str, state: str) -> None:
    said = recorded()
    out = said[0].out.replace("'state_string'></", f"'state_string'>{letters}</")
    found = SURVEYOR.read([Said(0, out, ""), *said[1:]])
    (node,) = found.nodes
    assert (node.state, node.cpus_free, node.gpus) == (state, 0, (Gpus(None, 2, 0),))
    assert [queue.cpus_free for queue in found.queues] == [0, 0]


def test_a_group_on_an_access_list() -> None:
    said = recorded()
    said[3] = Said(0, said[3].out.replace("groups root", "groups users wheel"), "")
    assert SURVEYOR.read(said).queues[1].usable is True


def test_without_hosts_nothing_can_be_told() -> None:
    said = recorded()
    with pytest.raises(CannotTell, match="Grid Engine does not answer: error: commlib error"):
        SURVEYOR.read([Said(1, "", "error: commlib error: got select error"), *said[1:]])


def test_values() -> None:
    assert [size(text) for text in ("2.000G", "512M", "1k", "12", "x", "")] == [
        2 << 30,
        512 << 20,
        1000,
        12,
        None,
        None,
    ]
    assert [seconds(text) for text in ("0:10:0", "3600", "INFINITY", "3600,[@big=7200]", "")] == [
        600,
        3600,
        None,
        3600,
        None,
    ]


def test_quotas() -> None:
    text = "{\n name a\n enabled FALSE\n limit to slots=1\n}\n{\n   name b\n   enabled TRUE\n   limit users * queues {x,y} to gpu=4,h_vmem=8G\n}\n"
    assert list(read_quotas(text)) == [
        (("x", "y"), Limit("all", "gpus", 4, "quota b")),
        (("x", "y"), Limit("all", "memory", 8 << 30, "quota b")),
    ]


@given(st.lists(st.text(max_size=200), min_size=6, max_size=6), st.integers(0, 1))
def test_whatever_the_commands_say_is_read_or_refused(texts: list[str], status: int) -> None:
    try:
        SURVEYOR.read([Said(status, text, text) for text in [texts[0] + "</qhost>", *texts[1:]]])
    except CannotTell:
        pass


@given(st.text(alphabet="<>'/=hostqueuenamevalue 0123.G\n", max_size=300))
def test_whatever_a_host_says_is_read(text: str) -> None:
    listed = f"<host name='c1'><resourcevalue name='gpu'>{text}</host>"
    assert all(host.node.cpus is not None for host in read_hosts(listed, {}))
