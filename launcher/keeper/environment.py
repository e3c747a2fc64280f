"""What clients lend the keeper: SSH_AUTH_SOCK and the like, of the login that spoke last and still lives."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Mapping

from ..client_protocol import ENVIRONMENT

_MOST_REMEMBERED = 16
_LONGEST = 4096


class LentEnvironment:
    """The newest values first; one that points to a socket or file that is gone is passed over."""

    def __init__(self) -> None:
        self._lent: deque[Mapping[str, str]] = deque(maxlen=_MOST_REMEMBERED)

    def lend(self, environment: Mapping[str, str]) -> None:
        """A client has come with these; names that we do not know and values that cannot be one are dropped."""
        known = {
            name: value
            for name, value in environment.items()
            if name in ENVIRONMENT and value and len(value) <= _LONGEST and "\0" not in value
        }
        if known and (not self._lent or self._lent[0] != known):
            if known in self._lent:
                self._lent.remove(known)
            self._lent.appendleft(known)

    def current(self) -> dict[str, str]:
        """What may be used now."""
        found: dict[str, str] = {}
        for lent in self._lent:
            for name, value in lent.items():
                if name not in found and _lives(name, value):
                    found[name] = value
        return found


def _lives(name: str, value: str) -> bool:
    path = value.removeprefix("FILE:") if name == "KRB5CCNAME" else value
    if name == "SSH_AUTH_SOCK":
        try:
            return stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            return False
    if name in ("XAUTHORITY", "KRB5CCNAME") and path.startswith("/"):
        return os.path.exists(path)
    return True
