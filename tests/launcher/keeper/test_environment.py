"""What clients lend the keeper."""

from __future__ import annotations

import socket
from pathlib import Path

from farkernel.launcher.keeper.environment import LentEnvironment


def test_the_newest_that_lives_is_used(tmp_path: Path) -> None:
    lent = LentEnvironment()
    with socket.socket(socket.AF_UNIX) as old, socket.socket(socket.AF_UNIX) as new:
        old.bind(str(tmp_path / "old"))
        new.bind(str(tmp_path / "new"))
        lent.lend({"SSH_AUTH_SOCK": str(tmp_path / "old"), "DISPLAY": ":0"})
        lent.lend({"SSH_AUTH_SOCK": str(tmp_path / "new")})
        assert lent.current() == {"SSH_AUTH_SOCK": str(tmp_path / "new"), "DISPLAY": ":0"}
        (tmp_path / "new").unlink()  # that login has ended
        assert lent.current()["SSH_AUTH_SOCK"] == str(tmp_path / "old")
        (tmp_path / "old").unlink()
        assert lent.current() == {"DISPLAY": ":0"}


def test_a_ticket_cache_is_a_file(tmp_path: Path) -> None:
    lent = LentEnvironment()
    lent.lend({"KRB5CCNAME": f"FILE:{tmp_path}/ticket"})
    assert lent.current() == {}
    (tmp_path / "ticket").write_text("")
    assert lent.current() == {"KRB5CCNAME": f"FILE:{tmp_path}/ticket"}


def test_only_what_is_known_is_taken() -> None:
    lent = LentEnvironment()
    lent.lend({"LD_PRELOAD": "/tmp/evil.so", "PATH": "/tmp", "DISPLAY": "x\0y", "XAUTHORITY": "x" * 5000})
    assert lent.current() == {}


def test_the_same_login_coming_again_is_remembered_once() -> None:
    lent = LentEnvironment()
    for number in range(40):
        lent.lend({"DISPLAY": f":{number % 2}"})
    assert lent.current() == {"DISPLAY": ":1"}
    assert len(lent._lent) == 2
