"""Which keys a host would take: each is shown to it, none is used (RFC 4252 §7: it answers before a signature)."""

from __future__ import annotations

from dataclasses import dataclass

import asyncssh

from .ssh_asyncssh import Login


@dataclass
class TriedKey:
    """One key or certificate, and what the host said."""

    name: str
    taken: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({'taken' if self.taken else 'refused'})"


class Trying(Login):
    """A login that goes through all keys and is then refused; nobody is asked anything."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.keys: list[TriedKey] = []

    @property
    def some_taken(self) -> bool:
        return any(key.taken for key in self.keys)

    async def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        pair = await super().public_key_auth_requested()
        if pair is None:
            return None
        tried = TriedKey(_name(pair))
        self.keys.append(tried)

        async def sign(data: bytes) -> bytes:
            """Wanted only when the host would take the key; ValueError: asyncssh goes on to the next."""
            tried.taken = True
            raise ValueError("it was only shown")

        vars(pair)["sign_async"] = sign
        return pair

    async def password_auth_requested(self) -> None:
        return None

    async def kbdint_auth_requested(self) -> None:
        return None


def _name(pair: asyncssh.SSHKeyPair) -> str:
    what = "certificate" if pair.has_cert else "key"
    whose = "the SSH agent's " if pair.get_key_type() == "agent" else ""
    return f"{whose}{what} {pair.get_comment(errors='replace') or pair.get_algorithm()}"
