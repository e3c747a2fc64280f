"""Keys and certificates for the door of one job: one pair for each end, which nobody else ever gets.

They are valid for ever, because clocks of nodes may be wrong, and because each end accepts the one certificate of the
other and nothing else: with the job, they are worth nothing.
"""

from __future__ import annotations

import datetime
import secrets
import ssl
from dataclasses import dataclass, field

_BEGINNING = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_NEVER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # RFC 5280, 4.1.2.5


@dataclass(frozen=True)
class DoorKeys:
    """All PEM.  ``keeper``: our key and certificate; ``job``: the job's certificate.

    ``job_key``: the job's key and certificate, as long as it may have to be submitted.
    """

    keeper: str = field(repr=False)
    keeper_certificate: str
    job: str
    job_key: str = field(repr=False, default="")

    @property
    def job_certificate(self) -> bytes:
        """DER."""
        return ssl.PEM_cert_to_DER_cert(self.job)


def make_door_keys() -> DoorKeys:
    """Takes a tenth of a second when it is first called: the library is loaded then."""
    keeper_key, keeper = _pair("keeper")
    job_key, job = _pair("job")
    return DoorKeys(keeper_key + keeper, keeper, job, job_key + job)


def _pair(name: str) -> tuple[str, str]:
    """A key and its certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # Names must differ, or each would look like the issuer of the other.
    subject = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, f"farkernel {name} {secrets.token_hex(8)}")]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGINNING)
        .not_valid_after(_NEVER)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    plain = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return plain.decode("ascii"), certificate.public_bytes(form).decode("ascii")
