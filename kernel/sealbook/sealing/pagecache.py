"""Asking Linux how much of a file is in the page cache: cachestat(2), since Linux 6.5.

A read with ``RWF_NOWAIT`` would ask the same, but it also starts reading ahead into the page cache.
"""

from __future__ import annotations

import ctypes
import mmap

#: The same number on every architecture, as for all system calls since 5.1.
_CACHESTAT = 451


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recent")
    )


def is_cached(descriptor: int, offset: int, length: int) -> bool:
    """Tell whether all of these bytes are in the page cache; False where the kernel cannot tell."""
    counts = _Counts()
    try:
        failed = ctypes.CDLL(None).syscall(
            ctypes.c_long(_CACHESTAT),
            ctypes.c_uint(descriptor),
            ctypes.byref(_Range(offset, length)),
            ctypes.byref(counts),
            ctypes.c_uint(0),
        )
    except (OSError, AttributeError):
        return False
    pages = -(-(offset + length) // mmap.PAGESIZE) - offset // mmap.PAGESIZE
    return not failed and int(counts.cached) >= pages
