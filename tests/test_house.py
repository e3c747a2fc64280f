"""The rules of the house that no tool checks: imports, what is shipped, what the agent may use."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
AGENT = ROOT / "launcher" / "agent"
APART = {"tests", "docs", "scripts", "build", "dist"}  # folders of the repository that are not the package


def package_folders() -> list[Path]:
    """Every folder of the package, the root first."""
    top = [
        path
        for path in ROOT.iterdir()
        if path.is_dir() and path.name not in APART and path.name[0] not in "._"
    ]
    below = [folder for path in top for folder in [path, *path.rglob("*/")] if folder.name != "__pycache__"]
    return [ROOT, *sorted(folder for folder in below if any(folder.glob("*.py")))]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["farkernel", *(parts[:-1] if parts[-1] == "__init__" else parts)])


MODULES = {module_name(path): path for folder in package_folders() for path in sorted(folder.glob("*.py"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


# -- imports --------------------------------------------------------------------------------------


def imported(module: str, path: Path) -> Iterator[str]:
    """The package's own modules that this one imports when it is imported itself.

    What stands inside a function runs later, and what is for type checkers never; neither closes a circle.
    """
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in at_import(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "farkernel")
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in MODULES else source


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (found for other in child.orelse for found in [other, *at_import(other)])
            continue
        yield child
        yield from at_import(child)


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module not in done:
            for other in sorted(graph.get(module, ())):
                if cycle := visit(other, [*trail, module]):
                    return cycle
            done.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), [])


def test_a_circle_is_found() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_circle_of_imports() -> None:
    graph = {name: set(imported(name, path)) & MODULES.keys() - {name} for name, path in MODULES.items()}
    assert any(graph.values())
    assert find_cycle(graph) == []


def test_imports_inside_the_package_are_relative() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (
            isinstance(node, ast.ImportFrom)
            and not node.level
            and (node.module or "").split(".")[0] == "farkernel"
        )
        or (
            isinstance(node, ast.Import)
            and any(alias.name.split(".")[0] == "farkernel" for alias in node.names)
        )
    ]
    assert wrong == []


# -- the agent, which travels to old Pythons ------------------------------------------------------


def test_the_agent_imports_nothing_outside_itself_but_the_standard_library() -> None:
    wrong = []
    for path in sorted(AGENT.rglob("*.py")):
        inside = len(path.parent.relative_to(AGENT).parts) + 1  # that many dots stay inside
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                if node.level > inside:
                    wrong.append(f"{path.name}:{node.lineno}: from {'.' * node.level}{node.module or ''}")
                names = [node.module or ""] if not node.level else []
            wrong += [
                f"{path.name}: {name}"
                for name in names
                if name.split(".")[0]
                not in {*sys.stdlib_module_names, *(other.stem for other in AGENT.glob("*.py"))}
            ]
    assert wrong == []


def test_the_agent_is_written_in_python_3_6() -> None:
    for path in sorted(AGENT.rglob("*.py")):
        ast.parse(path.read_text("utf-8"), str(path), feature_version=(3, 6))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import vermin; vermin.main()",
            "--target=3.6-",
            "--no-tips",
            "--violations",
            str(AGENT),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout


# -- what is shipped ------------------------------------------------------------------------------


def shipped() -> set[str]:
    """Files of the package: all Python files, and the data beside them."""
    found = set()
    for folder in package_folders():
        files = (
            folder.glob("*.py") if folder == ROOT else (path for path in folder.rglob("*") if path.is_file())
        )
        found |= {
            path for path in files if "__pycache__" not in path.parts and path.suffix not in {".pyc", ".md"}
        }
    return {str(path.relative_to(ROOT)) for path in found} | {"py.typed"}


def test_every_folder_is_a_package_and_every_package_is_listed() -> None:
    folders = package_folders()
    assert [
        str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()
    ] == []
    names = {module_name(folder / "__init__.py") for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == names


def test_nothing_else_lies_at_the_root() -> None:
    """Any other Python file there would be shipped as a module of the package."""
    assert {path.name for path in ROOT.glob("*.py")} <= {"__init__.py", "__main__.py"}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and a source distribution, built in a copy: setuptools leaves things lying about."""
    base = tmp_path_factory.mktemp("build")
    apart = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", *APART - {"tests", "docs", "scripts"})
    shutil.copytree(ROOT, base / "tree", ignore=apart)
    code = textwrap.dedent("""
        from setuptools import build_meta
        build_meta.build_wheel("..")
        build_meta.build_sdist("..")
    """)
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=base / "tree",
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return base


def test_the_wheel_holds_exactly_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(
            archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")
        )
    assert names == {f"farkernel/{name}" for name in shipped()}
    assert "\nLicense-Expression: BSD-3-Clause\n" in metadata


def test_the_source_distribution_holds_the_package_and_its_face(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {"PKG-INFO", "setup.cfg"}
    face = {"pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"}
    assert {name for name in names if ".egg-info/" not in name} == shipped() | made | face


# -- tests/conftest.py ----------------------------------------------------------------------------


def run_tests(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a file with our conftest.py beside it, as a run of its own."""
    shutil.copy(ROOT / "tests/conftest.py", folder)
    (folder / "test_it.py").write_text(textwrap.dedent(text), "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize(
    ("text", "closing"),
    [
        ("import pytest\ndef test_it(): pytest.skip('no such thing')\n", "1 failed"),
        ("import pytest\n@pytest.mark.xfail\ndef test_it(): assert 0\n", "1 failed"),
        ("import pytest\npytest.importorskip('no_such_thing')\n", "1 error"),
    ],
)
def test_a_skipped_test_fails_the_run(tmp_path: Path, text: str, closing: str) -> None:
    done = run_tests(tmp_path, text)
    assert done.returncode != 0
    assert closing in done.stdout.splitlines()[-1]
    assert "skipped or expected to fail" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("-n", "1")])
def test_a_process_left_behind_fails_the_run_and_is_ended(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_tests(
        tmp_path,
        """
        import pathlib, subprocess
        def test_it():
            process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            pathlib.Path("pid").write_text(str(process.pid))
            process.returncode = 0  # or Python warns of it
        """,
        *arguments,
    )
    assert done.returncode == 1
    pid = int((tmp_path / "pid").read_text())
    assert f"pid {pid}, started by test_it.py::test_it (call): sleep 1000" in done.stdout
    assert "1 passed, 1 error" in done.stdout.splitlines()[-1]
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()


def test_every_test_has_a_home_of_its_own(home: Path) -> None:
    assert Path.home() == home
    assert list(home.glob("[!.]*")) == []
    run = Path(os.environ["FARKERNEL_RUN_DIR"])
    assert run.stat().st_mode & 0o777 == 0o700
    assert len(str(run)) < 40  # of the 107 bytes that a unix socket's path may have
    for name, value in os.environ.items():
        if name.startswith(("XDG_", "JUPYTER_")):
            assert value.startswith(str(home.parent)), name
