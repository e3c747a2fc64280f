"""`farkernel board list`: what is plugged in here."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ..board.ports import list_ports
from . import table
from .arguments import add_json
from .output import emit, say

_COLUMNS = (
    table.Column("device", "DEVICE"),
    table.Column("usb", "USB"),
    table.Column("serial", "SERIAL NUMBER"),
    table.Column("what", "WHAT", shrinks=True),
    table.Column("holder", "HELD BY", shrinks=True),
    table.Column("address", "ADDRESS"),
)


def configure_list(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run_list(arguments: argparse.Namespace) -> int:
    ports = list_ports()
    if arguments.json:
        emit([asdict(port) for port in ports])
        return 0
    if not ports:
        say(
            "No board is plugged in here, as far as this machine shows serial devices (a cable that only charges?)."
        )
        return 0
    rows = []
    for port in ports:
        usb = "" if port.vendor is None else f"{port.vendor:04x}:{port.product:04x}"
        rows.append({**asdict(port), "usb": usb, "what": port.kind or port.description})
    table.show(_COLUMNS, rows)
    return 0
