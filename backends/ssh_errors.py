"""What goes wrong between here and a shell on another machine, each with what to do about it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from ..launcher.text import one_line
from .contract import LOGIN, NotAnswered, RouteError
from .ssh_known_hosts import Entry, HostKey

_LONGEST_SAID = 300
CONNECTING = "connecting"


def said(text: str) -> str:
    """The far end's own words, fit for a sentence: on one line, not endless."""
    line = one_line(text)
    return line if len(line) <= _LONGEST_SAID else line[: _LONGEST_SAID - 1] + "…"


class NameUnknown(RouteError):
    def __init__(self, host: str) -> None:
        super().__init__(
            f"there is no host {host}: the name is not known",
            f"Is it spelled right, and is this machine on the right network (VPN)? ssh_config's view: ssh -G {host}",
            unreached=True,
        )


class Refused(RouteError):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"{host} refuses connections to port {port}",
            "Is sshd running there, and on this port?",
            unreached=True,
        )


class NoWay(RouteError):
    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            f"there is no way to {host}: {why}",
            "Is this machine on the network (VPN), and is the host up?",
            unreached=True,
        )


class TimedOut(RouteError):
    def __init__(self, host: str, seconds: float, doing: str) -> None:
        super().__init__(
            f"{host} did not answer within {seconds:.0f} s ({doing})",
            "Is it up, and does a firewall on the way let SSH pass?",
            unreached=doing == CONNECTING,
        )


class HostKeyUnknown(RouteError):
    """``strict``: ssh_config lets nobody accept it here."""

    def __init__(self, host: str, key: str, strict: bool = False) -> None:
        compare = "Compare it with what the host's administrators publish, then "
        accept = f"accept it once: {LOGIN}"
        add = (
            "add it to known_hosts yourself (ssh-keyscan shows it): ssh_config says StrictHostKeyChecking yes"
        )
        super().__init__(
            f"the key of {host} is not known ({key})",
            compare + (add if strict else accept),
            needs_user=True,
        )
        self.key = key


class HostKeyDeclined(RouteError):
    def __init__(self, host: str, key: str) -> None:
        super().__init__(
            f"the key of {host} was not accepted ({key})", "Nothing was sent to that host", needs_user=True
        )


class HostKeyChanged(RouteError):
    def __init__(self, host: str, name: str, key: HostKey | str, former: Entry | None) -> None:
        was = f"; until now it was {former.key} ({former.file}, line {former.line})" if former else ""
        file = f" -f {former.file}" if former else ""
        super().__init__(
            f"the key of {host} has changed: it is now {key}{was}",
            "Somebody may be listening in, or the host was installed anew: ask its administrators. If the new key is "
            f"right: ssh-keygen -R '{name}'{file}, then {LOGIN}",
            needs_user=True,
        )


class HostKeyRevoked(RouteError):
    def __init__(self, host: str, key: HostKey | str) -> None:
        super().__init__(
            f"the key of {host} is marked as revoked ({key})",
            "Whoever holds it may not be that host: ask its administrators",
            needs_user=True,
        )


class HostKeyNotKept(RouteError):
    def __init__(self, file: str, why: str) -> None:
        super().__init__(
            f"the host's key cannot be written into {file}: {why}",
            "Make the file writable, or name another one: UserKnownHostsFile in ssh_config",
            needs_user=True,
        )


class LoginRefused(RouteError):
    """Nobody was let in."""

    def __init__(
        self, login: str, tried: Sequence[str], offered: Sequence[str], banner: str, asked: bool
    ) -> None:
        methods = ", ".join(dict.fromkeys(tried)) or "nothing: there was no key, and nobody to ask"
        takes = f"; it takes {', '.join(offered)}" if offered else ""
        says = f". It says: {said(banner)}" if banner.strip() else ""
        super().__init__(
            f"{login} was not let in (tried {methods}{takes}){says}",
            f"Check user name and password, and try again: {LOGIN}"
            if asked
            else f"Log in once for all kernels: {LOGIN}",
            needs_user=True,
        )


class NobodyAnswered(RouteError):
    """It would go on if somebody answered; ``tried``: what was not enough."""

    def __init__(self, declined: NotAnswered, tried: Sequence[str]) -> None:
        methods = ", ".join(dict.fromkeys(tried))
        before = f" (tried before that: {methods})" if methods else ""
        super().__init__(f"{declined.what}{before}", declined.advice, needs_user=True)


class TooManyFailures(RouteError):
    def __init__(self, login: str) -> None:
        super().__init__(
            f"{login} was not let in: too many keys were tried",
            "Name the right one in ssh_config: IdentityFile together with IdentitiesOnly yes",
            needs_user=True,
        )


class NoMoreSessions(RouteError):
    """The connection carries as many commands as the host allows (MaxSessions in sshd_config)."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            f"{host} does not open a session: {said(why)}",
            "Does the account run commands there? MaxSessions in its sshd_config must be 1 or more",
        )


class Overloaded(RouteError):
    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} closed the connection before the login began",
            "Too many logins at a time (MaxStartups) or a ban for failed ones look like this; it is tried again",
        )


class JumpFailed(RouteError):
    def __init__(self, jump: str, host: str, why: str) -> None:
        super().__init__(
            f"{jump} makes no connection to {host}: {said(why)}",
            "Is that host up and reachable from there, and does sshd there allow it (AllowTcpForwarding)?",
        )


class ProxyFailed(RouteError):
    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            f"the ProxyCommand for {host} ended: {said(why) or 'it said nothing'}",
            "Run it by hand, and see what it says",
        )


class NothingInCommon(RouteError):
    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            f"{host} and this machine agree on no way to encrypt: {said(why)}",
            'Its sshd is very old or very strict; ssh = "program" in the target\'s configuration may know more',
            needs_user=True,
        )


def broke(error: Exception | None) -> str:
    """Why a stream has ended, as a clause for a cell; empty: it simply did."""
    if error is None:
        return ""
    words = said((isinstance(error, OSError) and error.strerror) or str(error))
    return f"the connection broke{f' ({words})' if words else ''}"


class Cut(RouteError):
    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            f"the connection to {host} broke: {said(why) or 'it was closed'}", "It is tried again"
        )


class NoAccess(RouteError):
    """The account may not log in now: nologin(5), an expired account."""

    def __init__(self, login: str, why: str) -> None:
        super().__init__(f"{login} was not let in: {said(why)}", "Ask the host's administrators")


class AnsweredTooLate(RouteError):
    """Not a matter for the user: the next try asks again."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} did not wait for the answer any longer", "It asks again")


class ClosedAfterAsking(RouteError):
    """It asked, and hung up instead of saying yes or no: LoginGraceTime was over, or it lets nobody in now."""

    def __init__(self, login: str, banner: str) -> None:
        says = f". It says: {said(banner)}" if banner.strip() else ""
        super().__init__(
            f"{login} was asked, and the host closed the connection instead of letting it in{says}",
            "Hosts wait only so long for an answer (LoginGraceTime): it asks again, be quicker then. If it was in "
            "time, ask the host's administrators",
        )


class NoClient(RouteError):
    def __init__(self, client: str, why: str) -> None:
        super().__init__(
            f"{client} cannot be used here: {why}",
            'Choose another one: ssh = "auto" in the target\'s configuration',
            needs_user=True,
        )


def from_os_error(host: str, port: int, error: OSError) -> RouteError:
    """Why no TCP connection came about."""
    if isinstance(error, socket.gaierror):
        return NameUnknown(host)
    if error.errno == errno.ECONNREFUSED:
        return Refused(host, port)
    if error.errno == errno.ECONNRESET:
        return Overloaded(host)
    return NoWay(host, error.strerror or str(error))
