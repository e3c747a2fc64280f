"""What is said of an engine, from what its head, its nodes and its launchers say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent.engines.state import State, Status, because
from farkernel.launcher.agent.engines.table import find

HEAD = [
    "distributed.scheduler - INFO -   Scheduler at:     tls://10.0.0.1:41313",
    "distributed.scheduler - INFO -   dashboard at:  http://127.0.0.1:46475/status",
]


def joining(*nodes: str) -> Status:
    status = Status(find("dask"), list(nodes), 120)
    assert [status.head_line(line) for line in HEAD] == [False, True]
    assert status.state is State.JOINING
    return status


def test_all_nodes_come() -> None:
    status = joining("a", "b")
    status.node_said("a", "up")
    assert not status.settled
    status.node_said("b", "up")
    assert status.state is State.READY
    told = status.as_dict()
    assert (told["state"], told["address"]) == ("ready", "tls://10.0.0.1:41313")
    assert told["dashboard"] == {"port": 46475, "path": "/status"}
    assert told["nodes"] == [
        {"node": "a", "state": "up", "text": ""},
        {"node": "b", "state": "up", "text": ""},
    ]


def test_one_does_not_come_in_time_and_then_does() -> None:
    status = joining("a", "b")
    status.node_said("a", "up")
    status.late()
    assert (status.state, status.text) == (State.DEGRADED, "Dask has 1 of its 2 nodes (b: not there yet)")
    status.node_said("b", "up")
    assert status.state is State.READY


def test_a_worker_dies() -> None:
    status = joining("a", "b")
    status.node_said("a", "up")
    status.node_said("b", "up")
    status.node_said("b", "ended", "it was ended by the signal SIGKILL", ["INFO all is well", "x"])
    assert status.state is State.DEGRADED
    assert status.text == "Dask has 1 of its 2 nodes (b: it was ended by the signal SIGKILL (x))"
    assert status.advice == "Restart the kernel for a whole one"


def test_one_of_several_processes_of_a_node_dies() -> None:
    status = joining("a")
    status.node_said("a", "up")
    status.node_said("a", "lost", "it ended with exit status 1")
    assert status.text == "Dask has 1 of its 1 nodes (a: it ended with exit status 1)"


def test_a_launcher_dies_and_takes_its_nodes_with_it() -> None:
    status = joining("a", "b")
    status.node_said("a", "up")
    status.launcher_ended(
        ["a", "b"], "it ended with exit status 255", ["ssh: connect to host b: No route to host"]
    )
    assert status.state is State.DEGRADED
    assert "0 of its 2 nodes" in status.text
    assert "No route to host" in status.text


def test_a_node_falls_silent_and_is_heard_again() -> None:
    status = joining("a", "b")
    status.node_said("a", "silent", "nothing has been heard of it for 30 s")
    assert not status.settled  # it is not there yet, and that is another matter
    status.node_said("a", "up")
    status.node_said("b", "up")
    status.node_said("b", "alive")
    assert status.state is State.READY
    status.node_said("b", "silent", "nothing has been heard of it for 30 s")
    assert status.text == "Dask has 1 of its 2 nodes (b: nothing has been heard of it for 30 s)"
    status.node_said("b", "alive")
    assert (status.state, status.text) == (State.READY, "")


def test_many_nodes_are_counted_and_not_listed() -> None:
    names = [f"n{number}" for number in range(9)]
    status = joining(*names)
    for name in names:
        status.node_said(name, "ended", "gone")
    assert status.text.endswith("n3: gone; and 5 more)")


def test_it_is_not_installed() -> None:
    status = Status(find("dask"), ["a"], 120)
    status.head_ended("it ended with exit status 1", ["/x/python: No module named distributed"])
    assert status.state is State.FAILED
    assert status.text == "Dask is not installed in the kernel's environment"
    assert status.advice == "Install distributed there, on all nodes, and restart the kernel"
    assert status.as_dict()["dashboard"] is None


def test_it_is_not_installed_on_one_node() -> None:
    status = joining("a", "b")
    status.node_said("a", "up")
    status.node_said("b", "ended", "it ended with exit status 1", ["python: No module named distributed"])
    assert "b: distributed is not installed there" in status.text


def test_its_head_fails() -> None:
    status = Status(find("dask"), ["a"], 120)
    status.head_ended("it ended with exit status 1", ["INFO begun", "OSError: Address already in use", "bye"])
    assert status.text == (
        "Dask could not be started: it ended with exit status 1 (OSError: Address already in use)"
    )
    status.head_ended("again", [])
    status.node_said("a", "ended", "late news")
    assert status.state is State.FAILED


def test_its_head_is_slow() -> None:
    status = Status(find("dask"), ["a"], 120, "/run/e/log")
    status.late()
    assert (status.state, status.text) == (State.FAILED, "Dask did not get ready within 120 s")
    assert status.advice == "Its log is /run/e/log on the first node; restart the kernel to try again"


def test_its_head_dies_later() -> None:
    status = joining("a")
    status.node_said("a", "up")
    status.head_ended("it was ended by the signal SIGKILL", [])
    status.node_said("a", "ended", "of no interest now")
    assert status.state is State.ENDED
    assert status.text == "Dask has ended: of its head it was ended by the signal SIGKILL"


def test_an_engine_that_counts_its_workers_itself() -> None:
    status = Status(find("ipyparallel"), ["a"], 120)
    status.head_line("Hub listening on tcp://10.0.0.1:55061 for registration.")
    assert status.head_line("Heartmonitor beating every 3000ms")
    status.node_said("a", "starting", processes=2)
    status.node_said("a", "up")
    status.head_line("registration::finished registering engine 0:abc in 5ms")
    assert not status.settled
    status.head_line("registration::finished registering engine 1:abc in 5ms")
    assert status.state is State.READY


@pytest.mark.parametrize("state", ["nonsense", "", "READY"])
def test_words_that_no_table_has_change_nothing(state: str) -> None:
    status = joining("a")
    status.node_said("a", state)
    status.node_said("unknown", "up")
    assert status.state is State.JOINING


def test_an_illegal_move_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="cannot become ready"):
        Status(find("dask"), [], 1).move(State.READY)


NEWS = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["starting", "up", "alive", "silent", "lost", "ended", "x"]),
    st.text(),
)


@given(st.lists(NEWS), st.booleans())
def test_any_order_of_news_is_legal(news: list[tuple[str, str, str]], late: bool) -> None:
    """Whatever nodes say, and however late: there is a state, and what is told of it can be told."""
    status = joining("a", "b")
    for name, state, text in news:
        status.node_said(name, state, text, [text])
    if late:
        status.late()
        assert status.settled
    assert status.as_dict()["state"] in ("joining", "ready", "degraded")


def test_the_line_that_says_most() -> None:
    assert because([]) == ""
    assert because(["one", "two"]) == " (two)"
    assert because(["Permission denied (publickey).", "bye"]) == " (Permission denied (publickey).)"
