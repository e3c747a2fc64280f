"""Keys to log in with, for asyncssh: the SSH agent's, and files, which are unlocked only when the host wants them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import struct
from collections.abc import AsyncGenerator
from pathlib import Path

import asyncssh
from asyncssh import SSHCertificate, SSHKey, SSHKeyPair

from ..launcher.errors import FarkernelError
from .ssh_asking import Asker
from .ssh_config import HostSettings

_TRIES = 3  # to type a passphrase, as with ssh
_AGENT_DEADLINE = 5.0
# path and time of change → the key, once unlocked: kept as an SSH agent would, so that a cut needs no passphrase.
_unlocked: dict[tuple[str, int], SSHKey] = {}


class LockedKey(SSHKeyPair):
    """A file's key that is unlocked when it has to sign: the host must have said first that it takes this key."""

    _key_type = "local"

    def __init__(self, path: str, public: SSHKey, certificate: SSHCertificate | None, asker: Asker) -> None:
        super().__init__(
            public.algorithm,
            public.algorithm,
            public.sig_algorithms,
            public.sig_algorithms,
            public.public_data,
            path,
            certificate,
        )
        self._path = path
        self._asker = asker

    async def sign_async(self, data: bytes) -> bytes:
        """ValueError, which asyncssh takes as "not with this one", when it stays locked."""
        try:
            key = await _unlock(self._path, self._asker)
        except FarkernelError as error:
            raise ValueError(str(error)) from error
        return key.sign(data, self.sig_algorithm)


async def _unlock(path: str, asker: Asker) -> SSHKey:
    """Raises `NotAnswered`, or ValueError when no passphrase fits."""
    stamp, content = _read(path)
    if stamp in _unlocked:
        return _unlocked[stamp]
    for _ in range(_TRIES):
        passphrase = await asker.ask(f"Passphrase for the key {path}: ")
        with contextlib.suppress(asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
            _unlocked[stamp] = await asyncio.to_thread(asyncssh.import_private_key, content, passphrase)
            return _unlocked[stamp]
    raise ValueError("no passphrase fitted")


def _read(path: str) -> tuple[tuple[str, int], bytes]:
    return (path, os.stat(path).st_mtime_ns), Path(path).read_bytes()


async def key_pairs(settings: HostSettings, agent: str, asker: Asker) -> AsyncGenerator[SSHKeyPair]:
    """In the order of ssh: the agent's that ssh_config names, the agent's others, files that are in no agent."""
    certificates = [each for path in settings.certificate_files if (each := _certificate(path)) is not None]
    named = {path: public for path in settings.identity_files if (public := public_key(path)) is not None}
    wanted = {public.public_data for public in named.values()}
    client = asyncssh.SSHAgentClient(agent) if agent else None
    try:
        held = await _agent_keys(client) if client else []
        first = [pair for pair in held if pair.public_data in wanted]
        others = [] if settings.identities_only else [pair for pair in held if pair.public_data not in wanted]
        for pair in [*first, *others]:
            for certificate in certificates:
                if certificate.key.public_data == pair.key_public_data and not pair.has_cert:
                    pair.set_certificate(certificate)
            yield pair
        in_agent = {pair.key_public_data for pair in held}
        for path, public in named.items():
            if public.public_data not in in_agent and os.access(path, os.R_OK):
                for pair in _from_file(path, public, certificates, asker):
                    yield pair
    finally:
        if client is not None:
            client.close()


def _from_file(
    path: str, public: SSHKey, certificates: list[SSHCertificate], asker: Asker
) -> list[SSHKeyPair]:
    """The key with each certificate that is for it (``PATH-cert.pub`` too), then by itself."""
    beside = _certificate(path + "-cert.pub")
    fitting = [
        each for each in [*certificates, beside] if each and each.key.public_data == public.public_data
    ]
    key: SSHKey | None = None
    try:
        key = asyncssh.import_private_key(Path(path).read_bytes())
        key.set_comment(path)  # what people are told of it
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError):
        pass  # encrypted, most likely; what it is turns out when it must sign
    if key is not None:
        return list(asyncssh.load_keypairs([key], certlist=fitting))
    return [LockedKey(path, public, certificate, asker) for certificate in [*fitting, None]]


async def _agent_keys(client: asyncssh.SSHAgentClient) -> list[SSHKeyPair]:
    """None when the agent does not answer: then there are still files."""
    try:
        async with asyncio.timeout(_AGENT_DEADLINE):
            return list(await client.get_keys())
    except (OSError, ValueError, TimeoutError):
        return []


def public_key(path: str) -> SSHKey | None:
    """The public half: from ``PATH.pub``, from the file itself where it is in the open, else by loading it."""
    for read in (_beside, _in_the_open, _whole):
        with contextlib.suppress(OSError, ValueError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
            return read(path)
    return None


def _beside(path: str) -> SSHKey:
    return asyncssh.read_public_key(path + ".pub")


def _in_the_open(path: str) -> SSHKey:
    """OpenSSH's own format: magic, three strings about the encryption, a count, the public key (PROTOCOL.key)."""
    text = Path(path).read_text("ascii")
    begin, end = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
    if not text.startswith(begin) or end not in text:
        raise ValueError("another format")
    try:
        data = base64.b64decode("".join(text[len(begin) : text.index(end)].split()), validate=True)
        position = len(b"openssh-key-v1\0")
        for _ in range(3):
            position += 4 + struct.unpack_from(">I", data, position)[0]
        (length,) = struct.unpack_from(">I", data, position + 4)
        blob = data[position + 8 : position + 8 + length]
        (name_length,) = struct.unpack_from(">I", blob)
    except (binascii.Error, struct.error) as error:
        raise ValueError(str(error)) from error
    return asyncssh.import_public_key(blob[4 : 4 + name_length] + b" " + base64.b64encode(blob))


def _whole(path: str) -> SSHKey:
    return asyncssh.read_private_key(path).convert_to_public()


def _certificate(path: str) -> SSHCertificate | None:
    try:
        return asyncssh.read_certificate(path)
    except (OSError, ValueError, asyncssh.KeyImportError):
        return None
