"""What is remembered of a roster that was applied: who works where, and what `fleet reset` sets back."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from ..targets_file import write_file
from .roster import Host, Roster


class Recorded(NamedTuple):
    name: str
    file: str  # the roster
    hosts: tuple[Host, ...]
    directory: str  # of `reset`, in the home there
    template: str  # a folder here


def write_record(roster: Roster, path: Path, mode: int) -> None:
    """Raises ConfigurationError."""
    template = roster.reset.template
    record = {
        "version": 1,
        "fleet": roster.name,
        "roster": os.path.abspath(roster.file),
        "applied": time.time(),
        "hosts": [
            {"host": host.name, "student": host.student, "model": host.model, "board": host.board}
            for host in roster.hosts
        ],
        "directory": roster.reset.directory,
        "template": os.path.abspath(template) if template is not None else "",
    }
    write_file(path, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n", mode)


def read_records(directory: Path) -> dict[str, Recorded]:
    """By name; what cannot be read is left out."""
    found = (read_record(path) for path in sorted(directory.glob("*.json")))
    return {record.name: record for record in found if record is not None}


def read_record(path: Path) -> Recorded | None:
    try:
        record = json.loads(path.read_bytes())
        return Recorded(
            str(record["fleet"]),
            str(record["roster"]),
            tuple(_host(row) for row in record["hosts"]),
            str(record.get("directory", "")),
            str(record.get("template", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _host(row: dict[str, object]) -> Host:
    name = str(row["host"])
    student, board, model = (str(row.get(key, "")) for key in ("student", "board", "model"))
    return Host(name, name, student=student, board=board, model=model)
