"""Segments: where byte N of the plaintext lies, and the one place where a segment is encrypted.

The layout is that of Tink's AES256-GCM-HKDF streaming AEAD with 1 MiB ciphertext segments
(https://developers.google.com/tink/wire-format, "AES-GCM-HKDF streaming AEAD"; security:
Hoang and Shen, "Security of Streaming Encryption in Google's Tink Library", 2020).
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealbook.sealing.envelope import derive

Buffer = bytes | bytearray | memoryview

ALGORITHM = "AES256-GCM-HKDF-1MB"
#: Bytes of one ciphertext segment on disk, tag (and in segment 0 the stream header) included.
SEGMENT = 1 << 20
TAG = 16
_SALT = 32
_NONCE_PREFIX = 7
#: One length byte, salt, nonce prefix.
STREAM_HEADER = 1 + _SALT + _NONCE_PREFIX
#: Plaintext bytes of segment 0 and of every other segment when full.
FIRST = SEGMENT - STREAM_HEADER - TAG
REST = SEGMENT - TAG
#: The segment counter in the nonce has 32 bits.
MAX_SEGMENTS = 2**32
#: Bytes of plaintext that one file can hold (4 PiB).
MAX_PLAINTEXT = FIRST + (MAX_SEGMENTS - 1) * REST


def segment_count(plain_size: int) -> int:
    """Return how many segments hold `plain_size` bytes; an empty plaintext has one."""
    return 1 if plain_size <= FIRST else 1 + -(-(plain_size - FIRST) // REST)


def stream_size(plain_size: int) -> int:
    """Return the bytes of stream header and segments for `plain_size` bytes of plaintext."""
    return STREAM_HEADER + plain_size + TAG * segment_count(plain_size)


def plain_size(stream: int) -> int | None:
    """Return the plaintext bytes in a stream of that length, None if no stream is that long."""
    count = -(-stream // SEGMENT)
    size = stream - STREAM_HEADER - TAG * count
    if size < 0 or count > MAX_SEGMENTS or stream_size(size) != stream:
        return None
    return size


def plain_start(index: int) -> int:
    """Return the plaintext offset at which segment `index` begins."""
    return 0 if index == 0 else FIRST + (index - 1) * REST


def segment_at(offset: int) -> int:
    """Return the index of the segment that holds plaintext byte `offset`."""
    return 0 if offset < FIRST else 1 + (offset - FIRST) // REST


def cipher_start(index: int) -> int:
    """Return the stream offset of the ciphertext of segment `index`."""
    return STREAM_HEADER if index == 0 else index * SEGMENT


class SegmentCipher:
    """Encrypts and decrypts the segments of one file.

    Parameters
    ----------
    data_key
        The file's 32-byte data key.
    aad
        Bytes bound to every segment: HKDF's info, as in Tink.
    stream_header
        The 40 bytes a stream begins with; by default new random ones, for sealing.
    """

    def __init__(self, data_key: bytes, aad: bytes, stream_header: bytes | None = None) -> None:
        if stream_header is None:
            stream_header = bytes([STREAM_HEADER]) + os.urandom(_SALT + _NONCE_PREFIX)
        elif len(stream_header) != STREAM_HEADER or stream_header[0] != STREAM_HEADER:
            raise InvalidTag
        self.stream_header = stream_header
        self._prefix = stream_header[1 + _SALT :]
        self._aead = AESGCM(derive(data_key, salt=stream_header[1 : 1 + _SALT], info=aad))

    def _nonce(self, index: int, last: bool) -> bytes:
        # The last flag is what makes a truncated stream fail: no other segment carries it.
        return self._prefix + index.to_bytes(4, "big") + bytes([last])

    def encrypt_into(self, index: int, last: bool, plain: Buffer, out: Buffer) -> None:
        """Encrypt segment `index` into `out`, which is :data:`TAG` bytes longer than `plain`."""
        self._aead.encrypt_into(self._nonce(index, last), plain, None, out)

    def decrypt_into(self, index: int, last: bool, sealed: Buffer, out: Buffer) -> None:
        """Decrypt segment `index` into `out`, which is :data:`TAG` bytes shorter than `sealed`.

        Raises
        ------
        cryptography.exceptions.InvalidTag
            The segment is not authentic; what `out` holds must not be used.
        """
        self._aead.decrypt_into(self._nonce(index, last), sealed, None, out)

    def decrypt(self, index: int, last: bool, sealed: Buffer) -> bytes:
        """Return the plaintext of segment `index`; see :meth:`decrypt_into`."""
        return self._aead.decrypt(self._nonce(index, last), sealed, None)
