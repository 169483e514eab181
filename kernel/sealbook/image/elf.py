"""The one thing that must be changed in a shared library so that a kernel with it can make processes.

A library's segments may lie far apart in memory. The dynamic linker maps the file over the whole range first,
and what is left of that mapping in the gaps can begin behind the file's end. Gramine 1.9 reads a
measured file there when it copies a process (chroot_read in libos/src/fs/chroot/fs.c), takes the negative
number of bytes that it computes for an error, and the fork fails: libXau of Pillow's wheel is such a
library. Zeros at the end of the file, which nothing else reads, make it long enough.
"""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

_PAGE = 4096
_PT_LOAD = 1

#: More than any library's gap; what says so is damaged.
_MOST_MISSING = 64 << 20

# ELF-64 Object File Format, version 1.5, figures 2 and 6.
_MAGIC = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<32xQ14xHH6x")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")


def pad(path: Path) -> None:
    """Append zeros to an ELF file as far as its segments' gaps reach; other files are left as they are."""
    with path.open("r+b") as file:
        try:
            wanted = _furthest_gap(file.read(1 << 20))
        except (struct.error, OverflowError):  # truncated or damaged: nothing that could be loaded
            return
        if 0 < wanted - path.stat().st_size <= _MOST_MISSING:
            file.truncate(wanted)


def _furthest_gap(start: bytes) -> int:
    """Return the file offset at which the last gap between segments begins; 0 if there is none."""
    if not start.startswith(_MAGIC):
        return 0
    offset, size, count = _HEADER.unpack_from(start)
    segments = sorted(
        (address, place, memory)
        for kind, _, place, address, _, _, memory, _ in (
            _PROGRAM_HEADER.unpack_from(start, offset + size * number) for number in range(count)
        )
        if kind == _PT_LOAD
    )
    furthest = 0
    for (address, _, memory), (following, _, _) in itertools.pairwise(segments):
        gap = -(-(address + memory) // _PAGE) * _PAGE
        if gap < following // _PAGE * _PAGE:
            first_address, first_place, _ = segments[0]
            furthest = max(furthest, first_place // _PAGE * _PAGE + gap - first_address // _PAGE * _PAGE)
    return furthest
