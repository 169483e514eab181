"""Sealed files: envelope encryption that streams, is read at any position, and rotates at once.

The format, version 1
=====================

A sealed file is a header of two slots of 4096 bytes, then a stream. Integers are big-endian,
``HKDF`` is HKDF-SHA256 (RFC 5869) to 32 bytes, base64 is that of RFC 4648 with padding.

::

    0      slot 0
    4096   slot 1          the same bytes, except while a rotation is under way
    8192   stream          segment i at 8192 + i * 1048576

**Keys.** Every file has a random 32-byte *data key* and a random 16-byte *file id*. The data key
is wrapped under a named, versioned 32-byte *sealing key* that a key provider hands out:
AES-256-GCM with the key ``HKDF(sealing key, salt=file id, info="sealbook 1 key wrapping")``,
a random 12-byte nonce, and as additional data the canonical JSON of ``algorithm``, ``commitment``
(hex), ``file_id`` (hex), ``key`` and ``version``. Stored are nonce, ciphertext, tag: 60 bytes.

**Commitment.** ``HKDF(data key, salt=file id, info="sealbook 1 key commitment")`` stands in the header
and is compared in constant time before anything is decrypted with the data key: AES-GCM alone
does not commit to its key.

**Slot.** ``SEALBOOK`` (8 bytes), the length of the body (4 bytes), the body, zeros, and in the last
32 bytes HMAC-SHA256 over all before them under
``HKDF(data key, salt=file id, info="sealbook 1 header mac")``.

**Body.** Canonical JSON (:mod:`sealbook.encoding`) with exactly these fields:

==================  ====================================================================
``format``          1
``algorithm``       ``"AES256-GCM-HKDF-1MB"``
``segment_bytes``   1048576
``file_id``         base64, 16 bytes
``commitment``      base64, 32 bytes
``sealed_at``       ``"2026-11-23T03:37:00Z"``; what the sealer claims
``sealer``          object; who sealed it, for example measurement and ``simulated``
``codec``           name of what reads the content again; ``"file"`` for bytes as they are
``context``         object of text to text: public, authenticated, can be demanded on unsealing
``codec_metadata``  object; for the codec
``sequence``        number of rotations so far
``keys``            1 to 4 objects ``{key, version, wrapped}``
==================  ====================================================================

All but the last three are immutable: their canonical JSON is the stream's associated data.

**Stream.** That of Tink's AES256-GCM-HKDF streaming AEAD with segments of 1 MiB, so that everything from
byte 8192 on opens with Tink given the data key and the associated data
(https://developers.google.com/tink/wire-format). It begins with 40 bytes: the byte 40, a 32-byte
salt, a 7-byte nonce prefix. The AES-256-GCM key is ``HKDF(data key, salt=salt, info=associated
data)``, the nonce of segment i is prefix, i (4 bytes), 1 if it is the last else 0 (1 byte). Every
segment with its 16-byte tag fills 1 MiB, the first together with the 40 bytes; the last may be
shorter and is empty only when the plaintext is.

**Reading.** Both slots must parse strictly (one encoding, no unknown or repeated fields, zeros as
padding) and authenticate, and agree on everything immutable. Equal sequences: equal bytes. Else slot 1
is one ahead and counts. The length of the stream must be one that sealing makes, and its last segment
is checked at opening, so a truncated file is refused at once. No byte is returned before its
segment was authenticated, and a file is written under its name only when all of it was.

**Rotation** writes slot 1, waits for the disk, writes slot 0, waits for the disk: a kill at any moment
leaves (old, old), (old, new) or (new, new), and each opens. A slot that a power cut tore is
repaired by the next rotation. Rotation does not undo what an old key with an old copy of the
header could read, and an old header put back is not noticed: it is as authentic as it was.

What the host sees: the header, so also context and codec; the size; who opens what when.

Where to look
=============

``keys`` names and providers; ``envelope`` data key, wrapping, commitment; ``header`` the slots;
``segments`` the layout and the one place where a byte is encrypted; ``reader`` and ``writer`` streams;
``bulk`` whole files, in parallel, over ``blockio``; ``rotation``; ``filesystem`` for fsspec;
``codecs`` what becomes of Python objects.
"""

from __future__ import annotations

from sealbook.sealing.bulk import seal_file, unseal_file
from sealbook.sealing.errors import DamagedFileError, KeyUnavailableError, NotSealedError, UnsealError
from sealbook.sealing.header import SealedInfo
from sealbook.sealing.keys import (
    InMemoryKeys,
    KeyProvider,
    SealingKey,
    check_key_name,
    default_key_name,
    default_keys,
    set_default_keys,
)
from sealbook.sealing.opening import inspect, open_sealed, read_bytes, write_bytes
from sealbook.sealing.reader import SealedReader
from sealbook.sealing.rotation import rekey
from sealbook.sealing.writer import SealedWriter

__all__ = [
    "DamagedFileError",
    "InMemoryKeys",
    "KeyProvider",
    "KeyUnavailableError",
    "NotSealedError",
    "SealedInfo",
    "SealedReader",
    "SealedWriter",
    "SealingKey",
    "UnsealError",
    "check_key_name",
    "default_key_name",
    "default_keys",
    "inspect",
    "open_sealed",
    "read_bytes",
    "rekey",
    "seal_file",
    "set_default_keys",
    "unseal_file",
    "write_bytes",
]
