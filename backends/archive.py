"""The programs that travel to the far end, and the text of the loader that asks for the first of them.

They are made from the files of ``launcher/agent`` as they are installed here: the agent (``python3 archive.zip serve
…`` runs it), the probe and the engines, which are brought when they are first asked for, and the module by which the
probe asks NVIDIA's driver, which is brought to machines that have one.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import io
import os
import tempfile
import tokenize
import zipfile
from collections.abc import Mapping
from importlib import resources
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple, TypeGuard

PACKAGE = "farkernel_agent"
PROBE_PACKAGE = "farkernel_probe"
ENGINES_PACKAGE = "farkernel_engines"
_AGENT = f"{__package__.rpartition('.')[0]}.launcher.agent"
_PROBE = f"{_AGENT}.probe"
_ENGINES = f"{_AGENT}.engines"
_MAIN = "from {}.__main__ import main\nmain()\n"
# The same bytes from the same files, whenever and wherever they are packed: the hash is the program's name.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Archive(NamedTuple):
    """The zip file, and what the loader checks it by."""

    content: bytes
    sha256: str
    size: int


def stored_archive(directory: Path) -> Archive:
    """As `build_archive`, from a file in this directory: stripping takes a quarter of a second, longer than all else
    that a keeper does before it listens.  A file that is not what it should be is made anew; one that cannot be
    written is done without.
    """
    sources = "\0".join(f"{name}\0{text}" for name, text in sorted(_sources(_AGENT).items()))
    path = directory / f"agent-{hashlib.sha256(sources.encode()).hexdigest()[:32]}"
    with contextlib.suppress(OSError):
        found = path.read_bytes()
        sha256, content = found[:64].decode("ascii", "replace"), found[64:]
        if hashlib.sha256(content).hexdigest() == sha256:
            return Archive(content, sha256, len(content))
    archive = build_archive()
    with contextlib.suppress(OSError):
        _store(path, archive.sha256.encode() + archive.content)
    return archive


def cache_directory() -> Path:
    """Where a keeper of this user stores the archive."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "farkernel"


def _store(path: Path, data: bytes) -> None:
    """Whole or not at all; those of other versions go."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".agent-", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.rename(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise
    for other in path.parent.glob("agent-*"):
        if other != path:
            other.unlink(missing_ok=True)


@functools.lru_cache(maxsize=1)
def build_archive() -> Archive:
    """The agent of this version."""
    sources = {name: text for name, text in _sources(_AGENT).items() if name != "loader.py"}
    return _pack(_as_program(PACKAGE, sources))


#: Modules of the agent that the probe has too.
_OF_BOTH = ("holds.py", "places.py")


@functools.lru_cache(maxsize=1)
def build_probe() -> Archive:
    """What looks at a machine; ``python3 probe.zip REQUEST`` runs it."""
    sources = {name: text.replace("\nfrom ..", "\nfrom .") for name, text in _sources(_PROBE).items()}
    shared = {name: text for name, text in _sources(_AGENT).items() if name in _OF_BOTH}
    return _pack(_as_program(PROBE_PACKAGE, {**shared, **sources}))


@functools.lru_cache(maxsize=1)
def build_engines() -> Archive:
    """What starts engines across several nodes and holds them; ``python3 engines.zip start DIRECTORY`` runs it."""
    return _pack(_as_program(ENGINES_PACKAGE, _sources(_ENGINES)))


@functools.lru_cache(maxsize=1)
def build_nvml() -> Archive:
    """nvidia-ml-py as it is installed here: one module, unchanged, its licence at its top."""
    path = distribution("nvidia-ml-py").locate_file("pynvml.py")
    return _pack({"pynvml.py": Path(str(path)).read_bytes()})


def _as_program(package: str, sources: Mapping[str, str]) -> dict[str, bytes]:
    files = {f"{package}/{name}": strip(text).encode() for name, text in sorted(sources.items())}
    return {"__main__.py": _MAIN.format(package).encode(), **files}


def _pack(files: Mapping[str, bytes]) -> Archive:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            _add(archive, name, content)
    content = stream.getvalue()
    return Archive(content, hashlib.sha256(content).hexdigest(), len(content))


@functools.lru_cache(maxsize=1)
def loader_text() -> str:
    """The loader with what it uses of places.py, as one program in the syntax of Python 2.7 and 3.

    The loader's own beginning comes first, because it sends old Pythons away before anything else is
    imported.
    """
    sources = _sources(_AGENT)
    head, mark, rest = sources["loader.py"].partition("\nfrom .places import ")
    if not mark:
        raise AssertionError("loader.py no longer imports places.py in one line")
    return "\n".join([head, sources["places.py"], rest.partition("\n")[2]])


def places_text() -> str:
    """What finds the private directory, in the syntax of Python 2.7 and 3."""
    return _sources(_AGENT)["places.py"]


def errand_text(name: str, *with_modules: str) -> str:
    """A program that travels by itself (`launcher.agent.errands`); of the agent's modules it has what it imports."""
    agent = resources.files(_AGENT)
    texts = [(agent / f"{module}.py").read_text("utf-8") for module in with_modules]
    texts.append((agent / "errands" / f"{name}.py").read_text("utf-8"))
    return "\n".join(strip(_alone(text)) for text in texts)


def _alone(text: str) -> str:
    """Without its imports of other modules of ours: they stand before it."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "\n".join(lines) + "\n"


def strip(source: str) -> str:
    """The program without comments and docstrings, each statement in the line where it was: tracebacks stay right.

    It is sent over slow links, and to each new machine.
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    tree = ast.parse(source)
    needed = _only_statements(tree)
    for node in ast.walk(tree):
        if _is_string(node):
            lines[node.lineno - 1] = " " * node.col_offset + '""' if node in needed else ""
            for row in range(node.lineno, node.end_lineno or node.lineno):
                lines[row] = ""
    return "\n".join(lines) + "\n"


def _is_string(node: ast.AST) -> TypeGuard[ast.Expr]:
    """A docstring, or one that stands alone after an attribute; all have their lines for themselves."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _only_statements(tree: ast.AST) -> set[ast.AST]:
    """Those without which a block would be empty."""
    blocks = (
        value for node in ast.walk(tree) for _, value in ast.iter_fields(node) if isinstance(value, list)
    )
    return {block[0] for block in blocks if block and all(map(_is_string, block))}


def _sources(package: str) -> dict[str, str]:
    files = resources.files(package).iterdir()
    return {file.name: file.read_text("utf-8") for file in files if file.name.endswith(".py")}


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content, compresslevel=9)
