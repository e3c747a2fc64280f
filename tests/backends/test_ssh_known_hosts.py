"""known_hosts: which lines speak of a host, and how one is added."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.backends.ssh_known_hosts import (
    Entry,
    HostKey,
    Known,
    Verdict,
    append,
    find_known,
    new_line,
    parse_line,
    remember,
)

KEY = HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32))
OTHER = HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(31) + b"\1")
TEXT = f"{KEY.kind} {base64.b64encode(KEY.blob).decode()}"


@pytest.mark.parametrize(
    ("patterns", "name", "speaks"),
    [
        ("host", "host", True),
        ("HOST", "host", True),
        ("other,host", "host", True),
        ("*.org", "a.org", True),
        ("*.org,!a.org", "a.org", False),
        ("!a.org,*.org", "a.org", False),
        ("h?st", "host", True),
        ("[host]:2222", "[host]:2222", True),
        ("[host]:2222", "host", False),
        ("host", "[host]:2222", False),
        ("[h]ost", "host", False),
        ("|1|AAAA|AAAA", "host", False),
        ("|2|x", "host", False),
        ("|1|!|!", "host", False),
    ],
)
def test_patterns(patterns: str, name: str, speaks: bool) -> None:
    assert (parse_line(f"{patterns} {TEXT} comment here", name) is not None) == speaks


@pytest.mark.parametrize(
    "line", ["", "# host ssh-rsa x", "host", "host ssh-rsa", "host ssh-rsa !!", "@odd host " + TEXT]
)
def test_lines_that_say_nothing(line: str) -> None:
    assert parse_line(line, "host") is None


def test_markers() -> None:
    entry = parse_line(f"@revoked * {TEXT}", "host", "f", 3)
    assert entry == Entry(KEY, "@revoked", "f", 3)
    assert Known((entry,)).judge(KEY) is Verdict.REVOKED
    authority = parse_line(f"@cert-authority *.org {TEXT}", "a.org")
    assert authority is not None
    assert Known((authority,)).judge(KEY) is Verdict.UNKNOWN
    assert Known((authority,)).marked("@cert-authority") == [KEY]


def test_verdicts(home: Path) -> None:
    file = home / "known_hosts"
    assert find_known([str(file)], "host").judge(KEY) is Verdict.UNKNOWN
    file.write_text(f"\nhost {TEXT}\n")
    known = find_known([str(home / "none"), str(file)], "host")
    assert known.judge(KEY) is Verdict.KNOWN
    assert known.judge(OTHER) is Verdict.CHANGED
    assert known.judge(HostKey("ssh-rsa", b"x")) is Verdict.CHANGED
    former = known.former(OTHER)
    assert former is not None
    assert (former.file, former.line) == (str(file), 2)


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=200), st.text(max_size=20))
def test_no_line_is_too_strange(line: str, name: str) -> None:
    entry = parse_line(line, name)
    assert entry is None or entry.marker in ("", "@cert-authority", "@revoked")


HOSTS = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,30}", fullmatch=True)


@given(HOSTS, st.booleans(), st.integers(1, 65535))
def test_what_is_written_is_found_again(host: str, hashed: bool, port: int) -> None:
    name = host if port == 22 else f"[{host}]:{port}"
    line = new_line(name, KEY, hashed)
    assert line.count("\n") == 1
    assert (host in line) or hashed
    entry = parse_line(line, name)
    assert entry is not None
    assert entry.key == KEY
    assert parse_line(line, name + "x") is None


def test_ssh_keygen_agrees(home: Path) -> None:
    file = home / "sub" / "known_hosts"
    remember([str(file)], "[host]:2222", KEY, True)
    remember([str(file)], "host", KEY, False)
    assert file.stat().st_mode & 0o777 == 0o600
    for name in ("[host]:2222", "host"):
        done = subprocess.run(
            ["ssh-keygen", "-l", "-F", name, "-f", str(file)], capture_output=True, check=True
        )
        assert KEY.fingerprint in done.stdout.decode()


def test_a_link_stays_a_link_and_an_open_line_is_ended(home: Path) -> None:
    real = home / "real"
    real.write_text("mine")
    link = home / "known_hosts"
    link.symlink_to(real)
    append(str(link), "line\n")
    append(str(link), "")
    assert link.is_symlink()
    assert real.read_text() == "mine\nline\n"
    append(os.devnull, "line\n")
    assert not os.path.isfile(os.devnull)


def test_a_fingerprint_is_that_of_ssh_keygen(home: Path) -> None:
    file = home / "key.pub"
    file.write_text(TEXT + "\n")
    done = subprocess.run(["ssh-keygen", "-l", "-f", str(file)], capture_output=True, check=True)
    assert done.stdout.decode().split()[1] == KEY.fingerprint
    assert str(KEY) == f"ED25519 {KEY.fingerprint}"
