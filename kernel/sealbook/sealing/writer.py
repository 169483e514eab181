"""Writing a sealed file as a stream; it gets its name when it is complete, or never."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, NoReturn

from sealbook.errors import InputError, SealbookError
from sealbook.files import atomic_write
from sealbook.sealing import segments
from sealbook.sealing.errors import MissingFileError
from sealbook.sealing.header import (
    HEADER,
    OpenedHeader,
    SealedInfo,
    check_fits,
    encode_slot,
    info,
    new_header,
)
from sealbook.sealing.keys import KeyProvider
from sealbook.sealing.segments import SEGMENT, TAG

if TYPE_CHECKING:
    from typing_extensions import Buffer


class SealedWriter(io.RawIOBase):
    """A write-only binary file whose content lands sealed in `target`.

    To a path: nothing is there until :meth:`close` has succeeded; an exception in the
    with-block, :meth:`discard` and a writer that is never closed leave what was there before.
    To a file object: the bytes go out in order; the caller decides what becomes of them.

    Parameters
    ----------
    target
        A path, or a binary file object that is written from start to end.
    key
        Name of the key to seal to; its newest version is used.
    keys
        Releases it.
    context, codec, codec_metadata, sealer
        Written to the header: readable by everybody, bound to the file.

    Attributes
    ----------
    info
        What was written, once closed; else None.
    """

    info: SealedInfo | None = None
    # Whatever fails before there is a target must leave an object that closes quietly.
    _done = True

    def __init__(
        self,
        target: str | os.PathLike[str] | IO[bytes],
        *,
        key: str,
        keys: KeyProvider,
        context: Mapping[str, str] | None = None,
        codec: str = "file",
        codec_metadata: Mapping[str, Any] | None = None,
        sealer: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._opened = new_header(
            keys.current(key), context=context, codec=codec, codec_metadata=codec_metadata, sealer=sealer
        )
        self._cipher = self._opened.cipher()
        self._plain = bytearray(segments.REST)
        self._filled = 0
        self._sealed = bytearray(SEGMENT)
        self._index = 0
        self._size = 0
        self._exit = contextlib.ExitStack()
        self._local = isinstance(target, str | os.PathLike)
        if isinstance(target, str | os.PathLike):
            self.name = os.fspath(target)
            self._file: Any = self._exit.enter_context(atomic_target(target))
            self._file.seek(HEADER)
        else:
            self.name = str(getattr(target, "name", None) or getattr(target, "path", None) or "The file")
            self._file = target
            self._write(self._slots())
        self._write(self._cipher.stream_header)
        self._done = False

    @property
    def codec_metadata(self) -> dict[str, Any]:
        """What the codec needs to read the file again; for a path, it may be set until the file is closed.

        Raises
        ------
        InputError
            On setting: it does not fit in the header, or the header is already written.
        """
        return dict(self._opened.header.codec_metadata)

    @codec_metadata.setter
    def codec_metadata(self, value: Mapping[str, Any]) -> None:
        if not self._local or self._done:
            raise InputError(f"The header of {self.name} is already written.")
        header = replace(self._opened.header, codec_metadata=dict(value))
        check_fits(header)
        self._opened = OpenedHeader(header, self._opened.data_key)

    def writable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the bytes of plaintext written."""
        return self._size

    def write(self, data: Buffer, /) -> int:
        """Take all of `data`; return its length in bytes."""
        if self.closed or self._done:
            raise ValueError("write to closed file")
        with memoryview(data).cast("B") as view:
            done = 0
            while done < len(view):
                room = self._capacity() - self._filled
                if room == 0:  # a full segment goes out only when something follows: the last one is marked
                    self._seal_segment(last=False)
                    continue
                piece = view[done : done + room]
                self._plain[self._filled : self._filled + len(piece)] = piece
                self._filled += len(piece)
                done += len(piece)
            self._size += done
            return done

    def readinto(self, _: object, /) -> NoReturn:
        """Refuse: this file is for writing."""
        raise io.UnsupportedOperation("not readable")

    def discard(self) -> None:
        """Close without result: what was at the path before is still there."""
        if not self._done:
            self._done = True
            with contextlib.suppress(_DiscardedError):
                self._exit.__exit__(_DiscardedError, _DiscardedError(), None)
        super().close()

    def close(self) -> None:
        """Seal the last segment, write the header and give the file its name.

        Raises
        ------
        SealbookError, OSError
            It could not be written; nothing is there.
        """
        if not self._done:
            try:
                self._seal_segment(last=True)
                if self._local:
                    self._file.seek(0)
                    self._write(self._slots())
                self._done = True
                self._exit.close()
            except BaseException:
                self.discard()
                raise
            self.info = info(
                self._opened.header,
                name=self.name,
                sealed_size=HEADER + segments.stream_size(self._size),
                authenticated=True,
            )
        super().close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        # io.IOBase would close, that is publish, a file that somebody forgot or died over.
        self.discard()

    def _capacity(self) -> int:
        return segments.FIRST if self._index == 0 else segments.REST

    def _seal_segment(self, *, last: bool) -> None:
        if self._index >= segments.MAX_SEGMENTS:
            raise SealbookError("A sealed file cannot hold more than 4 PiB; seal it in parts.")
        with (
            memoryview(self._plain)[: self._filled] as plain,
            memoryview(self._sealed)[: self._filled + TAG] as sealed,
        ):
            self._cipher.encrypt_into(self._index, last, plain, sealed)
            self._write(sealed)
        self._index += 1
        self._filled = 0

    def _slots(self) -> bytes:
        return encode_slot(self._opened.header, self._opened.data_key) * 2

    def _write(self, data: Buffer) -> None:
        with memoryview(data) as view, _sentence(self.name):
            done = 0
            while done < len(view):
                # Some file objects return nothing; those that return a count may have taken less.
                done += self._file.write(view[done:]) or len(view) - done


class _DiscardedError(Exception):
    """Ends the with-block of an atomic write without result."""


@contextlib.contextmanager
def atomic_target(path: str | os.PathLike[str], *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Write `path` atomically; see :func:`sealbook.files.atomic_write`.

    Raises
    ------
    InputError
        It is a directory, its directory is missing or may not be written, the disk is full.
    """
    name = os.fspath(path)
    if os.path.isdir(path):  # noqa: PTH112 - a path-like, not always a Path
        raise InputError(f"{name} is a directory; name a file.")
    with _sentence(name), atomic_write(path, mode=mode) as file:
        yield file


@contextlib.contextmanager
def _sentence(name: str) -> Iterator[None]:
    """Tell a person what the operating system said."""
    try:
        yield
    except SealbookError:
        raise
    except FileNotFoundError:
        raise MissingFileError(f"There is no directory for {name}; make it first.") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"Writing {name} failed ({reason}); nothing was changed there.") from None
