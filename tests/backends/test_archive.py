"""The agent's program: the same bytes each time, small, and runnable; the loader's text, for old Pythons too."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from farkernel.backends.archive import (
    PACKAGE,
    PROBE_PACKAGE,
    build_archive,
    build_nvml,
    build_probe,
    loader_text,
    stored_archive,
    strip,
)
from farkernel.launcher import agent
from farkernel.launcher.cli import flash_far

# The oldest that agents run on, where there is one, and ours.
OLDEST = [
    sys.executable,
    *map(str, sorted((Path.home() / ".pyenv" / "versions").glob("3.6.*/bin/python"))),
]
OLD_PYTHONS = sorted((Path.home() / ".pyenv" / "versions").glob("2.7.*/bin/python"))


def test_it_is_small_and_named_by_its_content(capsys: pytest.CaptureFixture[str]) -> None:
    archive = build_archive()
    with capsys.disabled():
        print(f"\nthe agent's archive: {archive.size} bytes", end=" ")
    assert (
        archive.size == len(archive.content) < 104 * 1024
    )  # two seconds of a line with 400 kbit/s, once for each host
    assert archive.sha256 == hashlib.sha256(archive.content).hexdigest()


def test_the_probe_is_another_one_and_small(capsys: pytest.CaptureFixture[str]) -> None:
    """It goes to machines that are looked at, and what asks NVIDIA's driver only to those that have one."""
    probe, nvml = build_probe(), build_nvml()
    with capsys.disabled():
        print(f"\nthe probe's archive: {probe.size} bytes; with NVIDIA's driver {nvml.size} more", end=" ")
    assert probe.size < 32 * 1024
    assert nvml.size < 96 * 1024
    with zipfile.ZipFile(io.BytesIO(probe.content)) as archive:
        assert {f"{PROBE_PACKAGE}/{name}.py" for name in ("__main__", "nvidia", "opencl", "choice")} <= set(
            archive.namelist()
        )
    with zipfile.ZipFile(io.BytesIO(nvml.content)) as archive:
        assert archive.namelist() == ["pynvml.py"]
        assert b"Redistribution and use in source and binary forms" in archive.read("pynvml.py")
    with zipfile.ZipFile(io.BytesIO(build_archive().content)) as archive:
        assert not [name for name in archive.namelist() if "nvidia" in name]


def test_it_is_the_same_in_another_process() -> None:
    program = "from farkernel.backends.archive import build_archive; print(build_archive().sha256)"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    assert done.stdout.strip() == build_archive().sha256


def test_it_is_stored_and_checked(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    (directory / "agent-of-another-version").parent.mkdir()
    (directory / "agent-of-another-version").touch()
    for _ in range(2):
        assert stored_archive(directory) == build_archive()
    (file,) = directory.iterdir()
    with file.open("r+b") as stream:
        stream.truncate(1000)  # as a full disk or a cut may leave it
    assert stored_archive(directory) == build_archive()
    assert file.stat().st_size == 64 + build_archive().size


def test_a_place_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert stored_archive(tmp_path / "file" / "cache") == build_archive()


def test_it_holds_the_agent_and_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(build_archive().content)) as archive:
        names = archive.namelist()
    assert names[0] == "__main__.py"
    assert {
        f"{PACKAGE}/{name}.py"
        for name in ("__init__", "__main__", "worker", "guard", "link", "zmtp", "places")
    } <= set(names)
    assert f"{PACKAGE}/loader.py" not in names
    assert all(name == "__main__.py" or name.startswith(PACKAGE + "/") for name in names)


def test_an_errand_has_the_modules_that_it_imports() -> None:
    """In one file, where no name of one stands for another's."""
    text = flash_far.program().decode()
    tree = ast.parse(text)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    assert sorted(names) == sorted(set(names))
    for python in OLDEST:
        done = subprocess.run([python, "-I", "-c", text], input=b"", capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_what_is_stripped_are_comments_and_docstrings() -> None:
    source = (
        '"""Module."""\n# why\nx = "# not a comment"  # but this\n\n\ndef f():\n'
        '    """One.\n\n    Two.\n    """\n    return 1\n\n\nclass C:\n    """Alone."""\n'
    )
    assert strip(source) == (
        '\n\nx = "# not a comment"\n\n\ndef f():\n\n\n\n\n    return 1\n\n\nclass C:\n    ""\n'
    )


def test_stripped_files_do_the_same() -> None:
    for path in Path(agent.__path__[0]).rglob("*.py"):
        source = path.read_text("utf-8")
        assert code_of(strip(source)) == code_of(source), path.name


def code_of(source: str) -> str:
    """The syntax tree with its lines, docstrings apart: without them, or one that is empty where there is nothing else."""
    tree = ast.parse(source)
    blocks = [
        value for node in ast.walk(tree) for _, value in ast.iter_fields(node) if isinstance(value, list)
    ]
    for block in blocks:
        strings = [
            node for node in block if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ]
        for node in strings:
            node.value = ast.Constant("")
            node.end_lineno = node.end_col_offset = None
        if strings:
            block[:] = [node for node in block if node not in strings] or strings[:1]
    return "".join(f"{getattr(node, 'lineno', '')} {ast.dump(node)}" for node in tree.body)


LATER = ("difflib", "shutil", "subprocess", "tempfile", "traceback")
NEVER = ("argparse", "ctypes", "site", "zipfile")  # or only in a job, for an engine …


def test_what_an_agent_does_not_need_at_once_is_imported_later(tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    path.write_bytes(build_archive().content)
    seen = f"print(*(name for name in {LATER + NEVER!r} if name in sys.modules))"
    code = f"import sys; sys.path.insert(0, {str(path)!r}); from {PACKAGE} import __main__, worker; {seen}; worker._import_rest(); {seen}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"\n{' '.join(LATER)}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["run"],
        ["serve"],
        ["serve", "--directory"],
        ["serve", "--directory", "/d", "--allocation", "a"],
        ["serve", "--directory", "/d", "--directory", "/d"],
        ["serve", "--directory", "/d", "--ready-fd", "x"],
        ["serve", "--directory", "/d", "--port", "1"],
    ],
)
def test_words_that_make_no_sense_get_the_usage(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    path.write_bytes(build_archive().content)
    command = [sys.executable, "-I", "-S", str(path), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: farkernel-agent serve (--directory DIRECTORY | --allocation NAME)")


def test_the_loader_is_one_program_of_ascii_that_fits_into_a_variable() -> None:
    text = loader_text()
    compile(text, "loader", "exec")
    assert text.isascii()
    assert "from ." not in text
    assert len(text) < 96 * 1024  # execve takes 128 KiB in one string (MAX_ARG_STRLEN)


@pytest.mark.parametrize("python", OLD_PYTHONS, ids=str)
def test_an_old_python_says_so(python: Path) -> None:
    done = subprocess.run(
        [python, "-c", loader_text()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert (done.returncode, done.stdout) == (99, b"")


def test_site_is_asked_where_the_standard_library_is_not_found_without_it() -> None:
    """A virtualenv of before 2020, started with -S: here with a `site` that knows where `socket` is, and nothing else."""
    before = """
import sys, types
sys.modules["_socket"] = None
sys.modules["site"] = site = types.ModuleType("site")
site.main = lambda: sys.modules.pop("_socket")
"""
    command = [sys.executable, "-S", "-c", before + loader_text()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "KeyError: 'FARKERNEL_BOOT'" in done.stderr  # it goes on
    assert done.returncode == 1


def test_a_stripped_python_says_so() -> None:
    program = "import sys; sys.modules['zlib'] = None\n" + loader_text()
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert (done.returncode, done.stdout) == (99, b"")
