"""Small files of /proc and /sys, below a root that tests put elsewhere.  What cannot be read is not there."""

import json
import os
from typing import Any, Dict, List, Optional

LARGEST = 1 << 20


def read(root: str, *parts: str) -> str:
    """The text of a file, without what surrounds it; empty where there is nothing to be read."""
    try:
        with open(place(root, *parts), "rb") as stream:
            return stream.read(LARGEST).decode("utf-8", "replace").strip("\0 \n\t")
    except (OSError, ValueError):  # ValueError: a NUL in a name that we were given
        return ""


def place(root: str, *parts: str) -> str:
    return os.path.join(root, *[part.lstrip("/") for part in parts])


def names(root: str, *parts: str) -> List[str]:
    try:
        return sorted(os.listdir(place(root, *parts)))
    except (OSError, ValueError):
        return []


def number(text: str) -> Optional[int]:
    """A whole number as the system writes it: decimal, or hexadecimal with 0x."""
    text = text.strip()
    try:
        return int(text, 16) if text[:2].lower() == "0x" else int(text)
    except ValueError:
        return None


def decimal(text: str) -> Optional[float]:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e18 else None  # nor infinite, nor no number


def pairs(text: str, separator: str) -> Dict[str, str]:
    """Lines "key: value"; of two with the same key the first."""
    found: Dict[str, str] = {}
    for line in text.splitlines():
        key, mark, value = line.partition(separator)
        if mark:
            found.setdefault(key.strip(), value.strip())
    return found


def json_object(text: str) -> Dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
