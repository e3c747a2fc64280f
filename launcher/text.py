"""Text from elsewhere (a far end, a configuration, a notebook's name) made fit for a terminal or a log."""

from __future__ import annotations

import re
from typing import Any

# CSI, OSC and the other string sequences, then two-byte escapes: 7-bit and 8-bit forms (ECMA-48 §5.4, §5.6).
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)


def clean(text: object, keep: str = "") -> str:
    """Without escape sequences and other control characters, except those in `keep`."""
    plain = _ESCAPES.sub("", str(text))
    return "".join(character if character.isprintable() or character in keep else " " for character in plain)


def one_line(text: object) -> str:
    """Clean, on one line, no runs of blanks."""
    return " ".join(clean(text).split())


def size(number: Any) -> str:
    """Bytes for people: 812 B, 1.5 GiB."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return ""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError
