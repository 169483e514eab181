"""Certificate chains in PEM, read so strictly that every reader must see the same certificates.

Readers differ in what they skip: ``cryptography`` passes over blocks with another label than CERTIFICATE,
dcap-qvl takes any block for a certificate. A chain with both kinds would be one chain to our checks and
another one to dcap-qvl. So only the strict form of RFC 7468 (figure 3) is read, and what is passed on
is :func:`write_chain` of the certificates that were read, never the text they came in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import serialization

_BLOCK = (
    rb"-----BEGIN CERTIFICATE-----\r?\n"
    rb"(?:[A-Za-z0-9+/]{1,76}\r?\n)*[A-Za-z0-9+/]{1,76}={0,2}\r?\n"
    rb"-----END CERTIFICATE-----"
)


def is_chain(text: bytes, count: int) -> bool:
    """Whether `text` is exactly `count` certificate blocks; line ends and one NUL (Intel's) may follow."""
    pattern = rb"%b(?:[\r\n]+%b){%d}[\r\n]*\0?" % (_BLOCK, _BLOCK, count - 1)
    return re.fullmatch(pattern, text) is not None


@lru_cache(maxsize=32)  # the same few chains come with every collateral; each has at most 32 KiB
def read_chain(text: str | bytes, count: int) -> tuple[x509.Certificate, ...]:
    """Return the `count` certificates of a chain (unverified).

    Raises
    ------
    ValueError
        Anything but exactly that many certificate blocks, or one of them is no X.509 certificate.
    """
    raw = text.encode("ascii") if isinstance(text, str) else text
    if not is_chain(raw, count):
        raise ValueError(f"not exactly {count} PEM certificates")
    certificates = tuple(x509.load_pem_x509_certificates(raw.rstrip(b"\0")))
    if len(certificates) != count:  # pragma: no cover - the grammar leaves no room for it
        raise ValueError(f"{len(certificates)} certificates instead of {count}")
    return certificates


def write_chain(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return certificates in PEM, one after the other."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)
