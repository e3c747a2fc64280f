"""``$XDG_CONFIG_HOME/farkernel/targets.toml``, the one file of the configuration that we write.

``farkernel add`` and ``farkernel remove`` put whole tables in and take them out; every other byte stays.
A change is checked by reading its result before the file is replaced; two at once wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .address import check_target_name
from .configuration import ConfigurationError, Problem, UnknownTarget, directories
from .configuration_file import check_document, read_file
from .toml_positions import Positions

_HAND = "Change the file by hand"


def targets_file(user: str | Path | None = None) -> Path:
    """The user's own file; ``user`` stands for ``$XDG_CONFIG_HOME``."""
    return directories(user=user)[-1] / "targets.toml"


def add_target(
    name: str,
    keys: Mapping[str, Any],
    prefix: str | Path | None = None,
    system: str | Path = "/etc",
    user: str | Path | None = None,
) -> Path:
    """Append a target with these keys, as they stand in TOML; returns the file.

    Raises AddressError for the name, and ConfigurationError for the keys, for a name that is taken, or for a
    file that cannot be written or is wrong itself.
    """
    check_target_name(name)
    content = check_document({"targets": {name: dict(keys)}}, "the new target")
    if "address" not in keys:
        content.problems.append(
            Problem(content.file, None, "it has no address", "Give one, such as ssh://host")
        )
    if content.problems:
        raise ConfigurationError(content.problems)
    path = targets_file(user)
    with _held(path):
        for file, line in _definitions(name, prefix, system, user):
            what = f"there is a target {name!r} already"
            raise ConfigurationError(
                [Problem(file, line, what, f"Take another name, or: farkernel remove {name}")]
            )
        text = _read(path)
        ending = "\r\n" if "\r\n" in text else "\n"
        gap = "" if not text else ending if text.endswith("\n") else 2 * ending
        _replace(path, text, text + gap + _table(name, keys).replace("\n", ending), name, dict(keys))
    return path


def remove_target(
    name: str,
    prefix: str | Path | None = None,
    system: str | Path = "/etc",
    user: str | Path | None = None,
) -> Path:
    """Take a target out of the user's file; returns the file.

    Raises UnknownTarget, or ConfigurationError if another file has something to say about this target, or if
    the file cannot be read.
    """
    path = targets_file(user)
    with _held(path):
        definitions = _definitions(name, prefix, system, user)
        if not definitions:
            content = read_file(str(path)) if path.exists() else None
            if content is not None and content.problems and not content.targets:
                raise ConfigurationError(content.problems)  # it may well be in there
            raise UnknownTarget(name, _targets(_read(path)))
        for file, line in definitions:
            if file != str(path):
                what = f"the target {name!r} is defined there, not in {path}"
                raise ConfigurationError(
                    [Problem(file, line, what, "Whoever keeps that file must take it out")]
                )
        text = _read(path)
        _replace(path, text, _without(text, name), name, None)
    return path


def parse_assignment(text: str) -> tuple[tuple[str, ...], Any]:
    """``KEY=VALUE`` of ``--set``: the key's path, and the value: TOML if it reads so, else a plain string.

    Raises ConfigurationError.
    """
    import tomllib

    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise ConfigurationError(
            [Problem("--set", None, f"{text!r} is not KEY=VALUE", 'Write --set options=\'["-A", "x"]\'')]
        )
    try:
        parsed = tomllib.loads(f"value = {value}\n")["value"] if "\n" not in value else value
    except (ValueError, RecursionError):
        return path, value
    # Variables are strings: env.OMP_NUM_THREADS=8 means "8".
    return path, value if path[0] == "env" and isinstance(parsed, (bool, int, float)) else parsed


def toml_value(value: object) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + re.sub(r'[\x00-\x1f\x7f"\\]', lambda match: _escape(match[0]), value) + '"'
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise TypeError(f"{type(value).__name__} is nothing that our configuration holds")


def toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key, re.ASCII) else toml_value(key)


def _escape(letter: str) -> str:
    return f"\\{letter}" if letter in '"\\' else f"\\u{ord(letter):04x}"


def _table(name: str, keys: Mapping[str, Any]) -> str:
    lines = [f"{toml_key(key)} = {toml_value(value)}\n" for key, value in keys.items()]
    return f"[targets.{toml_key(name)}]\n{''.join(lines)}"


def _without(text: str, name: str) -> str:
    """The text without the statements about this target, and without the comments right above its tables."""
    kept: list[str] = []
    position, inside = 0, False  # the text is decided on up to position; inside: in a table of this target
    for statement in Positions(text).statements:
        about = statement.path[:2] == ("targets", name)
        if statement.header:
            start = _comments_above(text, statement.start, position)
            kept.append("" if inside else text[position:start])
            position, inside = start, about
        elif about and not inside:
            kept.append(text[position : statement.start])
            position = statement.end
    if not inside:
        return "".join([*kept, text[position:]])
    return re.sub(r"(\r?\n)(?:\r?\n)+\Z", r"\1", "".join(kept))


def _comments_above(text: str, start: int, floor: int) -> int:
    """Where the block of comment lines begins that stands right above this header."""
    match = re.search(r"(?:^[ \t]*#[^\n]*\n)*[ \t]*\Z", text[floor:start], re.MULTILINE)
    return floor + match.start() if match else start


def _definitions(
    name: str, prefix: str | Path | None, system: str | Path, user: str | Path | None
) -> list[tuple[str, int | None]]:
    """The files, and the lines, that speak of this target; what else is wrong there is not ours."""
    found = []
    for directory in directories(prefix, system, user):
        for path in sorted(directory.glob("[!.]*.toml")):
            content = read_file(str(path))
            if name in content.targets:
                found.append((content.file, content.targets[name]))
    return found


def _targets(text: str) -> list[str]:
    return sorted(
        {str(statement.path[1]) for statement in Positions(text).statements if len(statement.path) > 1}
    )


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([Problem(str(path), None, f"cannot be read: {error}", _HAND)]) from None


def _replace(path: Path, old: str, new: str, name: str, keys: Mapping[str, Any] | None) -> None:
    """Replace the file if the new text says what it should: the old document with this one target changed."""
    import tomllib

    try:
        expected, reached = tomllib.loads(old), tomllib.loads(new)
    except (ValueError, RecursionError) as error:
        what = f"the target {name!r} cannot be written into it: {error}"
        raise ConfigurationError([Problem(str(path), None, what, _HAND)]) from None
    for document in (expected, reached):
        document.setdefault("targets", {})  # a file need not have any, before or after
    expected["targets"].pop(name, None)
    if keys is not None:
        expected["targets"][name] = dict(keys)
    if expected != reached:
        what = f"the target {name!r} stands there in a way that cannot be changed by program"
        raise ConfigurationError([Problem(str(path), None, what, _HAND)])
    write_file(path, new.encode("utf-8"))


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Temporary file, fsync, rename; a file that is a link (into a collection of dotfiles) stays one.

    A new file has this mode, one that was there keeps its own.  Makes the directory; raises ConfigurationError.
    """
    place = path.resolve()
    try:
        place.parent.mkdir(mode=0o755 if mode & 0o004 else 0o700, parents=True, exist_ok=True)
        mode = place.stat().st_mode & 0o777 if place.exists() else mode
        descriptor, temporary = tempfile.mkstemp(prefix=".targets.", suffix=".new", dir=place.parent)
        try:
            with open(descriptor, "wb") as stream:
                os.fchmod(stream.fileno(), mode)
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, place)
        except BaseException:
            os.unlink(temporary)
            raise
        directory = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise _unwritable(path, error) from None


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """The only one to change this file; makes its directory."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(path.parent / ".targets.lock", "a", encoding="ascii")  # noqa: SIM115 - held over the whole block
    except OSError as error:
        raise _unwritable(path, error) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the descriptor
        yield


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    advice = "Make the directory writable for you, and room on the disk"
    return ConfigurationError([Problem(str(path), None, f"cannot be written: {error.strerror}", advice)])
