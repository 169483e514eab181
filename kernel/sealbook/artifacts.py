"""Python objects into sealed files and back: ``sealbook.seal``, ``unseal`` and ``open``."""

from __future__ import annotations

import contextlib
import html
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from sealbook import sealing, session
from sealbook.errors import InputError, SealbookError
from sealbook.sealing.codecs import codec_for, codec_named
from sealbook.sealing.codecs.directory import DirectoryCodec
from sealbook.sealing.codecs.file import FileCodec
from sealbook.sealing.filesystem import SealedFileSystem
from sealbook.sealing.progress import byte_progress

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: SealedFileSystem is here for fsspec, whose entry point names this module: so it has a session and keys.
__all__ = ["SealedArtifact", "SealedFileSystem", "open", "seal", "unseal"]

#: Codecs read in small pieces, and some cannot live with short reads.
_READ_BUFFER = 1024 * 1024


@dataclass(frozen=True)
class SealedArtifact:
    """What was sealed and where; nothing in it is secret.

    Attributes
    ----------
    path
        The sealed file.
    key, version
        The key it is sealed to.
    codec
        How the object was turned into bytes.
    size, sealed_size
        Bytes of the plaintext and of the file.
    context
        What the file is bound to; readable by everybody.
    label
        How far the sealing process was attested; ``simulated`` stands here when it was simulated.
    """

    path: str
    key: str
    version: int
    codec: str
    size: int
    sealed_size: int
    file_id: str
    label: str
    context: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        context = "".join(f", {name}={value}" for name, value in self.context.items())
        return (
            f"Sealed {self.path}: {self.codec}, {_bytes(self.size)}, "
            f"key {self.key} (version {self.version}), {self.label}{context}"
        )

    def _repr_html_(self) -> str:
        rows = {
            "Sealed": self.path,
            "Holds": f"{self.codec}, {_bytes(self.size)}",
            "Key": f"{self.key} (version {self.version})",
            **({"Context": ", ".join(f"{k}={v}" for k, v in self.context.items())} if self.context else {}),
            "Sealed in": f"{self.label} kernel",
        }
        cells = "".join(
            f'<tr><th style="text-align:left">{html.escape(k)}</th>'
            f'<td style="text-align:left">{html.escape(v)}</td></tr>'
            for k, v in rows.items()
        )
        return f"<table>{cells}</table>"


def seal(
    obj: Any,
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    context: Mapping[str, str] | None = None,
) -> SealedArtifact:
    """Seal an object into a file.

    The file appears under its name when it is complete and is then on the disk; whatever was there
    before is replaced, or untouched when this fails.

    Parameters
    ----------
    obj
        A DataFrame or Series, an Arrow table, a NumPy array, a Keras, scikit-learn or XGBoost model, text,
        bytes, a JSON value, or a :class:`pathlib.Path` that names a file or a directory. Nothing is pickled.
    path
        The sealed file to write.
    key
        Name of the key to seal to; the session's default key when None.
    context
        Text that the file is bound to, such as ``{"study": "7"}``: public, but it cannot be changed,
        and whoever unseals may insist on it.

    Raises
    ------
    InputError
        The object has no codec or would not come back as it is, or the path cannot be written.
    KeyUnavailableError
        This session does not get that key.
    """
    now = session.current()
    codec = codec_for(obj)
    target = _local(path)
    header: dict[str, Any] = {
        "key": key or now.default_key,
        "keys": now.keys,
        "context": context,
        "codec": codec.name,
        "sealer": now.sealer,
    }
    payload = codec.prepare(obj)
    if isinstance(codec, FileCodec):
        # Straight from file to file: several segments at a time, and memory does not grow with the file.
        info = sealing.seal_file(obj, target, progress=True, **header)
    else:
        with (
            _explained(target, "written"),
            sealing.open_sealed(target, "wb", codec_metadata=payload.metadata, **header) as file,
            byte_progress(0, what="Sealing", shown=True) as bar,
        ):
            payload.write(cast("BinaryIO", _Sink(file, bar)))
        assert file.info is not None  # noqa: S101 - for the type checker; closing has set it
        info = file.info
    artifact = _artifact(target, info, now.label)
    _report(now, "sealed", artifact)
    return artifact


def unseal(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    context: Mapping[str, str] | None = None,
    to: str | os.PathLike[str] | None = None,
) -> Any:
    """Open a sealed file and return the object in it.

    Parameters
    ----------
    path
        The sealed file.
    key
        When given, the file must be sealed to the key of this name, in any version. Files of this
        session's other keys then do not open under this name.
    context
        When given, the file must have been sealed with exactly this context.
    to
        Write what is sealed to this path instead, and return the path. A directory needs it. What was
        sealed from an object is written as its codec stores it (a DataFrame as Parquet, for example).

    Raises
    ------
    UnsealError
        The file, the key or the context is not the one of the sealing, or of this call. Nothing is
        returned or written.
    KeyUnavailableError
        This session does not get the key.
    ContentError
        Authentic, but not what its codec can read safely.
    InputError
        No such file, not a sealed file, or a directory without `to`.
    """
    now = session.current()
    source = _local(path)
    target = None if to is None else _local(to)
    with (
        _explained(source, "read"),
        sealing.open_sealed(source, keys=now.keys, key=key, context=context) as file,
    ):
        info = file.info
        codec = codec_named(info.codec)
        result: Any = target
        if target is None:
            result = codec.read(cast("BinaryIO", io.BufferedReader(file, _READ_BUFFER)), info.codec_metadata)
        elif isinstance(codec, DirectoryCodec):
            codec.read_to(cast("BinaryIO", io.BufferedReader(file, _READ_BUFFER)), target)
    if target is not None and not isinstance(codec, DirectoryCodec):
        info = sealing.unseal_file(source, target, keys=now.keys, key=key, context=context, progress=True)
    _report(now, "unsealed", _artifact(source, info, now.label))
    return result


def open(
    path: str | os.PathLike[str],
    mode: str = "rb",
    *,
    key: str | None = None,
    context: Mapping[str, str] | None = None,
) -> BinaryIO:
    """Open a sealed file as a binary file: "rb" at any position, "wb" as a stream.

    Written data gets its name when the file is closed without an exception; use it in a with-block.

    Parameters
    ----------
    path
        The sealed file.
    key
        Writing: the key to seal to; the session's default key when None. Reading: when given, the file
        must be sealed to the key of this name.
    context
        Writing: text that the file is bound to. Reading: when given, the file must have been sealed
        with exactly this one.
    mode
        "rb" or "wb".

    Raises
    ------
    UnsealError, KeyUnavailableError, InputError
        See :func:`unseal`.
    """
    now = session.current()
    target = _local(path)
    if mode == "wb":
        return cast(
            "BinaryIO",
            sealing.open_sealed(
                target, "wb", keys=now.keys, key=key or now.default_key, context=context, sealer=now.sealer
            ),
        )
    if mode != "rb":
        raise InputError(f"A sealed file opens with mode 'rb' or 'wb', not {mode!r}.")
    reader = sealing.open_sealed(target, "rb", keys=now.keys, key=key, context=context)
    return cast("BinaryIO", io.BufferedReader(reader, _READ_BUFFER))


class _Sink(io.RawIOBase):
    """What a codec writes to: it cannot close, and so not publish, the sealed file behind it."""

    def __init__(self, file: sealing.SealedWriter, bar: Any) -> None:
        super().__init__()
        self._file, self._bar = file, bar

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: Buffer, /) -> int:
        written = self._file.write(data)
        self._bar.update(written)
        return written


def _local(path: str | os.PathLike[str]) -> Path:
    named = os.fspath(path)
    if not isinstance(named, str) or not named or "\0" in named:
        raise InputError("Name a file: the path is empty or no text.")
    return Path(named).expanduser()


@contextlib.contextmanager
def _explained(path: Path, done: str) -> Iterator[None]:
    """Give an operating system's refusal a sentence."""
    try:
        yield
    except SealbookError:
        raise  # some are an OSError too, with a sentence of their own
    except OSError as error:
        raise InputError(f"{path} cannot be {done} ({error.strerror or type(error).__name__}).") from None


def _artifact(path: Path, info: sealing.SealedInfo, label: str) -> SealedArtifact:
    key, version = info.keys[0]
    return SealedArtifact(
        path=str(path),
        key=key,
        version=version,
        codec=info.codec,
        size=info.size,
        sealed_size=info.sealed_size,
        file_id=info.file_id,
        label=label,
        context=dict(info.context),
    )


def _report(now: session.Session, action: str, artifact: SealedArtifact) -> None:
    # The release of the key is in the log before the key is here; this only adds what it was for.
    with contextlib.suppress(SealbookError):
        now.report(
            action,
            {
                "path": artifact.path,
                "key": artifact.key,
                "version": artifact.version,
                "codec": artifact.codec,
                "size": artifact.size,
            },
        )


def _bytes(size: int) -> str:
    if size < 1024:
        return f"{size} bytes"
    amount = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024 or unit == "GiB":
            break
    return f"{amount:.1f} {unit}"
