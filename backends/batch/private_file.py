"""For schedulers that take no script on stdin: the job's script in a private file in the home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .contract import Command
from .job_script import RENDEZVOUS

# Beside the notes that jobs leave; what is over a month old is cleared away by the next job's script.
_WRITE = f"""\
umask 077
directory=$HOME/{RENDEZVOUS}
file=$directory/$1.sh
before=$2
shift 2
mkdir -p "$directory" && cat >"$file" && chmod 700 "$file" || exit 75
exec "$@" "$before$file"
"""


def with_script(
    name: str, argv: Sequence[str], script: str, environment: Mapping[str, str], before: str = ""
) -> Command:
    """Runs the command with the script's path as its last argument, in which ``before`` stands before it."""
    return Command(("sh", "-c", _WRITE, "sh", name, before, *argv), script, environment)
