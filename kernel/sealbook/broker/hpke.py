"""Secrets sealed to a key that evidence binds: RFC 9180 in base mode, one suite, and only here.

``sealed = enc (32) | ciphertext``, of DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM. What a secret
is for stands in ``info`` together with the REPORTDATA of the evidence it answers, so that an answer to other
evidence, or to another question, does not open.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from sealbook.encoding import canonical_json
from sealbook.errors import InputError, RefusedError

#: Length of a public key.
KEY_BYTES: Final = 32

_SUITE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_ATTEST: Final = b"sealbook attest 1"
_RELEASE: Final = b"sealbook release 1"


def attest_info(report_data: bytes) -> bytes:
    """Return what binds the answer to an attestation."""
    return _ATTEST + report_data


def release_info(report_data: bytes, name: str, version: int) -> bytes:
    """Return what binds the answer to a release: evidence, key and version."""
    # As associated data would; the suite takes none, and in base mode info binds as strongly.
    return _RELEASE + report_data + canonical_json([name, version])


def seal(plaintext: bytes, public_key: bytes, info: bytes) -> bytes:
    """Encrypt to a raw X25519 public key.

    Raises
    ------
    InputError
        It is not one, or one of the few that would make the secret known.
    """
    try:
        return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(public_key), info=info)
    except ValueError:
        raise InputError("The HPKE key is not an X25519 public key of 32 bytes.") from None


def check_public_key(public_key: bytes) -> bytes:
    """Return `public_key` if secrets can be sealed to it; raises InputError."""
    if len(public_key) != KEY_BYTES:
        raise InputError("The HPKE key is not an X25519 public key of 32 bytes.")
    seal(b"", public_key, b"check")
    return public_key


def unseal(sealed: bytes, private_key: X25519PrivateKey, info: bytes) -> bytes:
    """Decrypt; raises RefusedError for what was sealed to another key or for another purpose."""
    try:
        return _SUITE.decrypt(sealed, private_key, info=info)
    except (InvalidTag, ValueError):
        raise RefusedError(
            "The broker's answer was not made for this node's evidence and question."
        ) from None
