"""What asyncssh puts on the wire, as a real sshd sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..sites.ssh import Sshd
from .ssh_near_end import Near, play

pytestmark = pytest.mark.servers


def empty_packets(home: Path, cipher: str) -> int:
    """How many of them a host gets that is told to do something, over that cipher."""
    with Sshd(home.parent / "sshd", {"LogLevel": "DEBUG3", "Ciphers": cipher}) as host:
        host.write_client_config(f"Ciphers {cipher}")

        async def act(near: Near) -> None:
            heard = await near.run(host.place(), "echo done")
            assert bytes(heard.data) == b"done\n"

        play(act, "asyncssh")
        log = host.log.read_text()
    assert f"cipher: {cipher}" in log
    return log.count("Received SSH2_MSG_IGNORE")


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr"])
def test_no_empty_packets_where_they_defend_nothing(home: Path, cipher: str) -> None:
    """Those of the login cannot be spared: the connection is not ours yet."""
    login = 3
    assert empty_packets(home, cipher) <= login


def test_the_defence_of_cbc_stays(home: Path) -> None:
    assert empty_packets(home, "aes128-cbc") > 5
