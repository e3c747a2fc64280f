"""`farkernel board list`: what is plugged in here, and into the machines of targets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .. import configuration
from ..address import Address
from ..board.contract import BoardPort
from ..board.ports import address_part, kind_of, list_ports
from ..text import one_line
from . import table
from .arguments import add_json
from .asking import Asking
from .output import complain, emit, say
from .resources import DEADLINE, Looked, look

_COLUMNS = (
    table.Column("machine", "AT"),
    table.Column("device", "DEVICE"),
    table.Column("usb", "USB"),
    table.Column("serial", "SERIAL NUMBER"),
    table.Column("what", "WHAT", shrinks=True),
    table.Column("holder", "HELD BY", shrinks=True),
    table.Column("address", "ADDRESS"),
)


def configure_list(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The boards that are plugged in here, and into each machine that a target with a board there names "
        "(serial://host/…).  With NAME: only those at the machines of these targets."
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="targets")
    add_json(parser)


def run_list(arguments: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = [] if arguments.names else [_row("", port) for port in list_ports()]
    found = configuration.load()
    known = {name: target.address for name, target in found.targets.items()}
    names = arguments.names or _one_for_each_machine(known)
    addresses = {name: found.target(name).address for name in names}
    failed = []
    for looked in _look(addresses):
        rows += _far_rows(looked, addresses[looked.target])
        if not looked.ok:
            failed.append(looked)
    if arguments.json:
        emit(rows)
    elif rows:
        table.show(
            _COLUMNS,
            [{**row, "what": row["kind"] or row["description"], "usb": _usb(row)} for row in rows],
        )
    elif not failed:
        where = "there" if arguments.names else "here"
        say(
            f"No board is plugged in {where}, as far as serial devices are shown (a cable that only charges?)."
        )
    for looked in failed:
        complain(f"{looked.target}: {one_line(looked.what)}. {one_line(looked.advice)}")
    return 1 if failed and not rows else 0


def _one_for_each_machine(addresses: Mapping[str, Address]) -> list[str]:
    """Of the boards at other machines."""
    found: dict[tuple[str | None, str, int | None], str] = {}
    for name, address in addresses.items():
        if address.scheme == "serial" and address.host is not None:
            found.setdefault((address.user, address.host, address.port), name)
    return list(found.values())


def _look(addresses: Mapping[str, Address]) -> list[Looked]:
    if not addresses:
        return []
    with Asking() as client:
        return look(client, {name: str(address) for name, address in addresses.items()}, DEADLINE, ["boards"])


def _far_rows(looked: Looked, address: Address) -> list[dict[str, Any]]:
    if looked.machine is None:
        return []
    where = "" if address.host is None else f"{address.user}@{address.host}" if address.user else address.host
    where += f":{address.port}" if where and address.port else ""
    rows = []
    for board in looked.machine.boards:
        vendor, product = (int(number, 16) if number else None for number in (board.vid, board.pid))
        usb = f"/usb/{board.vid}:{board.pid}/{address_part(board.serial)}" if board.serial else board.device
        port = BoardPort(
            board.device,
            description=" ".join(part for part in (board.manufacturer, board.product) if part),
            vendor=vendor,
            product=product,
            serial=board.serial or "",
            by_id=board.by_id or "",
            holder=board.holder or "",
            address=f"serial://{where}{usb}",
            kind=kind_of(vendor, product),
        )
        rows.append(_row(looked.target, port))
    return rows


def _row(machine: str, port: BoardPort) -> dict[str, Any]:
    """``machine``: the target at whose machine it is; empty: this one."""
    return {"machine": machine, **asdict(port)}


def _usb(row: Mapping[str, Any]) -> str:
    return "" if row["vendor"] is None else f"{row['vendor']:04x}:{row['product']:04x}"
