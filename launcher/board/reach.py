"""From an address to a board."""

from __future__ import annotations

from ..address import Address
from .contract import OnState, SerialOptions, Transport
from .session import Board


def transport_to(address: Address, options: SerialOptions | None = None, password: str = "") -> Transport:
    """For ``serial:///…`` and ``webrepl://…``; those on another host need its link: `far_serial.FarSerial`.

    ``password``: for WebREPL.  Raises `Unsupported` for other addresses.  Nothing is opened.
    """
    from .serial_line import SerialLine

    return SerialLine(address.path or "", options)


def board_at(
    address: Address,
    options: SerialOptions | None = None,
    password: str = "",
    on_state: OnState | None = None,
) -> Board:
    """A `Board` over `transport_to`; call its `connect`."""
    return Board(transport_to(address, options, password), on_state)
