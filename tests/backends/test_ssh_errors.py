"""What the ssh program says, and what is made of it; sentences with nobody else's escape codes."""

from __future__ import annotations

import errno
import socket

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.backends import ssh_errors
from farkernel.backends.contract import RouteError
from farkernel.backends.ssh_config import HostSettings, Place
from farkernel.backends.ssh_stderr import translate

HOST = HostSettings(Place("host"), "host", 22, "me", known_hosts=())
JUMPED = HostSettings(Place("host"), "host", 22, "me", via=HOST)
PROXIED = HostSettings(Place("host"), "host", 22, "me", proxy_command="nc host 22")

# The words are those that ssh 8.4, 9.2 and 10.0 were seen to say.
SAID = [
    (
        HOST,
        "ssh: Could not resolve hostname host: Name or service not known",
        ssh_errors.NameUnknown,
        "no host host",
    ),
    (
        HOST,
        "ssh: connect to host host port 22: Connection refused",
        ssh_errors.Refused,
        "refuses connections to port 22",
    ),
    (HOST, "ssh: connect to host host port 22: Connection timed out", ssh_errors.TimedOut, "did not answer"),
    (HOST, "ssh: connect to host host port 22: No route to host", ssh_errors.NoWay, "No route to host"),
    (
        HOST,
        "ssh: connect to host host port 22: Network is unreachable",
        ssh_errors.NoWay,
        "Network is unreachable",
    ),
    (
        HOST,
        "kex_exchange_identification: Connection closed by remote host",
        ssh_errors.Overloaded,
        "MaxStartups",
    ),
    (
        HOST,
        "kex_exchange_identification: read: Connection reset by peer",
        ssh_errors.Overloaded,
        "MaxStartups",
    ),
    (
        HOST,
        "ssh_exchange_identification: Connection closed by remote host",
        ssh_errors.Overloaded,
        "MaxStartups",
    ),
    (
        HOST,
        "debug1: Authentications that can continue: publickey\ndebug1: Offering public key: /k/id RSA SHA256:x agent\n"
        "me@host: Permission denied (publickey).",
        ssh_errors.LoginRefused,
        r"tried key /k/id; it takes publickey",
    ),
    (
        HOST,
        "Received disconnect from 127.0.0.1 port 22:2: Too many authentication failures\nDisconnected from x",
        ssh_errors.TooManyFailures,
        "IdentitiesOnly",
    ),
    (
        HOST,
        "debug1: Server host key: ssh-ed25519 SHA256:abc\nNo ED25519 host key is known for host and you have requested "
        "strict checking.\nHost key verification failed.",
        ssh_errors.HostKeyUnknown,
        r"ED25519 SHA256:abc",
    ),
    (
        HOST,
        "debug1: Server host key: ssh-ed25519 SHA256:abc\n@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!  @\n"
        "Offending ED25519 key in /f:3\nHost key verification failed.",
        ssh_errors.HostKeyChanged,
        r"it is now ED25519 SHA256:abc",
    ),
    (
        HOST,
        "Unable to negotiate with 1.2.3.4 port 22: no matching key exchange method found. Their offer: x",
        ssh_errors.NothingInCommon,
        "no matching key exchange",
    ),
    (
        HOST,
        "debug1: Authentications that can continue: publickey\nMaintenance until noon\nConnection closed by 1.2.3.4 port 22",
        ssh_errors.NoAccess,
        "Maintenance until noon",
    ),
    (
        JUMPED,
        "channel 0: open failed: administratively prohibited: open failed\nstdio forwarding failed\n"
        "kex_exchange_identification: Connection closed by remote host",
        ssh_errors.JumpFailed,
        "administratively prohibited",
    ),
    (
        PROXIED,
        "nc: bad\nkex_exchange_identification: Connection closed by remote host",
        ssh_errors.ProxyFailed,
        "nc: bad",
    ),
    (HOST, "", ssh_errors.Cut, "ssh ended without a word"),
    (HOST, "\x1b]0;owned\x07what is this", ssh_errors.Cut, "what is this"),
]


@pytest.mark.parametrize(("host", "text", "kind", "part"), SAID)
def test_what_ssh_says_is_understood(
    host: HostSettings, text: str, kind: type[RouteError], part: str
) -> None:
    error = translate(host, text, [], False)
    assert type(error) is kind
    assert part in str(error)
    assert error.advice
    assert error.what.isprintable()


NEEDS_USER = {"HostKeyUnknown", "HostKeyChanged", "LoginRefused", "TooManyFailures", "NothingInCommon"}


@pytest.mark.parametrize(("host", "text", "kind", "part"), SAID)
def test_only_what_a_person_can_mend_waits_for_one(
    host: HostSettings, text: str, kind: type[RouteError], part: str
) -> None:
    assert translate(host, text, [], False).needs_user == (kind.__name__ in NEEDS_USER)


@given(st.text(max_size=500))
def test_whatever_ssh_says_comes_to_one_printable_sentence(text: str) -> None:
    for host in (HOST, JUMPED, PROXIED):
        assert translate(host, text, [], False).what.isprintable()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(-2, "Name or service not known"), ssh_errors.NameUnknown),
        (OSError(errno.ECONNREFUSED, "Connection refused"), ssh_errors.Refused),
        (OSError(errno.ECONNRESET, "reset"), ssh_errors.Overloaded),
        (OSError(errno.EHOSTUNREACH, "No route to host"), ssh_errors.NoWay),
        (OSError("odd"), ssh_errors.NoWay),
    ],
)
def test_why_there_is_no_connection(error: OSError, kind: type[RouteError]) -> None:
    assert type(ssh_errors.from_os_error("host", 22, error)) is kind


def test_a_banner_is_cut_and_cleaned() -> None:
    error = ssh_errors.LoginRefused(
        "me@host", ["a", "a", "b"], ["password"], "\x1b[31mno\x1b[0m " * 500, True
    )
    assert error.what.isprintable()
    assert len(error.what) < 500
    assert "(tried a, b; it takes password)" in error.what


def test_a_client_that_is_not_installed_is_said() -> None:
    error = ssh_errors.NoClient("paramiko", "paramiko is not installed")
    assert error.needs_user
    assert 'ssh = "auto"' in error.advice


@pytest.mark.parametrize(
    ("error", "clause"),
    [
        (None, ""),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "the connection broke (Broken pipe)"),
        (asyncssh.ConnectionLost("Connection lost\x1b[31m"), "the connection broke (Connection lost)"),
        (OSError(), "the connection broke"),
    ],
)
def test_why_a_stream_has_ended(error: Exception | None, clause: str) -> None:
    assert ssh_errors.broke(error) == clause
