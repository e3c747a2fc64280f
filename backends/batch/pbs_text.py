"""What `qstat -f` of OpenPBS, PBS Pro and Torque prints: blocks of attributes, long values on several lines.

Text and not JSON, because theirs may be invalid (DESIGN §4), and Torque has none.  The commands of slurm-wlm-torque,
which are Torque's over a Slurm, put tabs before attributes; these are never long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...launcher.text import one_line
from .contract import Said

# "Unknown Job Id": neither there nor in the history.  "has finished": OpenPBS without -x.  "nonexistent", "COMPLETE":
# Torque's qdel.
_GONE = re.compile(
    r"Unknown Job Id|has finished, use -x|nonexistent job id|invalid state for job - COMPLETE"
    r"|Request invalid for state of job|Job has finished"
)
_UNKNOWN_JOB = 153  # PBSE_UNKJOBID, 15001, as an exit status has it: slurm-wlm-torque says no more than that


def blocks(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Job id → attributes; names in lower case, because Torque's differ in that from OpenPBS's."""
    yield from _blocks(text, "Job Id:")


def queue_blocks(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Queue → attributes, of `qstat -Qf`."""
    yield from _blocks(text, "Queue:")


def _blocks(text: str, head: str) -> Iterator[tuple[str, dict[str, str]]]:
    found: dict[str, str] = {}
    number = last = indent = ""
    for line in text.splitlines():
        match = re.match(r"(    |\t)([\w.]+) = (.*)", line)
        if line.startswith(head):
            if number:
                yield number, found
            number, found, last, indent = line.partition(":")[2].strip(), {}, "", ""
        elif number and match and match[1] == (indent or match[1]):
            indent, last = match[1], match[2].lower()
            found[last] = match[3]
        elif line.startswith("\t") and last:
            found[last] += line[1:]
    if number:
        yield number, found


def only_gone(said: Said) -> bool:
    """Whether all that it complains of is that some jobs are not there any more."""
    lines = [line for line in said.err.splitlines() if line.strip()]
    return all(_GONE.search(line) for line in lines) if lines else said.status in (0, _UNKNOWN_JOB)


def seconds(text: str) -> int | None:
    """``HH:MM:SS`` (hours may have more digits), or plain seconds."""
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        return int(text)
    match = re.fullmatch(r"([0-9]{1,6}):([0-9]{2}):([0-9]{2})", text, re.ASCII)
    return int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]) if match else None


def first_host(text: str) -> str:
    """Of ``exec_host``: ``c1/0*2+c2/0`` or ``c1/0-3``."""
    host = text.partition("+")[0].partition("/")[0].strip("()")
    return host if re.fullmatch(r"[A-Za-z0-9][\w.-]*", host, re.ASCII) else ""


def why_waiting(attributes: dict[str, str]) -> str:
    """The scheduler's comment, without its first words."""
    comment = one_line(attributes.get("comment", ""))
    for prefix in ("Not Running: ", "Not Running -- "):
        comment = comment.removeprefix(prefix)
    return comment
