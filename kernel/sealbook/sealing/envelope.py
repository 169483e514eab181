"""Envelope encryption: the per-file data key, how it is wrapped, committed to and split into subkeys."""

from __future__ import annotations

import hmac
import os
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealbook.encoding import canonical_json
from sealbook.sealing.keys import KEY_BYTES, SealingKey

FILE_ID_BYTES = 16
#: 12-byte nonce, 32-byte data key, 16-byte tag.
WRAPPED_BYTES = 12 + KEY_BYTES + 16

# HKDF's info separates the uses of one key. None can collide with a stream key's info,
# which is canonical JSON and so begins with a brace.
_WRAP = b"sealbook 1 key wrapping"
_COMMITMENT = b"sealbook 1 key commitment"
_HEADER_MAC = b"sealbook 1 header mac"


def new_data_key() -> bytes:
    """Return a random 32-byte data key; every file has its own."""
    return secrets.token_bytes(KEY_BYTES)


def new_file_id() -> bytes:
    """Return 16 random bytes that name one sealing."""
    return secrets.token_bytes(FILE_ID_BYTES)


def derive(key: bytes, *, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) to 32 bytes."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt, info).derive(key)


def commitment(data_key: bytes, file_id: bytes) -> bytes:
    """Return 32 bytes that only this data key gives.

    AES-GCM alone does not commit to its key: one ciphertext can be made that decrypts under
    two keys to two texts. A collision-resistant derivative of the key, checked first, ends that
    (Albertini et al., "How to abuse and fix authenticated encryption without key commitment", 2022).
    """
    return derive(data_key, salt=file_id, info=_COMMITMENT)


def header_mac_key(data_key: bytes, file_id: bytes) -> bytes:
    """Return the HMAC key of the file's header slots."""
    return derive(data_key, salt=file_id, info=_HEADER_MAC)


def wrap(data_key: bytes, key: SealingKey, *, file_id: bytes, algorithm: str) -> bytes:
    """Encrypt the data key under `key`, bound to the file, the key's name and version.

    Returns
    -------
    bytes
        :data:`WRAPPED_BYTES` bytes: nonce, ciphertext, tag.
    """
    nonce = os.urandom(12)
    aad = _wrap_aad(key, file_id, algorithm, commitment(data_key, file_id))
    return nonce + _wrapper(key, file_id).encrypt(nonce, data_key, aad)


def unwrap(
    wrapped: bytes, key: SealingKey, *, file_id: bytes, algorithm: str, committed: bytes
) -> bytes | None:
    """Return the data key, or None if `wrapped` is not it under this key, file and commitment."""
    try:
        data_key = _wrapper(key, file_id).decrypt(
            wrapped[:12], wrapped[12:], _wrap_aad(key, file_id, algorithm, committed)
        )
    except InvalidTag:
        return None
    return data_key if hmac.compare_digest(commitment(data_key, file_id), committed) else None


def _wrapper(key: SealingKey, file_id: bytes) -> AESGCM:
    # A subkey per file: random nonces would collide after 2^32 wraps under the key itself.
    return AESGCM(derive(key.secret, salt=file_id, info=_WRAP))


def _wrap_aad(key: SealingKey, file_id: bytes, algorithm: str, committed: bytes) -> bytes:
    return canonical_json(
        {
            "algorithm": algorithm,
            "commitment": committed.hex(),
            "file_id": file_id.hex(),
            "key": key.name,
            "version": key.version,
        }
    )
