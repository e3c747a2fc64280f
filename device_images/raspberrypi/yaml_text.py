"""YAML as cloud-init reads it, for plain data.

Every string is written in double quotes, and in ASCII: what YAML has for words like ``no``, for colons, for line ends
of Unicode and for characters that it refuses (YAML 1.1 §5.1, §5.7) does not matter then.  A key is at most 1,024
characters long as it is written (YAML 1.1, simple keys); ours are words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Value = str | bool | int | Sequence["Value"] | Mapping[str, "Value"]

_PLAIN_KEY = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def document(value: Mapping[str, Value]) -> str:
    """A mapping as a whole text."""
    return "\n".join(_lines(value, "")) + "\n"


def quoted(text: str) -> str:
    return '"' + "".join(_letter(letter) for letter in text) + '"'


def _letter(letter: str) -> str:
    code = ord(letter)
    if letter in _SHORT:
        return _SHORT[letter]
    if 0x20 <= code < 0x7F:
        return letter
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _lines(value: Mapping[str, Value] | Sequence[Value], indent: str) -> list[str]:
    lines: list[str] = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            lines += _item(f"{indent}{_key(key)}:", item, indent)
    else:
        for item in value:
            lines += _item(f"{indent}-", item, indent)
    return lines


def _item(head: str, value: Value, indent: str) -> list[str]:
    if isinstance(value, bool):
        return [f"{head} {'true' if value else 'false'}"]
    if isinstance(value, int):
        return [f"{head} {value}"]
    if isinstance(value, str):
        return [f"{head} {quoted(value)}"]
    if not value:
        return [f"{head} {'{}' if isinstance(value, Mapping) else '[]'}"]
    return [head, *_lines(value, indent + "  ")]


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) and key not in _WORDS else quoted(key)
