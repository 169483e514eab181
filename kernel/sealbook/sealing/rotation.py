"""Rotation: a file is sealed to another key by rewriting its header, whatever its size."""

from __future__ import annotations

import fcntl
import os

from sealbook.errors import InputError
from sealbook.sealing.access import LocalFile
from sealbook.sealing.errors import UnsealError
from sealbook.sealing.header import (
    HEADER,
    SLOT,
    OpenedHeader,
    SealedInfo,
    encode_slot,
    info,
    open_header,
    open_slot,
    rewrap,
)
from sealbook.sealing.keys import KeyProvider


def rekey(path: str | os.PathLike[str], *, keys: KeyProvider, to: str) -> SealedInfo:
    """Seal the file's data key to the newest version of key `to`, and to no other.

    Two writes of 4 KiB, each made durable before the next: slot 1, then slot 0. A kill at any
    moment leaves a file that opens, with the old key or with the new one. A rotation that
    was cut short is completed or undone first.

    Whoever kept a copy of the old header and the old key can still read the data: rotation
    limits what a key opens from now on, it does not re-encrypt.

    Parameters
    ----------
    path
        A local sealed file.
    keys
        Releases the key that the file is sealed to, and `to`.
    to
        Name of the key to seal to.

    Returns
    -------
    SealedInfo
        What the file says now.

    Raises
    ------
    UnsealError
        The file is not authentic, or the key is wrong.
    KeyUnavailableError
        `keys` does not release one of the two keys.
    NotSealedError, InputError
        It is no sealed file, or it cannot be written.
    """
    file = LocalFile(path, writable=True)
    try:
        # One rotation at a time: two would interleave their slots.
        fcntl.flock(file.descriptor, fcntl.LOCK_EX)
        opened = _settle(file, keys)
        key = keys.current(to)
        header = rewrap(opened, key, sequence=opened.header.sequence + 1)
        slot = encode_slot(header, opened.data_key)
        _write_slot(file, 1, slot)
        _write_slot(file, 0, slot)
        return info(header, name=file.name, sealed_size=file.size, authenticated=True)
    finally:
        file.close()


def _settle(file: LocalFile, keys: KeyProvider) -> OpenedHeader:
    """Check the header and make both slots equal, as they are when no rotation is under way."""
    raw = file.read_at(0, HEADER)
    try:
        opened = open_header(raw, name=file.name, keys=keys)
    except UnsealError:
        return _repair(file, raw, keys)
    if raw[:SLOT] != raw[SLOT:]:
        # Otherwise slot 1 would soon be two ahead of slot 0, and a kill then would lose the file.
        _write_slot(file, 0, raw[SLOT:])
    return opened


def _repair(file: LocalFile, raw: bytes, keys: KeyProvider) -> OpenedHeader:
    """Copy the one slot that is authentic over the other, which a power cut tore."""
    slots = raw[:SLOT], raw[SLOT:]
    found = [open_slot(slot, name=file.name, keys=keys) for slot in slots]
    good = [index for index, opened in enumerate(found) if opened is not None]
    if len(good) != 1:  # none: nothing to go by; both: they belong to two files
        raise UnsealError(file.name)
    opened = found[good[0]]
    assert opened is not None  # noqa: S101 - for the type checker
    _write_slot(file, 1 - good[0], slots[good[0]])
    return opened


def _write_slot(file: LocalFile, index: int, slot: bytes) -> None:
    if os.pwrite(file.descriptor, slot, index * SLOT) != SLOT:
        raise InputError(f"{file.name} cannot be written; the disk may be full.")
    os.fsync(file.descriptor)
