"""What the ssh program says on stderr, as errors of ours.

The words are OpenSSH's; lines that begin with ``debug1:`` are asked for (`ssh_program`), because only they say which
key a host has and what was tried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from . import ssh_errors
from .contract import RouteError
from .ssh_config import HostSettings
from .ssh_host_keys import known_of
from .ssh_known_hosts import Entry, short_kind

_SHOWN_KEY = re.compile(r"^debug1: Server host key: (\S+) (SHA256:\S+)", re.MULTILINE)
_OFFERED = re.compile(r"^debug1: Authentications that can continue: (\S+)", re.MULTILINE)
_TRIED_KEY = re.compile(r"^debug1: (?:Offering public key|Trying private key): (\S+)", re.MULTILINE)
_DENIED = re.compile(r"Permission denied \(([^)]*)\)")
_OFFENDING = re.compile(r"^Offending (\S+) key in (.+):([0-9]+)", re.MULTILINE)


def translate(settings: HostSettings, text: str, tried: Sequence[str], asked: bool) -> RouteError:
    """Why a master ended before it was up."""
    heard = plain(text)
    for pattern, make in _PATTERNS:
        if re.search(pattern, heard):
            return make(settings, text, tried, asked)
    last = heard.strip().splitlines()
    return ssh_errors.Cut(settings.host, last[-1] if last else "ssh ended without a word")


def plain(text: str) -> str:
    """What a person would have seen."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("debug1:"))


def banner(text: str) -> str:
    """The host's own words: what is neither ssh's nor about files of ours."""
    ours = (
        "debug1:",
        "Warning:",
        "Connection ",
        "kex_exchange",
        "Received disconnect",
        "Disconnected from",
        "OpenSSH_",
    )
    lines = [
        line for line in text.splitlines() if not line.startswith(ours) and "Permission denied" not in line
    ]
    return "\n".join(lines)


def _shown_key(text: str) -> str:
    found = _SHOWN_KEY.findall(text)
    if not found:
        return "no key was shown"
    kind, fingerprint = found[-1]
    return f"{short_kind(kind)} {fingerprint}"


def _unknown(settings: HostSettings, text: str, tried: Sequence[str], asked: bool) -> RouteError:
    return ssh_errors.HostKeyUnknown(settings.host, _shown_key(text))


def _changed(settings: HostSettings, text: str, tried: Sequence[str], asked: bool) -> RouteError:
    found = _OFFENDING.search(text)
    former: Entry | None = None
    if found is not None:
        entries = known_of(settings).entries
        former = next((each for each in entries if (each.file, each.line) == (found[2], int(found[3]))), None)
    return ssh_errors.HostKeyChanged(settings.host, settings.known_as, _shown_key(text), former)


def _refused(settings: HostSettings, text: str, tried: Sequence[str], asked: bool) -> RouteError:
    found = _DENIED.search(text)
    offered = _OFFERED.findall(text)[-1:] or ([found[1]] if found else [])
    keys = [f"key {path}" for path in _TRIED_KEY.findall(text)]
    return ssh_errors.LoginRefused(
        str(settings), [*keys, *tried], offered[0].split(",") if offered else [], banner(text), asked
    )


def _revoked(settings: HostSettings, text: str, tried: Sequence[str], asked: bool) -> RouteError:
    return ssh_errors.HostKeyRevoked(settings.host, _shown_key(text))


def _strangers(settings: HostSettings, text: str, tried: Sequence[str], asked: bool) -> RouteError:
    return ssh_errors.NothingInCommon(settings.host, plain(text).strip().splitlines()[-1])


def _overloaded(settings: HostSettings, text: str, tried: Sequence[str], asked: bool) -> RouteError:
    words = banner(text).strip()
    if settings.proxy_command is not None:
        return ssh_errors.ProxyFailed(settings.host, words)
    if settings.via is not None and "Remote protocol version" not in text:
        why = words.splitlines()[0] if words else "it closed the channel"
        return ssh_errors.JumpFailed(str(settings.via), f"{settings.host}:{settings.port}", why)
    if asked:
        return ssh_errors.ClosedAfterAsking(str(settings), words)
    if "Authenticated" in text or "Authentications that can continue" in text:
        return ssh_errors.NoAccess(str(settings), words or "it closed the connection")
    return ssh_errors.Overloaded(settings.host)


def _jump_failed(settings: HostSettings, text: str, tried: Sequence[str], asked: bool) -> RouteError:
    said = [line for line in plain(text).splitlines() if "forwarding failed" in line or "open failed" in line]
    return ssh_errors.JumpFailed(
        str(settings.via) if settings.via else "the jump host", f"{settings.host}:{settings.port}", said[0]
    )


def _no_way(settings: HostSettings, text: str, tried: Sequence[str], asked: bool) -> RouteError:
    why = re.search(r"No route to host|Network is (?:unreachable|down)|Host is down", text)
    return ssh_errors.NoWay(settings.host, why[0] if why else "no route")


Make = Callable[[HostSettings, str, Sequence[str], bool], RouteError]

# The first that is found counts.
_PATTERNS: Sequence[tuple[str, Make]] = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|HOST IDENTIFICATION HAS CHANGED", _changed),
    (r"marked as revoked|Host key .* revoked", _revoked),
    (r"Host key verification failed|host key is known for", _unknown),
    (r"Could not resolve hostname", lambda s, *_: ssh_errors.NameUnknown(s.host)),
    (r"forwarding failed|open failed|administratively prohibited", _jump_failed),
    (r"connect to host .*: Connection refused", lambda s, *_: ssh_errors.Refused(s.host, s.port)),
    (r"timed out", lambda s, *_: ssh_errors.TimedOut(s.host, float(s.connect_timeout or 10), "connecting")),
    (r"No route to host|Network is|Host is down", _no_way),
    (r"Too many authentication failures", lambda s, *_: ssh_errors.TooManyFailures(str(s))),
    (r"Permission denied \(", _refused),
    (r"Unable to negotiate|no matching|Protocol major versions differ|invalid format", _strangers),
    (r"exchange_identification|Connection (?:closed|reset)|Broken pipe|banner exchange", _overloaded),
)
