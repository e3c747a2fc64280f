"""`farkernel fleet diff|apply` on servers: their own Farkernel does it, for all their users."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ..errors import FarkernelError
from ..fleet.plan import Change
from ..fleet.roster import Roster
from ..fleet.roster_text import as_toml
from ..text import one_line
from .asking import Asking
from .far_command import FarCommand

_AT_A_TIME = 10
_MOST = 4 << 20


class Answer(NamedTuple):
    """What came of one machine."""

    name: str
    changes: tuple[Change, ...] = ()
    error: FarkernelError | None = None


class ServerFailed(FarkernelError):
    kind = "server"

    def __init__(self, why: str) -> None:
        what, _, advice = one_line(why)[:600].removeprefix("farkernel: ").partition(". ")
        super().__init__(
            what or "it said nothing", advice or "Try it there by hand: farkernel fleet apply --system"
        )


class SomeFailed(FarkernelError):
    kind = "fleet"

    def __init__(self, failed: Sequence[str]) -> None:
        count = f"{len(failed)} machines" if len(failed) > 1 else "1 machine"
        super().__init__(
            f"{count} could not be asked or brought in line ({', '.join(failed[:10])})",
            "See why above, and run it again",
        )


def on_servers(action: str, roster: Roster) -> Iterator[Answer]:
    """`diff` or `apply`; one after the other as they are listed, ten at a time."""
    text = as_toml(roster).encode()
    with ThreadPoolExecutor(_AT_A_TIME) as workers:
        yield from workers.map(
            lambda server: _ask(server, action, roster.server_command, text), roster.servers
        )


def _ask(server: str, action: str, program: Sequence[str], text: bytes) -> Answer:
    argv = [*program, "fleet", action, "--system", "--json", "-"]
    try:
        with Asking() as client:
            command = FarCommand(client, server, argv)
            try:
                command.socket.sendall(text)
                said = command.read_all(_MOST)
            except ConnectionError:
                said = b""  # it has ended without reading; why is told next
            status, complaint = command.ended()
        if status != 0:
            raise ServerFailed(complaint)
        return Answer(server, tuple(_changes(server, said)))
    except FarkernelError as error:
        return Answer(server, error=error)


def _changes(server: str, said: bytes) -> Iterator[Change]:
    """From a machine that may say anything."""
    try:
        rows = json.loads(said)["changes"]
        for row in rows:
            yield _change(server, row)
    except (ValueError, KeyError, TypeError) as error:
        raise ServerFailed(f"its answer cannot be read: {error}") from None


def _change(server: str, row: dict[str, Any]) -> Change:
    how = row["how"]
    if how not in ("add", "change", "remove"):
        raise ValueError(how)
    return Change(how, one_line(row["kind"]), one_line(row["name"]), one_line(row.get("detail", "")), server)
