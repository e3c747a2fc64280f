from __future__ import annotations

import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.address import AddressError
from farkernel.launcher.configuration import ConfigurationError, UnknownTarget, load
from farkernel.launcher.targets_file import (
    add_target,
    parse_assignment,
    remove_target,
    targets_file,
    toml_key,
    toml_value,
)

KEYS = {
    "address": "slurm://login/gpu",
    "options": ["--account=abc", '--comment="x"'],
    "env": {"A": "1"},
    "resources": {"gpus": 1, "memory": "64G"},
    "share": True,
}
WRITTEN = """\
[targets.gpu]
address = "slurm://login/gpu"
options = ["--account=abc", "--comment=\\"x\\""]
env = { A = "1" }
resources = { gpus = 1, memory = "64G" }
share = true
"""


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Layers of our own; the user's is that of the test's home."""
    return {"prefix": tmp_path / "prefix", "system": tmp_path / "etc"}


def start(text: str) -> Path:
    path = targets_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def test_adds_and_removes_the_first_target(home: Path, places: dict[str, Path]) -> None:
    path = add_target("gpu", KEYS, **places)
    assert path == home / ".config/farkernel/targets.toml"
    assert path.read_text() == WRITTEN
    assert path.stat().st_mode & 0o777 == 0o600
    assert load(**places).target("gpu").options == ("--account=abc", '--comment="x"')
    assert remove_target("gpu", **places) == path
    assert path.read_text() == ""
    assert sorted(file.name for file in path.parent.iterdir()) == [".targets.lock", "targets.toml"]


def test_a_name_with_a_dot(places: dict[str, Path]) -> None:
    path = add_target("pi.1", {"address": "ssh://pi"}, **places)
    assert path.read_text() == '[targets."pi.1"]\naddress = "ssh://pi"\n'
    remove_target("pi.1", **places)
    assert path.read_text() == ""


@pytest.mark.parametrize(
    ("before", "gap"),
    [
        ("# mine\n", "\n"),
        ("# mine", "\n\n"),
        ("[keeper]\nidle = '1h'\n\n", "\n"),
        ("a.b = 1\n".replace("a.b", "defaults.warm"), "\n"),
    ],
)
def test_keeps_what_is_there(places: dict[str, Path], before: str, gap: str) -> None:
    path = start(before)
    add_target("gpu", KEYS, **places)
    assert path.read_text() == before + gap + WRITTEN


def test_ends_lines_as_the_file_does(places: dict[str, Path]) -> None:
    path = start("# mine\r\n")
    add_target("gpu", {"address": "local:"}, **places)
    assert path.read_bytes() == b'# mine\r\n\r\n[targets.gpu]\r\naddress = "local:"\r\n'


HAND_WRITTEN = """\
# About everything.

[keeper]
idle = "1h"  # for the laptop

# The big machine:
# ask Eve for an account.
[targets.gpu]
address = "ssh://gpu"
# options come here
options = [
  "[targets.cpu]",
]

[targets.gpu.env]
A = "1"

# The small one.
[targets.cpu]
address = "ssh://cpu"
before = '''
[targets.gpu]
'''
"""


def test_takes_out_a_table_with_its_comments_and_sub_tables(places: dict[str, Path]) -> None:
    path = start(HAND_WRITTEN)
    remove_target("gpu", **places)
    head, tail = (
        HAND_WRITTEN.split("# The big machine", maxsplit=1)[0],
        HAND_WRITTEN[HAND_WRITTEN.index("# The small") :],
    )
    assert path.read_text() == head + tail


def test_takes_out_the_last_table(places: dict[str, Path]) -> None:
    path = start(HAND_WRITTEN)
    remove_target("cpu", **places)
    assert path.read_text() == HAND_WRITTEN[: HAND_WRITTEN.index("\n# The small")]


def test_takes_out_dotted_keys(places: dict[str, Path]) -> None:
    path = start(
        'targets.a.address = "local:"\ntargets.b.address = "local:"\n[targets]\nc = { address = "local:" }\n'
    )
    path.write_text(
        '[targets]\na.address = "local:"\nb.address = "local:"  # b\na.warm = 1\nc = { address = "local:" }\n'
    )
    remove_target("a", **places)
    remove_target("c", **places)
    assert path.read_text() == '[targets]\nb.address = "local:"  # b\n'


def test_leaves_alone_what_it_cannot_change_safely(places: dict[str, Path]) -> None:
    text = 'targets = { a = { address = "local:" }, b = { address = "local:" } }\n'
    path = start(text)
    with pytest.raises(ConfigurationError) as raised:
        remove_target("a", **places)
    assert str(raised.value) == (
        f"{path}: the target 'a' stands there in a way that cannot be changed by program. Change the file by hand"
    )
    with pytest.raises(ConfigurationError, match="the target 'c' cannot be written into it"):
        add_target("c", {"address": "local:"}, **places)
    assert path.read_text() == text


def test_a_name_that_is_taken(places: dict[str, Path]) -> None:
    path = start("\n" + WRITTEN)
    with pytest.raises(ConfigurationError) as raised:
        add_target("gpu", KEYS, **places)
    assert str(raised.value) == (
        f"{path}:2: there is a target 'gpu' already. Take another name, or: farkernel remove gpu"
    )
    assert path.read_text() == "\n" + WRITTEN


def test_does_not_touch_what_another_layer_defines(places: dict[str, Path]) -> None:
    site = places["system"] / "farkernel/site.toml"
    site.parent.mkdir(parents=True)
    site.write_text(WRITTEN)
    with pytest.raises(ConfigurationError, match=r"site.toml:1: there is a target 'gpu' already"):
        add_target("gpu", KEYS, **places)
    path = start("[targets.gpu]\nwarm = 1\n")
    with pytest.raises(ConfigurationError) as raised:
        remove_target("gpu", **places)
    assert str(raised.value) == (
        f"{site}:1: the target 'gpu' is defined there, not in {path}. Whoever keeps that file must take it out"
    )
    assert (path.read_text(), site.read_text()) == ("[targets.gpu]\nwarm = 1\n", WRITTEN)


def test_a_target_that_is_not_there(places: dict[str, Path]) -> None:
    start(WRITTEN)
    with pytest.raises(UnknownTarget) as raised:
        remove_target("gpx", **places)
    assert str(raised.value) == "there is no target 'gpx' in the configuration. Did you mean 'gpu'?"


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("a/b", {"address": "local:"}, "'a/b' cannot be the name of a target. "),
        ("a", {}, "the new target: it has no address. Give one, such as ssh://host"),
        (
            "a",
            {"address": "local"},
            "the new target: 'address' in [targets.a] is wrong: the colon is missing in ",
        ),
        (
            "a",
            {"address": "local:", "resources": {"time": "4"}},
            "the new target: 'time' in [targets.a.resources] ",
        ),
    ],
)
def test_writes_nothing_that_is_wrong(
    places: dict[str, Path], name: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises((AddressError, ConfigurationError)) as raised:
        add_target(name, keys, **places)
    assert str(raised.value).startswith(message)
    assert not targets_file().exists()


def test_a_file_that_is_wrong_already_is_not_added_to(places: dict[str, Path]) -> None:
    path = start("a = \n")
    with pytest.raises(ConfigurationError, match="cannot be written into it: Invalid value"):
        add_target("gpu", KEYS, **places)
    assert path.read_text() == "a = \n"


def test_a_link_stays_a_link(tmp_path: Path, places: dict[str, Path]) -> None:
    dotfiles = tmp_path / "dotfiles.toml"
    dotfiles.write_text("# mine\n")
    dotfiles.chmod(0o640)
    path = targets_file()
    path.parent.mkdir(parents=True)
    path.symlink_to(dotfiles)
    add_target("gpu", KEYS, **places)
    assert path.is_symlink()
    assert dotfiles.read_text() == "# mine\n\n" + WRITTEN
    assert dotfiles.stat().st_mode & 0o777 == 0o640


def test_a_place_that_cannot_be_written(home: Path, places: dict[str, Path]) -> None:
    (home / ".config").rmdir()
    (home / ".config").write_text("")
    with pytest.raises(
        ConfigurationError, match=r"targets\.toml: cannot be written: .+\. Make the directory writable"
    ):
        add_target("gpu", KEYS, **places)


def test_many_at_once_lose_nothing(places: dict[str, Path]) -> None:
    names = [f"t{number}" for number in range(12)]
    threads = [threading.Thread(target=add_target, args=(name, KEYS), kwargs=places) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(load(**places).targets) == sorted(names)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("warm=1", ("warm",), 1),
        ("conda=torch", ("conda",), "torch"),
        ('options=["-A", "x=y"]', ("options",), ["-A", "x=y"]),
        ("before=a; b # c", ("before",), "a; b # c"),
        ("env.OMP_NUM_THREADS=8", ("env", "OMP_NUM_THREADS"), "8"),
        ('env.A="8"', ("env", "A"), "8"),
        ("resources.nodes=2", ("resources", "nodes"), 2),
        ("cwd=1\nwarm = 5", ("cwd",), "1\nwarm = 5"),
        ("container=", ("container",), ""),
    ],
)
def test_assignments(text: str, path: tuple[str, ...], value: Any) -> None:
    assert parse_assignment(text) == (path, value)


@pytest.mark.parametrize("text", ["warm", "=1", "a..b=1", ""])
def test_what_is_no_assignment(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not KEY=VALUE"):
        parse_assignment(text)


values: st.SearchStrategy[Any] = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.text(st.characters(codec="utf-8")), values)
def test_what_is_written_is_what_is_read(key: str, value: Any) -> None:
    text = f"{toml_key(key)} = {toml_value(value)}"
    assert "\n" not in text
    assert tomllib.loads(text) == {key: value}
