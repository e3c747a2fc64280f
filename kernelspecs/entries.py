"""Menu entries: kernelspecs that say which target, and which kernel there, a choice in the menu means.

Every entry works in two ways (DESIGN §4): by the provisioner, and by an absolute argv that works alone, for
front ends that know no provisioners.  `farkernel launch` reads entries too, so this module imports next to
nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..launcher.errors import FarkernelError

PROVISIONER = "farkernel"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}\Z")
_LARGEST_SPEC = 1 << 20
_TRIES = 100  # to put an entry where others put theirs at the same time

# Kernelspec names that say their language; Jupyter wants one for each entry before the kernel was ever
# started.
_LANGUAGES = {
    "ir": "R",
    "r": "R",
    "julia": "julia",
    "bash": "bash",
    "octave": "octave",
    "xeus": "python",
    "xpython": "python",
    "python": "python",
    "ipykernel": "python",
    "sagemath": "python",
    "micropython": "python",
    "deno": "typescript",
    "tslab": "typescript",
    "rust": "rust",
    "evcxr": "rust",
    "scala": "scala",
    "almond": "scala",
    "xcpp": "c++",
}


class BadEntryName(FarkernelError):
    kind = "entry-name"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name[:80]!r} cannot be the name of a menu entry",
            "Use letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 100.",
        )


class EntryNotFound(FarkernelError):
    kind = "no-such-entry"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no menu entry {name[:80]!r} of ours is installed",
            "See `farkernel list` for targets, and `jupyter kernelspec list` for all menu entries.",
        )


class EntryOccupied(FarkernelError):
    kind = "entry-occupied"

    def __init__(self, directory: str) -> None:
        super().__init__(
            f"{directory} holds a kernelspec that is not ours",
            "Choose another name for the menu entry with --as.",
        )


class EntryNotWritable(FarkernelError):
    kind = "entry-not-writable"

    def __init__(self, directory: str, error: OSError) -> None:
        super().__init__(
            f"the menu entry in {directory} cannot be changed: {error.strerror or error}",
            "Choose a place that you can write with --user, --sys-prefix or --prefix P.",
        )


class MenuEntry(NamedTuple):
    """An installed entry of ours."""

    name: str
    directory: str
    spec: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        return provisioner_config(self.spec) or {}

    @property
    def display_name(self) -> str:
        return str(self.spec.get("display_name", self.name))


# -- places ------------------------------------------------------------------------------------------------


def user_data_directory() -> str:
    """As Jupyter finds it; importing jupyter_core would cost more than `farkernel launch` may take."""
    given = os.environ.get("JUPYTER_DATA_DIR")
    if given:
        return given
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Jupyter")
    return os.path.join(os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share"), "jupyter")


def data_directories() -> list[str]:
    """Where Jupyter looks for kernelspecs, what comes first wins."""
    places = [place for place in os.environ.get("JUPYTER_PATH", "").split(os.pathsep) if place]
    user = user_data_directory()
    environment = os.path.join(sys.prefix, "share", "jupyter")
    in_environment = sys.prefix != sys.base_prefix or bool(os.environ.get("CONDA_PREFIX"))
    places += [environment, user] if in_environment else [user, environment]
    places += ["/usr/local/share/jupyter", "/usr/share/jupyter"]
    return list(dict.fromkeys(places))


def data_directory(where: str, prefix: str | None = None) -> str:
    """The directory that `--user`, `--sys-prefix`, `--system` and `--prefix P` mean."""
    if prefix is not None:
        return os.path.join(os.path.abspath(prefix), "share", "jupyter")
    return {
        "user": user_data_directory(),
        "sys-prefix": os.path.join(sys.prefix, "share", "jupyter"),
        "system": "/usr/local/share/jupyter",
    }[where]


# -- finding -----------------------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """The name as Jupyter will know it (lower case); raises `BadEntryName`."""
    if not _NAME.match(name.lower()):
        raise BadEntryName(name)
    return name.lower()


def find(name: str) -> MenuEntry | None:
    """The entry that Jupyter would use for this name, if it is one of ours."""
    if not _NAME.match(name.lower()):
        return None
    for place in data_directories():
        directory = os.path.join(place, "kernels", name.lower())
        spec = read_spec(directory)
        if spec is not None:
            ours = provisioner_config(spec) is not None
            return MenuEntry(name.lower(), directory, spec) if ours else None
    return None


def installed() -> Iterator[MenuEntry]:
    """All entries of ours, also those that an entry of the same name in an earlier place hides."""
    for place in data_directories():
        try:
            names = sorted(os.listdir(os.path.join(place, "kernels")))
        except OSError:
            continue
        for name in names:
            directory = os.path.join(place, "kernels", name)
            spec = read_spec(directory) if _NAME.match(name.lower()) else None
            if spec is not None and provisioner_config(spec) is not None:
                yield MenuEntry(name.lower(), directory, spec)


def read_spec(directory: str) -> dict[str, Any] | None:
    """The content of kernel.json, or None where there is none that can be read."""
    try:
        with open(os.path.join(directory, "kernel.json"), "rb") as file:
            spec = json.loads(file.read(_LARGEST_SPEC))
    except (OSError, ValueError, RecursionError):
        return None
    return spec if isinstance(spec, dict) else None


def provisioner_config(spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """Our settings in a kernelspec; None when it is not ours."""
    metadata = spec.get("metadata")
    stanza = metadata.get("kernel_provisioner") if isinstance(metadata, dict) else None
    if not isinstance(stanza, dict) or stanza.get("provisioner_name") != PROVISIONER:
        return None
    config = stanza.get("config", {})
    return config if isinstance(config, dict) else {}


# -- making ------------------------------------------------------------------------------------------------


def build(name: str, display_name: str, language: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The content of kernel.json."""
    metadata: dict[str, Any] = {
        "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": dict(settings)},
        "supported_encryption": ["curve"],
    }
    if language == "python":
        metadata["debugger"] = True
    return {
        # -P: the command starts in the notebook's directory, where a json.py must not stand in for Python's
        # own.
        "argv": [
            *(sys.executable, "-P", "-m", "farkernel"),
            *("launch", check_name(name), "-f", "{connection_file}"),
        ],
        "display_name": display_name,
        "language": language,
        # A signal reaches the provisioner and `farkernel launch` alike, on a way of its own; as a message,
        # the interrupt that Jupyter sends before it stops could not be told from a person's (DESIGN §4).
        "interrupt_mode": "signal",
        "env": {},
        "metadata": metadata,
    }


def guess_language(kernel: str | None, address: str = "") -> str:
    """The language of a kernelspec by its name; Python when no kernel is named, and MicroPython on boards."""
    if is_board(address):
        return "micropython"
    if not kernel:
        return "python"
    stem = re.split(r"[^a-z]", kernel.lower())[0]
    return _LANGUAGES.get(stem, stem or kernel.lower())


def is_board(address: str) -> bool:
    return address.partition(":")[0] in ("serial", "webrepl")


def default_display_name(name: str, kernel: str | None, address: str = "", preset: str | None = None) -> str:
    """What the menu shows when nothing else was asked for."""
    language = "MicroPython" if is_board(address) else kernel if kernel and kernel != "python3" else "Python"
    return " · ".join(filter(None, (name, language, preset)))


def install(name: str, spec: Mapping[str, Any], data: str, files: Mapping[str, bytes]) -> str:
    """Write the entry whole or not at all; returns its directory.

    Raises `BadEntryName`, `EntryOccupied` (by somebody else's kernelspec), `EntryNotWritable`.
    """
    directory = os.path.join(data, "kernels", check_name(name))
    if _is_anothers(directory):
        raise EntryOccupied(directory)
    import tempfile

    try:
        os.makedirs(os.path.join(data, "kernels"), exist_ok=True)
        # Beside `kernels`, not in it: Jupyter must not list what is half made.
        with tempfile.TemporaryDirectory(prefix=".farkernel-", dir=data) as work:
            made = os.path.join(work, "made")
            os.mkdir(made, 0o755)
            _write(
                os.path.join(made, "kernel.json"),
                json.dumps(spec, indent=1, ensure_ascii=False).encode() + b"\n",
            )
            for filename, content in files.items():
                _write(os.path.join(made, filename), content)
            _replace(made, directory, os.path.join(work, "old"))
    except OSError as error:
        raise EntryNotWritable(directory, error) from None
    return directory


def uninstall(name: str) -> list[str]:
    """Remove every entry of ours with this name; returns their directories.  Raises `EntryNotFound`."""
    wanted = check_name(name)
    found = [entry.directory for entry in installed() if entry.name == wanted]
    if not found:
        raise EntryNotFound(name)
    removed = [directory for directory in found if remove(directory)]
    if not removed:  # another was quicker
        raise EntryNotFound(name)
    return removed


def remove(directory: str) -> bool:
    """Whole or not at all; False: it was gone already.  Raises `EntryNotWritable`."""
    import tempfile

    try:
        data = os.path.dirname(os.path.dirname(directory))
        with tempfile.TemporaryDirectory(prefix=".farkernel-", dir=data) as work:
            os.rename(directory, os.path.join(work, "old"))
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise EntryNotWritable(directory, error) from None


def _is_anothers(directory: str) -> bool:
    for _ in range(_TRIES):
        found = read_spec(directory)
        if found is not None:
            return provisioner_config(found) is None
        if not os.path.lexists(directory):
            return False
    return True  # it stays, and is no kernelspec; one that is put there just now would be read by now


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(made: str, directory: str, old: str) -> None:
    """Others may do the same at the same time, or take it away: the last one stays."""
    for attempt in range(_TRIES):
        aside = f"{old}{attempt}"
        try:
            os.rename(directory, aside)
        except FileNotFoundError:
            aside = ""
        try:
            os.rename(made, directory)
            return
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and attempt + 1 < _TRIES:
                continue  # another's has come in between
            if aside:
                os.rename(aside, directory)
            raise
