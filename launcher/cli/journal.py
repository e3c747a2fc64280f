"""`farkernel output`: what a kernel printed, as text, as JSON, or into the notebook that asked for it."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from .. import notebook_file, outputs
from ..errors import FarkernelError, RemoteError
from ..settings import InvalidValue, duration
from ..text import clean, one_line
from . import table
from .arguments import add_json
from .asking import Asking, Progress
from .kernels import SHORT, Row, listing, pick
from .output import colours_wanted, emit, paint, say, terminal_columns

DEADLINE = 600.0


class JournalGone(FarkernelError):
    kind = "no-journal"

    def __init__(self, kernel: str) -> None:
        super().__init__(
            f"kernel {kernel[:SHORT]} has ended, and its journal went with it",
            "What it wrote last on stderr may be left: farkernel ps --all",
        )


class BadMoment(FarkernelError):
    kind = "usage"

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text[:40]!r} is no moment",
            "Give how long ago (90s, 10m, 2h, 1d), a time (14:05) or a date and time (2026-03-01T14:05).",
        )


def configure_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="of a kernel, or its beginning, as `farkernel ps` shows it")
    parser.add_argument("--since", metavar="T", help="from then on: 10m (ago), 14:05, 2026-03-01T14:05")
    parser.add_argument(
        "--into",
        metavar="NOTEBOOK.ipynb",
        help="put each output under its cell in this file, and change nothing else",
    )
    add_json(parser)


def run_output(arguments: argparse.Namespace) -> int:
    since = None if arguments.since is None else moment(arguments.since)
    # The notebook first: what is wrong with it can be said at once.
    file = notebook_file.NotebookFile(arguments.into) if arguments.into is not None else None
    with Asking() as client:
        rows = {str(row.get("kernel")): row for row in listing(client, True)["kernels"]}
        kernel = pick("kernel", arguments.id, rows)
        # Into a notebook go whole outputs, so that all of the journal is read; `since` chooses among the cells.
        about = ask(client, kernel, rows[kernel], since if file is None else None)
    lines = read(about["path"])
    if file is not None:
        return into(arguments, kernel, file, lines, about, since)
    if arguments.json:
        cells = [line["cell"] for line in lines if "cell" in line]
        messages = [line for line in lines if "msg_type" in line]
        emit({"kernel": kernel, "dropped": dropped(about), "cells": cells, "messages": messages})
    else:
        show(collect(lines), about, since)
    return 0


def ask(client: Asking, kernel: str, row: Row, since: float | None) -> dict[str, Any]:
    try:
        return client.request("output", DEADLINE, kernel=kernel, since=since)
    except RemoteError as error:
        if row.get("state") == "ended" and error.remote_kind in (
            "no-such-kernel",
            "out-of-reach",
            "no-kernel",
        ):
            raise JournalGone(kernel) from None
        raise


def read(path: str) -> list[dict[str, Any]]:
    """The keeper's file, which is ours to remove."""
    with Progress("reading what the keeper wrote"):
        try:
            with open(path, encoding="ascii") as file:
                return [json.loads(line) for line in file]
        finally:
            os.unlink(path)


def dropped(about: dict[str, Any]) -> int:
    """How many messages of the kernel the journal does not hold any more."""
    oldest = about.get("oldest")
    return max(oldest - 1, 0) if isinstance(oldest, int) else 0


def collect(lines: list[dict[str, Any]]) -> outputs.Collection:
    found = outputs.Collection(line["cell"] for line in lines if isinstance(line.get("cell"), dict))
    for line in lines:
        if "msg_type" in line:
            found.take(line)
    return found


# -- as text -----------------------------------------------------------------------------------------------


def show(found: outputs.Collection, about: dict[str, Any], since: float | None) -> None:
    say_dropped(about)
    colours = colours_wanted(sys.stdout)
    width = terminal_columns(sys.stdout)
    first = True
    for execution in found:
        if not execution.outputs:
            continue
        line = one_line(outputs.header(execution))
        print("" if first else "\n", end="")
        print(paint(table.cut(line, width) if width else line, "bold" if colours else None, colours))
        first = False
        for output in execution.outputs:
            text = clean(outputs.text_of(output), keep="\n\t")
            print(text, end="" if text.endswith("\n") else "\n")
    if first:
        say("It printed nothing." if since is None else "It printed nothing since then.")


def say_dropped(about: dict[str, Any]) -> None:
    count = dropped(about)
    if count:
        bound = table.size(about.get("bound"))
        print(
            f"farkernel: the {count:,} oldest messages are no longer in the journal, which holds {bound}. "
            "A larger one: journal in the target's configuration.",
            file=sys.stderr,
        )


# -- into a notebook ---------------------------------------------------------------------------------------


def into(
    arguments: argparse.Namespace,
    kernel: str,
    file: notebook_file.NotebookFile,
    lines: list[dict[str, Any]],
    about: dict[str, Any],
    since: float | None,
) -> int:
    executions = [each for each in collect(lines) if since is None or each.newest >= since]
    placed = outputs.Placed(file.notebook, executions)
    written = file.write(placed.fillings())
    if arguments.json:
        emit(
            {
                "kernel": kernel,
                "notebook": file.path,
                "written": written,
                "cells": len(placed.chosen),
                "dropped": dropped(about),
                "homeless": [
                    {"time": each.began, "line": each.line, "outputs": len(each.outputs)}
                    for each in placed.homeless
                ],
            }
        )
        return 0
    say_dropped(about)
    count = len(placed.chosen)
    if not count:
        say(f"Nothing of this kernel belongs to a cell of {arguments.into}; the file is as it was.")
    elif written:
        say(
            f"{_counted(count, 'cell')} of {arguments.into} now {'has' if count == 1 else 'have'} what the kernel sent."
        )
        say("A notebook that is open: reload it from disk (File menu).")
    else:
        say(f"{arguments.into} had all that already.")
    partial = [each for each in placed.chosen.values() if not each.is_whole]
    if partial:
        say(
            f"Of {_counted(len(partial), 'cell')} the beginning is no longer in the journal; the output says so."
        )
    if placed.homeless:
        say(f"No cell was found for the output of {_counted(len(placed.homeless), 'request')}:")
        for execution in list(homeless_lines(placed.homeless)):
            say(f"  {execution}")
        say(f"To see it: farkernel output {kernel[:SHORT]}")
    return 0


def homeless_lines(executions: list[outputs.Execution], most: int = 10) -> Iterator[str]:
    width = (terminal_columns(sys.stdout) or 100) - 2
    for execution in executions[:most]:
        yield table.cut(one_line(outputs.header(execution)), width)
    if len(executions) > most:
        yield f"… and {len(executions) - most} more"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# -- moments -----------------------------------------------------------------------------------------------


def moment(text: str, now: float | None = None) -> float:
    """Seconds since 1970: so long ago, a time of day (the last that was), or ISO 8601.  Raises `BadMoment`."""
    now = time.time() if now is None else now
    if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", text):
        return _clock(text, now)
    try:
        return now - duration(text)
    except InvalidValue:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise BadMoment(text) from None


def _clock(text: str, now: float) -> float:
    hour, minute, second = (int(part) for part in f"{text}:00".split(":")[:3])
    today = datetime.fromtimestamp(now)
    try:
        found = today.replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError:
        raise BadMoment(text) from None
    if found.timestamp() > now:
        found -= timedelta(days=1)
    return found.timestamp()
