"""From an address to a board."""

from __future__ import annotations

from functools import partial

from ..address import Address
from .contract import OnState, SerialOptions, Transport
from .errors import Unsupported
from .kept_line import KeptLine
from .ports import locate
from .serial_line import SerialLine
from .session import Board
from .webrepl import WebRepl


def transport_to(address: Address, options: SerialOptions | None = None, password: str = "") -> Transport:
    """For ``serial:///…`` and ``webrepl://…``; one at another host is reached by way of the keeper.

    ``password``: for WebREPL.  Raises `Unsupported` for other addresses.  Nothing is opened.
    """
    if address.scheme == "serial" and address.host is None and address.path is not None:
        name = str(address) if address.path.startswith("/usb/") else address.path
        return SerialLine(partial(locate, address.path), options, name)
    if address.scheme == "serial" and address.path is not None:
        return KeptLine(address, options)
    if address.scheme == "webrepl" and address.host is not None:
        return WebRepl(address.host, address.port, password)
    raise Unsupported(
        f"{address} is no board that can be reached from here",
        "Write serial:///dev/ttyUSB0, serial:///usb/VID:PID/SERIAL or webrepl://host",
    )


def board_at(
    address: Address,
    options: SerialOptions | None = None,
    password: str = "",
    on_state: OnState | None = None,
) -> Board:
    """A `Board` over `transport_to`; call its `connect`."""
    return Board(transport_to(address, options, password), on_state)
