"""Reading at an offset from whatever holds a sealed file: a local path or a binary file object."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from typing import IO, Any, Protocol

from sealbook.errors import InputError, SealbookError
from sealbook.sealing.errors import MissingFileError


class RandomAccess(Protocol):
    """Bytes that can be read at any offset, by several threads."""

    name: str
    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end."""
        ...

    def close(self) -> None:
        """Let go of what was opened here."""
        ...


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Say which file it is that the operating system cannot read."""
    try:
        yield
    except OSError as error:
        if isinstance(error, SealbookError):
            raise
        raise InputError(f"{name} cannot be read ({error.strerror or type(error).__name__}).") from None


class LocalFile:
    """A regular local file.

    Raises
    ------
    InputError
        It is missing, may not be read, or is not a regular file.
    """

    def __init__(self, path: str | os.PathLike[str], *, writable: bool = False) -> None:
        self.path = os.fspath(path)
        self.name = self.path
        flags = os.O_RDWR if writable else os.O_RDONLY
        try:
            # Non-blocking, or opening a pipe without a writer would wait for ever.
            self.descriptor = os.open(self.path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise MissingFileError(f"There is no file {self.name}; check the path.") from None
        except OSError as error:
            raise InputError(f"{self.name} cannot be opened ({error.strerror}).") from None
        except ValueError:
            raise InputError(f"{self.name!r} is not a path.") from None
        status = os.fstat(self.descriptor)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise InputError(f"{self.name} is not a regular file.")

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end."""
        with reading(self.name):
            data = os.pread(self.descriptor, length, offset)
            while len(data) < length:
                more = os.pread(self.descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

    def close(self) -> None:
        """Close the descriptor; a second time does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class FileObject:
    """A seekable binary file object, for example one that fsspec opened.

    Parameters
    ----------
    file
        Read under a lock, because it has one position; closed with this if `owned`.
    """

    def __init__(self, file: IO[bytes] | Any, *, owned: bool = False) -> None:
        self._file, self._owned, self._lock = file, owned, threading.Lock()
        self.name = str(getattr(file, "name", None) or getattr(file, "path", None) or "The file")
        if not (hasattr(file, "seek") and hasattr(file, "read")) or not file.seekable():
            raise InputError(f"{self.name} cannot be read at any position, which unsealing needs.")
        self.size = file.seek(0, os.SEEK_END)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end."""
        pieces = []
        with self._lock:
            self._file.seek(offset)
            while length > 0 and (piece := self._file.read(length)):
                pieces.append(piece)
                length -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file object if it is owned."""
        if self._owned:
            with contextlib.suppress(ValueError):
                self._file.close()


def open_for_reading(source: str | os.PathLike[str] | IO[bytes]) -> LocalFile | FileObject:
    """Open a path, or take a file object as it is."""
    if isinstance(source, str | os.PathLike):
        return LocalFile(source)
    return FileObject(source)
