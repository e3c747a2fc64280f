"""Passwords as they go onto a card: never in clear."""

from __future__ import annotations

import hashlib
import re
import secrets

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS = 5000
_HASHED = re.compile(r"\$(?:5|6|y|2[aby])\$[!-9;-~]+", re.ASCII)


def password_hash(password: str, salt: str = "") -> str:
    """As /etc/shadow has it.  What is a hash already stays as it is."""
    if _HASHED.fullmatch(password):
        return password
    salt = salt or "".join(secrets.choice(_ALPHABET) for _ in range(16))
    return sha512_crypt(password.encode(), salt)


def wifi_key(password: str, network: str) -> str:
    """The key of 64 hex digits that WPA makes of a password (IEEE 802.11-2020 J.4); a key stays as it is."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", password, re.ASCII):
        return password.lower()
    return hashlib.pbkdf2_hmac("sha1", password.encode(), network.encode(), 4096, 32).hex()


def sha512_crypt(password: bytes, salt: str) -> str:
    """SHA-crypt by Ulrich Drepper ("Unix crypt using SHA-256 and SHA-512", version 0.6): ``$6$salt$…``.

    Python's own crypt module is gone since 3.13.
    """
    seed = salt.encode("ascii")[:16]
    alternate = hashlib.sha512(password + seed + password).digest()
    digest = hashlib.sha512(password + seed + _repeated(alternate, len(password)))
    size = len(password)
    while size:
        digest.update(alternate if size & 1 else password)
        size >>= 1
    result = digest.digest()
    many_passwords = _repeated(hashlib.sha512(password * len(password)).digest(), len(password))
    many_salts = _repeated(hashlib.sha512(seed * (16 + result[0])).digest(), len(seed))
    for number in range(_ROUNDS):
        round_ = hashlib.sha512(many_passwords if number & 1 else result)
        if number % 3:
            round_.update(many_salts)
        if number % 7:
            round_.update(many_passwords)
        round_.update(result if number & 1 else many_passwords)
        result = round_.digest()
    return f"$6${seed.decode('ascii')}${_encoded(result)}"


def _repeated(block: bytes, size: int) -> bytes:
    return (block * (size // len(block) + 1))[:size]


def _encoded(digest: bytes) -> str:
    """In the order and the alphabet of that paper: three bytes, turned round by one each time, are four letters."""
    letters = ""
    first, second, third = 0, 21, 42
    for _ in range(21):
        letters += _letters(digest[first] << 16 | digest[second] << 8 | digest[third], 4)
        first, second, third = second + 1, third + 1, first + 1
    return letters + _letters(digest[63], 2)


def _letters(value: int, count: int) -> str:
    return "".join(_ALPHABET[value >> 6 * number & 63] for number in range(count))
