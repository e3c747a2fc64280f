"""Spares a connection of asyncssh's the empty packets that it sends in front of each packet.

They are a defence of ciphers in CBC mode, where whoever sees the wire knows the next initialization vector (RFC 4251,
9.3.1).  Other modes have no such weakness, and each of these packets costs a system call here and a wake-up of sshd:
a tenth of a millisecond on the way of every cell.
"""

from __future__ import annotations

from typing import Any

import asyncssh
from asyncssh.constants import MSG_IGNORE

_UNCHAINED = ("-gcm", "chacha20-", "-ctr")


def spare_empty_packets(connection: asyncssh.SSHClientConnection) -> None:
    """To be called once, when the connection is open."""
    send = connection.send_packet

    def send_packet(kind: int, *parts: bytes, **more: Any) -> None:
        if kind != MSG_IGNORE or _is_chained(connection.get_extra_info("send_cipher")):
            send(kind, *parts, **more)

    # asyncssh looks its own method up on the instance, for the empty packets too.
    connection.send_packet = send_packet  # type: ignore[method-assign,assignment]


def _is_chained(cipher: object) -> bool:
    """Whether a packet's last block is the next one's vector; what is not known is taken for such."""
    return not any(mode in str(cipher) for mode in _UNCHAINED)
