"""Reading a sealed file at any position; only authentic bytes are ever returned."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, NoReturn

from cryptography.exceptions import InvalidTag

from sealbook.sealing import segments
from sealbook.sealing.access import FileObject, RandomAccess, open_for_reading
from sealbook.sealing.errors import UnsealError
from sealbook.sealing.header import HEADER, OpenedHeader, SealedInfo, info, open_header
from sealbook.sealing.keys import KeyProvider
from sealbook.sealing.segments import SEGMENT, STREAM_HEADER, SegmentCipher

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Decrypted segments that a reader keeps: Parquet readers go back and forth between a few places.
_KEPT = 4
#: How much `peek` shows, which `readline` asks for once per line.
_PEEK = 8192
#: How often a header that changes while it is read is read again.
_TRIES = 5


def read_header(
    file: RandomAccess,
    *,
    keys: KeyProvider,
    context: Mapping[str, str] | None = None,
    key: str | None = None,
) -> OpenedHeader:
    """Read and check the header of `file`; see :func:`sealbook.sealing.header.open_header`.

    A rotation by another process may be caught half way. Then the bytes differ at the next
    reading, and only then is the check repeated.
    """
    raw = file.read_at(0, HEADER)
    for _ in range(_TRIES):
        try:
            return open_header(raw, name=file.name, keys=keys, context=context, key=key)
        except UnsealError:
            again = file.read_at(0, HEADER)
            if again == raw:
                raise
            raw = again
    raise UnsealError(file.name)


def open_stream(file: RandomAccess, opened: OpenedHeader) -> tuple[SealedInfo, SegmentCipher]:
    """Check the length and the last segment, so that a truncated file is refused at once.

    Raises
    ------
    UnsealError
        The file was truncated or extended, or its last segment is not authentic.
    """
    about = info(opened.header, name=file.name, sealed_size=file.size, authenticated=True)
    try:
        cipher = opened.cipher(file.read_at(HEADER, STREAM_HEADER))
        last = segments.segment_count(about.size) - 1
        start = segments.cipher_start(last)
        cipher.decrypt(last, True, file.read_at(HEADER + start, file.size - HEADER - start))
    except (InvalidTag, ValueError):
        raise UnsealError(file.name) from None
    return about, cipher


class SealedReader(io.RawIOBase):
    """The plaintext of a sealed file as a seekable, read-only binary file.

    Every segment is authenticated before a byte of it is returned. Safe to use from several threads
    as far as a file with one position can be.

    Parameters
    ----------
    source
        A path, or a seekable binary file object.
    keys
        Releases the key that the file is sealed to.
    context
        When given, the file must have been sealed with exactly this context.
    key
        When given, the file must be sealed to the key of this name.

    Attributes
    ----------
    info
        What the file says about itself; authenticated.

    Raises
    ------
    UnsealError, KeyUnavailableError, NotSealedError, InputError
        See :func:`sealbook.sealing.open_sealed`.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        *,
        keys: KeyProvider,
        context: Mapping[str, str] | None = None,
        key: str | None = None,
        owned: bool = False,
    ) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0
        self._file = FileObject(source, owned=True) if owned else open_for_reading(source)
        try:
            opened = read_header(self._file, keys=keys, context=context, key=key)
            self.info, self._cipher = open_stream(self._file, opened)
        except BaseException:
            self._file.close()
            raise
        self._last = segments.segment_count(self.info.size) - 1

    @property
    def name(self) -> str:
        """The sealed file's name."""
        return self._file.name

    @property
    def size(self) -> int:
        """Bytes of plaintext."""
        return self.info.size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the plaintext."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position in the plaintext and return it."""
        self._check_open()
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.info.size}[whence]
        if start + offset < 0:
            raise ValueError("the position would be negative")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill `buffer` as far as there is plaintext; return the number of bytes."""
        with memoryview(buffer).cast("B") as view, self._lock:
            done = 0
            while done < len(view) and (piece := self._at(self._position, len(view) - done)):
                view[done : done + len(piece)] = piece
                done += len(piece)
                self._position += len(piece)
            return done

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, all that is left by default."""
        with self._lock:
            self._check_open()
            left = max(0, self.info.size - self._position)
            size = left if size is None or size < 0 else min(size, left)
            first = self._at(self._position, size)
            if len(first) == size:  # the common case, within one segment, is spared a copy
                self._position += size
                return bytes(first)
            data = bytearray(size)
            self.readinto(data)
            return bytes(data)

    def readall(self) -> bytes:
        """Return all that is left."""
        return self.read()

    def peek(self, size: int = 0, /) -> bytes:
        """Return some of the bytes that come next, without moving; makes `readline` fast."""
        with self._lock:
            return bytes(self._at(self._position, max(size, _PEEK)))

    def write(self, _: object, /) -> NoReturn:
        """Refuse: this file is for reading."""
        raise io.UnsupportedOperation("not writable")

    def close(self) -> None:
        """Close the file and forget what was decrypted."""
        if not self.closed:
            self._kept.clear()
            if hasattr(self, "_file"):
                self._file.close()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _at(self, offset: int, length: int) -> memoryview:
        """Return up to `length` bytes of plaintext at `offset`, all from one segment."""
        self._check_open()
        if length <= 0 or offset >= self.info.size:
            return memoryview(b"")
        index = segments.segment_at(offset)
        begin = offset - segments.plain_start(index)
        return memoryview(self._segment(index))[begin : begin + length]

    def _segment(self, index: int) -> bytes:
        """Return the plaintext of one segment, authenticated."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        start = segments.cipher_start(index)
        sealed = self._file.read_at(HEADER + start, (index + 1) * SEGMENT - start)
        try:
            plain = self._cipher.decrypt(index, index == self._last, sealed)
        except (InvalidTag, ValueError):
            raise UnsealError(self._file.name) from None
        self._kept[index] = plain
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return plain
