"""Where a broker is, and the certificate of the authority that it is known by: what is pinned of one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from sealbook import files
from sealbook.attestation.pem import read_chain
from sealbook.errors import InputError

_MAX_BYTES: Final = 16 * 1024
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")


def check_url(url: str, scheme: str = "https") -> tuple[str, int]:
    """Return host and port of a URL ``scheme://host:port`` that has nothing else.

    Raises
    ------
    InputError
        It is not of that form.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    else:
        if (
            parts.scheme != scheme
            or parts.path not in ("", "/")
            or parts.query
            or parts.fragment
            or "@" in url
        ):
            host = None
    if not host or not port or not _HOST.fullmatch(host):
        raise InputError(f"'{url[:300]}' is not an address here: write it like {scheme}://host:port.")
    return host, port


def check_authority(pem: str) -> x509.Certificate:
    """Return the certificate of a broker's authority.

    Raises
    ------
    InputError
        `pem` is not one certificate in PEM.
    """
    try:
        if len(pem) > _MAX_BYTES:
            raise ValueError("too long")
        return read_chain(pem, 1)[0]
    except ValueError:
        raise InputError(
            "The authority of the broker is not one certificate in PEM: take broker/ca.pem of the sealbook "
            "directory on the broker's machine."
        ) from None


def read_authority(path: Path) -> str:
    """Return what a file with the certificate of a broker's authority holds; raises InputError."""
    raw = files.read_bounded(path, "The authority's certificate", _MAX_BYTES, regular=True)
    try:
        text = raw.decode()
        check_authority(text)
    except (UnicodeDecodeError, InputError):
        raise InputError(
            f"{path} is not one certificate in PEM: take broker/ca.pem of the sealbook directory on the "
            "broker's machine."
        ) from None
    return text
