"""What a roster makes, and what is found to differ."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.configuration_file import check_document
from farkernel.launcher.fleet.plan import Change, differences, wanted
from farkernel.launcher.fleet.roster import Host, Roster
from farkernel.launcher.fleet.roster_file import parse_roster
from farkernel.launcher.fleet.roster_text import as_toml

Tables = dict[str, dict[str, Any]]


def roster(text: str) -> Roster:
    return parse_roster(text.encode(), "lab.toml", lambda name: b"")


TEXT = """
[fleet]
title = "The lab"
user = "pi"
entries = ["pool", "hosts", "boards"]
[target]
env = { LESSON = "1" }
[pool]
sticky = "user"
capacity = 2
[environment]
name = "class"
[[hosts]]
host = "pi1"
student = "Ada"
board = "/dev/ttyACM0"
[[hosts]]
host = "pi2"
capacity = 4
drain = true
"""


def test_targets_a_pool_and_entries() -> None:
    made = wanted(roster(TEXT))
    assert made.targets == {
        "pi1": {"address": "ssh://pi@pi1", "kernel": "class", "env": {"LESSON": "1"}},
        "pi1-board": {"address": "serial://pi@pi1/dev/ttyACM0"},
        "pi2": {
            "address": "ssh://pi@pi2",
            "kernel": "class",
            "env": {"LESSON": "1"},
            "capacity": 4,
            "drain": True,
        },
        "lab": {"address": "pool:pi1,pi2", "sticky": "user", "capacity": 2},
    }
    assert {name: entry.display_name for name, entry in made.entries.items()} == {
        "lab": "The lab",
        "pi1": "pi1 · Ada",
        "pi1-board": "pi1 · Ada · MicroPython",
        "pi2": "pi2",
    }
    assert check_document({"targets": made.targets}, "it").problems == []


def test_a_kernel_of_its_own_goes_before_the_environment() -> None:
    made = wanted(roster(TEXT.replace("[target]\n", '[target]\nkernel = "ir"\n')))
    assert made.targets["pi1"]["kernel"] == "ir"
    assert made.entries["lab"].kernel == "ir"


def test_what_differs() -> None:
    before: Tables = {
        "a": {"address": "ssh://a"},
        "b": {"address": "ssh://b", "capacity": 1},
        "c": {"address": "ssh://c"},
    }
    after: Tables = {
        "b": {"address": "ssh://x", "env": {"A": "1"}},
        "c": {"address": "ssh://c"},
        "d": {"address": "ssh://d"},
    }
    assert list(differences(before, after, "target")) == [
        Change("change", "target", "b", "address: ssh://b → ssh://x; no capacity; env differs"),
        Change("add", "target", "d", "ssh://d"),
        Change("remove", "target", "a"),
    ]  # fmt: skip


keys = st.dictionaries(
    st.sampled_from(["address", "capacity", "x"]), st.text(max_size=3) | st.integers(0, 3), max_size=3
)
tables = st.dictionaries(st.sampled_from("abcdef"), keys, max_size=6)


@given(tables, tables)
def test_doing_what_differs_makes_them_equal(before: Tables, after: Tables) -> None:
    done: Tables = dict(before)
    for change in differences(before, after, "target"):
        assert change.detail.isprintable()
        assert (change.name in done) is (change.how != "add")
        if change.how == "remove":
            del done[change.name]
        else:
            done[change.name] = after[change.name]
    assert done == after
    assert list(differences(done, after, "target")) == []


def test_what_servers_get_makes_the_same_and_holds_no_secrets() -> None:
    text = TEXT + '[card]\npassword = "geheim"\nwifi_password = "auch geheim"\n[reset]\ndirectory = "x"\n'
    first = roster(text.replace('host = "pi1"', 'host = "pi1"\npassword = "sehr geheim"'))
    sent = as_toml(first)
    assert "geheim" not in sent
    assert wanted(roster(sent)) == wanted(first)


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"])).filter(lambda text: text.strip().isprintable())
)
def test_any_student_reaches_the_servers(student: str) -> None:
    host = Host("pi1", "pi1", student=student.strip())
    (found,) = roster(as_toml(Roster("lab", "lab.toml", (host,)))).hosts
    assert found.student == student.strip()
