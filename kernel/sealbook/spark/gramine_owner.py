"""Whose clusters a node's image joins: those of one broker, known by its authority's public key."""

from __future__ import annotations

import hashlib
import hmac

from cryptography import x509

from sealbook.broker.certificates import public_der
from sealbook.errors import InputError, RefusedError
from sealbook.spark.profiles import Profile


def check_owner(profile: Profile, owner: bytes | None) -> None:
    """Refuse the cluster of a broker that this image was not built for.

    Raises
    ------
    RefusedError
        Its authority has another key.
    """
    if owner is not None and not hmac.compare_digest(authority_of(profile.ca), owner):
        raise RefusedError(
            f"This image joins only the clusters of the broker it was built for, and the broker of "
            f"'{profile.name}' has another authority: build an image with `sealbook image build --role "
            "spark-worker --ca FILE`."
        )


def authority_of(ca: str) -> bytes:
    """Return the SHA-256 of the public key of a broker's authority, given its certificate in PEM.

    Raises
    ------
    InputError
        It is none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(ca.encode())
    except ValueError:
        raise InputError(
            "The authority of the broker is not one certificate in PEM: take broker/ca.pem of the sealbook "
            "directory on the broker's machine."
        ) from None
    return hashlib.sha256(public_der(certificate.public_key())).digest()
