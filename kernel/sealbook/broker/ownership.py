"""The owner of an image: the one whose challenges its kernels answer.

A kernel runs what its client sends, and what runs in an enclave can have quotes made over anything. A
measured kernel that served any client would therefore make quotes for its host, too: the host starts the
approved image, is its client, and answers a user's challenge with a quote over a key of its own. So an
image carries its owner's public key, measured, and its kernels answer only challenges that the owner signed.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealbook.broker.keyring import Keyring
from sealbook.broker.reserved import OWNER_KEY
from sealbook.errors import InputError
from sealbook.sealing import KeyUnavailableError

_INFO: Final = b"sealbook image owner signing key v1"


def make_owner(keyring: Keyring) -> bytes:
    """Return the public key of the keyring's owner, 32 bytes (Ed25519, RFC 8032); made at first use."""
    keyring.make_reserved(OWNER_KEY, guard=OWNER_KEY, description="signs what your kernel images answer")
    return owner_signing_key(keyring).public_key().public_bytes_raw()


def owner_signing_key(keyring: Keyring) -> Ed25519PrivateKey:
    """Return the key that signs challenges.

    Raises
    ------
    KeyUnavailableError
        The keyring has none.
    """
    # The first version for ever: rotating it would make strangers of the images.
    stored = keyring.reserved(OWNER_KEY)
    if stored is None:
        raise KeyUnavailableError(
            "This keyring signs for no image yet: `sealbook image build` makes the key, or use the keyring "
            "that the image was built with."
        )
    secret = stored.version(1).secret
    return Ed25519PrivateKey.from_private_bytes(
        HKDF(hashes.SHA256(), 32, salt=None, info=_INFO).derive(secret)
    )


def signing_key_for(keyring: Keyring, owner: str) -> Ed25519PrivateKey:
    """Return the key that signs challenges for images of `owner` (64 hexadecimal digits).

    Raises
    ------
    InputError
        The keyring belongs to somebody else.
    KeyUnavailableError
        The keyring has no such key.
    """
    key = owner_signing_key(keyring)
    if key.public_key().public_bytes_raw().hex() != owner:
        raise InputError(
            "This image answers to another owner's keyring: build an image of your own with "
            "`sealbook image build`, or use the keyring it was built with."
        )
    return key
