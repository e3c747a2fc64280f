"""Runs a scheduler's commands over a route: one shell, one script, marks around what each of them says.

Values reach the shell in single quotes only, and the shell is always ``/bin/sh -s`` with the script on its stdin, so
neither the user's login shell nor what its start-up files print matters (DESIGN §4).
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
import string
from collections.abc import Sequence

from ...launcher.errors import FarkernelError
from ...launcher.text import one_line
from ..contract import Route
from .contract import Command, Said

_MOST = 4 * 1024 * 1024
# Where the commands are that a login shell would find by its start-up files.
_PLACES = (
    "/opt/slurm/bin:/usr/local/slurm/bin:/opt/pbs/bin:/opt/torque/bin:/usr/local/bin:/opt/sge/bin/lx-amd64"
)

# What a here document's end may begin with: nothing that a shell cares about.
_BEGINNINGS = string.ascii_letters + string.digits + "_%@:.,+-/="

_FIND = """\
if ! command -v {program} >/dev/null 2>&1; then
  PATH=$PATH:{places}
  command -v {program} >/dev/null 2>&1 || . /etc/profile >/dev/null 2>&1 </dev/null
fi
"""


class NoAnswer(FarkernelError):
    """The commands could not be run to their end.  Whether they had an effect is not known."""

    kind = "no-answer"

    def __init__(self, why: str) -> None:
        super().__init__(why, "It is tried again")


class _Answer:
    """Collects what the shell says, up to a limit."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.cut = False
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        room = _MOST - len(self.data)
        self.data += data[:room]
        self.cut = self.cut or len(data) > room

    def writable(self) -> None:
        """The script is written at once."""

    def closed(self, said: str) -> None:
        if not self.over.done():
            self.over.set_result(said)


async def run(
    route: Route, commands: Sequence[Command], deadline: float, preparation: str = ""
) -> list[Said]:
    """Run them one after the other; raises `NoAnswer`, or what the route raises.  ``preparation``: shell lines of ours.

    Cancelling it, or the deadline, hangs up; a command that has begun may go on all the same.
    """
    mark = secrets.token_hex(16)
    answer = _Answer()
    try:
        async with asyncio.timeout(deadline):
            stream = await route.open(("/bin/sh", "-s"), answer)
            try:
                stream.write([script(commands, mark, preparation).encode()])
                said = await answer.over
            finally:
                stream.close()
    except TimeoutError:
        raise NoAnswer(f"{commands[0].argv[0]} gave no answer within {deadline:g} s") from None
    found = read(bytes(answer.data).decode("utf-8", "replace"), mark, len(commands), answer.cut)
    if found is None:
        why = "it said more than 4 MiB" if answer.cut else one_line(said) or "the connection ended"
        raise NoAnswer(f"{commands[0].argv[0]} was not run to its end: {why}")
    return found


def find_program(program: str) -> str:
    """Shell lines that put the program on PATH if it is where it usually is."""
    return _FIND.format(program=shlex.quote(program), places=_PLACES)


def script(commands: Sequence[Command], mark: str, preparation: str = "") -> str:
    """Marks around each command's stdout, its exit status and its stderr; in words that every Bourne shell knows."""
    lines = [preparation]
    for command in commands:
        words = [f"{name}={shlex.quote(value)}" for name, value in command.environment.items()]
        words += map(shlex.quote, command.argv)
        # A command that may read our own stdin would eat the rest of the script.
        source = "</dev/null" if command.stdin is None else _here_document(command.stdin, mark)
        lines += [
            f"printf '\\n%s out\\n' {mark}",
            f"{{ said=$({' '.join(words)} 2>&1 1>&3 3>&-); status=$?; }} 3>&1 {source}",
            f"printf '\\n%s err %s\\n%s\\n' {mark} $status \"$said\"",
        ]
    lines += [f"printf '%s end\\n' {mark}", "exit 0", ""]
    return "\n".join(lines)


def read(text: str, mark: str, count: int, cut: bool) -> list[Said] | None:
    """What the script's commands said; None when the end of it is missing."""
    _, *parts = text.split(f"\n{mark} ")
    if len(parts) != 2 * count + 1 or not parts[-1].startswith("end"):
        return None
    found = []
    for out, err in zip(parts[0:-1:2], parts[1:-1:2], strict=True):
        words, _, complaint = err.partition("\n")
        name, _, status = words.partition(" ")
        if not out.startswith("out\n") or name != "err" or not status.isdecimal():
            return None
        found.append(Said(int(status), out[len("out\n") :], complaint, cut))
    return found


def _here_document(text: str, mark: str) -> str:
    """dash (0.5.12) loses the first byte of a character beyond ASCII that stands in a line behind the beginning of what
    ends the document: so that begins as no line with such a character does.  (Where all beginnings are taken, which no
    script of ours comes near, other shells still get it whole.)"""
    taken = {line[:1] for line in text.split("\n") if not line.isascii()}
    end = next((each for each in _BEGINNINGS if each not in taken), _BEGINNINGS[0]) + mark
    return f"<<'{end}'\n{text}{'' if text.endswith(chr(10)) else chr(10)}{end}"
