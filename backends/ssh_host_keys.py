"""What becomes of the key that a host shows: verified, accepted by the user, or refused."""

from __future__ import annotations

from .contract import NotAnswered, RouteError
from .ssh_asking import Asker
from .ssh_config import HostSettings
from .ssh_errors import HostKeyChanged, HostKeyDeclined, HostKeyNotKept, HostKeyRevoked, HostKeyUnknown
from .ssh_known_hosts import HostKey, Known, Verdict, find_known, remember

_YES = frozenset({"yes", "y"})


def known_of(settings: HostSettings) -> Known:
    """All that known_hosts says of that host; as ssh does, without the port too if nothing is known with it."""
    files = (*settings.known_hosts, *settings.more_known_hosts)
    known = find_known(files, settings.known_as)
    if not known.marked() and settings.port != 22 and not settings.host_key_alias:
        plain = find_known(files, settings.host.lower())
        return Known((*known.entries, *plain.entries))
    return known


def refusal(settings: HostSettings, known: Known, key: HostKey) -> RouteError | None:
    """Why this key is not to be trusted; None: it is known."""
    verdict = known.judge(key)
    if verdict is Verdict.KNOWN:
        return None
    if verdict is Verdict.REVOKED:
        return HostKeyRevoked(str(settings), key)
    if verdict is Verdict.CHANGED:
        return HostKeyChanged(settings.host, settings.known_as, key, known.former(key))
    return HostKeyUnknown(settings.host, str(key), settings.strict == "yes")


async def accept(settings: HostSettings, key: HostKey, asker: Asker) -> None:
    """A key that nothing is known of: as StrictHostKeyChecking says.  Returns when it is written down.

    Raises `HostKeyUnknown`, `HostKeyDeclined`, `HostKeyNotKept`.
    """
    if settings.strict == "yes" or not settings.known_hosts:
        raise HostKeyUnknown(settings.host, str(key), settings.strict == "yes")
    if settings.strict == "ask":
        await ask(settings.host, str(key), asker)
    try:
        remember(settings.known_hosts, settings.known_as, key, settings.hash_known_hosts)
    except OSError as error:
        raise HostKeyNotKept(settings.known_hosts[0], error.strerror or str(error)) from error


async def ask(host: str, key: str, asker: Asker) -> None:
    """Whether it is the right one; raises `HostKeyUnknown` when nobody is there, `HostKeyDeclined` for a no."""
    text = f"The key of {host} is not known: {key}\nIs it the right one (yes/no)? "
    try:
        answer = (await asker.ask(text, hidden=False, terminal=True)).strip()
    except NotAnswered:
        raise HostKeyUnknown(host, key) from None
    # As with ssh, the fingerprint itself is an answer too: typed or pasted from where it was published.
    if answer.lower() not in _YES and answer != key.rpartition(" ")[2]:
        raise HostKeyDeclined(host, key)
