from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.paths import jupyter_data_dir, jupyter_path

from farkernel.kernelspecs import entries, logos
from farkernel.launcher.errors import FarkernelError

SPEC = entries.build("lab", "Lab", "python", {"target": "lab"})


def data() -> str:
    return entries.data_directory("user")


def test_the_content_of_kernel_json() -> None:
    assert entries.build("Lab", "The lab", "python", {"target": "lab", "kernel": "python3"}) == {
        "argv": [sys.executable, "-P", "-m", "farkernel", "launch", "lab", "-f", "{connection_file}"],
        "display_name": "The lab",
        "language": "python",
        "interrupt_mode": "signal",
        "env": {},
        "metadata": {
            "kernel_provisioner": {
                "provisioner_name": "farkernel",
                "config": {"target": "lab", "kernel": "python3"},
            },
            "supported_encryption": ["curve"],
            "debugger": True,
        },
    }
    assert "debugger" not in entries.build("lab", "Lab", "R", {})["metadata"]


def test_jupyter_finds_what_was_installed() -> None:
    entries.install("lab", SPEC, data(), logos.files("host", "python", {}))
    spec = KernelSpecManager().get_kernel_spec("lab")
    assert (spec.display_name, spec.language, spec.argv) == ("Lab", "python", SPEC["argv"])
    assert sorted(os.listdir(spec.resource_dir)) == [
        "kernel.json",
        "logo-32x32.png",
        "logo-64x64.png",
        "logo-svg.svg",
    ]


def test_our_places_are_jupyters(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert entries.user_data_directory() == jupyter_data_dir()
    assert entries.data_directories() == jupyter_path()
    monkeypatch.delenv("JUPYTER_DATA_DIR")
    monkeypatch.setenv("JUPYTER_PATH", f"{home}/a:{home}/b")
    assert entries.data_directories() == jupyter_path()
    monkeypatch.delenv("XDG_DATA_HOME")
    assert entries.user_data_directory() == jupyter_data_dir()


def test_find_is_as_jupyter_finds(home: Path) -> None:
    entries.install("Lab", SPEC, data(), {})
    found = entries.find("LAB")
    assert found is not None
    assert (found.name, found.display_name, found.settings) == ("lab", "Lab", {"target": "lab"})
    assert entries.find("other") is None
    assert entries.find("../lab") is None


def test_what_is_not_ours_is_left_alone(home: Path) -> None:
    theirs = Path(data(), "kernels", "python3")
    theirs.mkdir(parents=True)
    (theirs / "kernel.json").write_text(
        json.dumps({"argv": ["python"], "display_name": "P", "language": "p"})
    )
    assert entries.find("python3") is None
    assert list(entries.installed()) == []
    with pytest.raises(entries.EntryOccupied, match=r"is not ours\. Choose another name .* --as"):
        entries.install("python3", SPEC, data(), {})
    with pytest.raises(entries.EntryNotFound):
        entries.uninstall("python3")
    assert (theirs / "kernel.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"metadata": 1}', "\udcff"])
def test_a_spoilt_kernel_json_is_none_of_ours(content: str) -> None:
    broken = Path(data(), "kernels", "lab")
    broken.mkdir(parents=True)
    (broken / "kernel.json").write_text(content, errors="surrogateescape")
    assert entries.find("lab") is None
    assert list(entries.installed()) == []


def test_installing_again_replaces() -> None:
    entries.install("lab", SPEC, data(), {"logo-svg.svg": b"old"})
    entries.install("lab", entries.build("lab", "New", "R", {"target": "lab"}), data(), {})
    assert os.listdir(Path(data(), "kernels", "lab")) == ["kernel.json"]
    found = entries.find("lab")
    assert found is not None
    assert found.display_name == "New"
    assert os.listdir(data()) == ["kernels"]  # nothing half made is left


def test_a_reader_never_sees_half_an_entry() -> None:
    pictures = logos.files("board", "python", {})
    entries.install("lab", SPEC, data(), pictures)
    stop = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            found = entries.find("lab")
            seen.add("none" if found is None else found.display_name)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        entries.install("lab", SPEC, data(), pictures)
    stop.set()
    reader.join()
    assert seen <= {"Lab", "none"}


def test_uninstalling() -> None:
    directory = entries.install("lab", SPEC, data(), logos.files("local", "python", {}))
    assert entries.uninstall("LAB") == [directory]
    assert not os.path.exists(directory)
    with pytest.raises(
        entries.EntryNotFound, match=r"no menu entry 'lab' of ours is installed\. See `farkernel list`"
    ):
        entries.uninstall("lab")


def outcomes(work: Callable[[], object]) -> list[str]:
    """What comes of it, eight times at the same time and 25 times over: the kind of error, or `done`."""

    def once(start: threading.Barrier) -> list[str]:
        said: list[str] = []
        for _ in range(25):
            start.wait()
            try:
                work()
                said.append("done")
            except FarkernelError as error:
                said.append(error.kind)
        return said

    start = threading.Barrier(8)
    with ThreadPoolExecutor(8) as threads:
        return [each for result in threads.map(once, [start] * 8) for each in result]


def test_many_put_the_same_entry_there_at_the_same_time() -> None:
    pictures = logos.files("local", "python", {})
    assert set(outcomes(lambda: entries.install("lab", SPEC, data(), pictures))) == {"done"}
    assert [entry.name for entry in entries.installed()] == ["lab"]
    assert os.listdir(data()) == ["kernels"]


def test_many_take_the_same_entry_away_while_others_put_it_there() -> None:
    """Who comes too late is told that there is none."""
    turns = itertools.count()

    def either() -> None:
        if next(turns) % 2:
            entries.uninstall("lab")
        else:
            entries.install("lab", SPEC, data(), {})

    assert set(outcomes(either)) <= {"done", "no-such-entry"}
    assert os.listdir(data()) == ["kernels"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "share").write_text("a file, not a directory")
    with pytest.raises(entries.EntryNotWritable, match="Choose a place that you can write"):
        entries.install("lab", SPEC, entries.data_directory("user", str(tmp_path)), {})


@pytest.mark.parametrize("name", ["", ".lab", "../lab", "a b", "ä", "lab/", "a" * 101, "-f", "lab\n"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(entries.BadEntryName):
        entries.install(name, SPEC, data(), {})


@given(st.text(max_size=120))
def test_any_name_is_one_path_component_or_refused(name: str) -> None:
    try:
        checked = entries.check_name(name)
    except entries.BadEntryName:
        return
    assert os.path.basename(checked) == checked
    assert checked not in (".", "..")


@pytest.mark.parametrize(
    ("kernel", "language"),
    [
        (None, "python"),
        ("python3", "python"),
        ("ir", "R"),
        ("julia-1.11", "julia"),
        ("bash", "bash"),
        ("gap", "gap"),
    ],
)
def test_guessing_the_language(kernel: str | None, language: str) -> None:
    assert entries.guess_language(kernel) == language


def test_display_names() -> None:
    assert entries.default_display_name("gpu", None) == "gpu · Python"
    assert entries.default_display_name("gpu", "ir") == "gpu · ir"
