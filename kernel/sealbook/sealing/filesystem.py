"""``sealed::``, an fsspec file system: what passes through it lies sealed in the file system below.

``sealed::/data/x.parquet`` and ``sealed:///data/x.parquet`` are local, ``sealed::s3://bucket/x``
lies in any other fsspec store. Names, directories, moving and deleting are those of the store;
sizes and contents are the plaintext's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import tokenize

from sealbook.errors import InputError
from sealbook.files import TEMPORARY_INFIX
from sealbook.sealing.header import HEADER, MAGIC
from sealbook.sealing.keys import KeyProvider, default_key_name, default_keys
from sealbook.sealing.reader import SealedReader
from sealbook.sealing.segments import plain_size
from sealbook.sealing.writer import SealedWriter


class _Unconfigured(type(ChainedFileSystem)):  # type: ignore[misc] # fsspec has no types
    """Makes instances from their arguments alone.

    fsspec's metaclass completes the arguments from variables ``FSSPEC_SEALED...`` and from files in
    ``~/.config/fsspec``. In an enclave both are the untrusted host's, which would choose what data is
    sealed to, which context is insisted on and where it lies. Of what that metaclass does, only this
    is left for a class that is not cached and not asynchronous.
    """

    def __call__(cls, *args: Any, **options: Any) -> Any:
        options.pop("skip_instance_cache", None)
        made = type.__call__(cls, *args, **options)
        made._fs_token_ = tokenize(cls, os.getpid(), threading.get_ident(), *args, **options)
        made.storage_args, made.storage_options = args, options
        return made


class SealedFileSystem(ChainedFileSystem, metaclass=_Unconfigured):
    """Seals what is written to, and unseals what is read from, another file system.

    Parameters
    ----------
    fs
        The file system below; by default the one that a chained URL names, else the local one.
    keys
        Key provider; :func:`sealbook.sealing.default_keys` by default, asked at every opening.
    key
        Name of the key to seal to, :func:`sealbook.sealing.default_key_name` by default; when given,
        only files that are sealed to it are read.
    context
        Sealed files are bound to it, and read only when they were sealed with exactly this one.
    fo, target_protocol, target_options
        Set by fsspec for a chained URL.

    Notes
    -----
    As fsspec's contract asks, a missing file raises FileNotFoundError; the rest is as with
    :func:`sealbook.sealing.open_sealed`. Only whole files are written: appending is refused.

    fsspec's configuration (variables ``FSSPEC_SEALED...``, files in ``~/.config/fsspec``) has no say here.
    That of the file system below counts as usual: it holds nothing but sealed files.
    """

    protocol: ClassVar[str] = "sealed"
    # Instances hold key providers; fsspec would keep them for the life of the process.
    cachable = False

    def __init__(
        self,
        fs: fsspec.AbstractFileSystem | None = None,
        *,
        keys: KeyProvider | None = None,
        key: str | None = None,
        context: Mapping[str, str] | None = None,
        fo: str | None = None,
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.fs = fs or fsspec.filesystem(target_protocol or "file", **(target_options or {}))
        self._keys, self._key, self._context = keys, key, context

    def _open(self, path: str, mode: str = "rb", autocommit: bool = True, **_: Any) -> Any:
        path = self._below(path)
        local = isinstance(self.fs, LocalFileSystem)
        keys = self._keys or default_keys()
        if mode == "rb":
            # No cache below ours: it would fetch more than the segments that are needed.
            target = path if local else self.fs.open(path, "rb", cache_type="none")
            return SealedReader(target, keys=keys, key=self._key, context=self._context, owned=not local)
        if mode != "wb":
            raise InputError(f"Sealed files are written whole, with mode 'wb', not {mode!r}.")
        key = default_key_name() if self._key is None else self._key
        if local and autocommit:
            return SealedWriter(path, key=key, keys=keys, context=self._context)
        return _StagedWriter(self.fs, path, autocommit=autocommit, key=key, keys=keys, context=self._context)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Describe one file or directory; `size` is the plaintext's, `sealed_size` what is stored."""
        return self._plain(self.fs.info(self._below(path), **options))

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """List a directory."""
        entries = self.fs.ls(self._below(path), detail=True, **options)
        return [self._plain(entry) if detail else entry["name"] for entry in entries]

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        """Make a directory in the store."""
        self.fs.mkdir(self._below(path), create_parents=create_parents, **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory and those above it in the store."""
        self.fs.makedirs(self._below(path), exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory from the store."""
        self.fs.rmdir(self._below(path))

    def rm_file(self, path: str) -> None:
        """Delete a file from the store."""
        self.fs.rm_file(self._below(path))

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete files and directories from the store."""
        below = [self._below(p) for p in path] if isinstance(path, list) else self._below(path)
        self.fs.rm(below, recursive=recursive, maxdepth=maxdepth)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        """Copy a sealed file as it is: it is bound to its context, not to its name."""
        self.fs.cp_file(self._below(path1), self._below(path2), **options)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        """Move a sealed file as it is."""
        self.fs.mv(self._below(path1), self._below(path2), **options)

    def created(self, path: str) -> Any:
        """Return when the store says the file was made."""
        return self.fs.created(self._below(path))

    def modified(self, path: str) -> Any:
        """Return when the store says the file was last written."""
        return self.fs.modified(self._below(path))

    def _below(self, path: str) -> str:
        return str(self.fs._strip_protocol(self._strip_protocol(path)))

    def _plain(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the stored size of a sealed file by that of its plaintext."""
        result = dict(entry)
        stored = result.get("size")
        if result.get("type") != "file" or stored is None:
            return result
        size = plain_size(stored - HEADER)
        result["sealed"] = (
            size is not None and self.fs.cat_file(result["name"], start=0, end=len(MAGIC)) == MAGIC
        )
        if result["sealed"]:
            result |= {"size": size, "sealed_size": stored}
        return result


class _StagedWriter(SealedWriter):
    """Writes to another name in the store and moves the file to its own when it is complete."""

    _pending = False

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str, *, autocommit: bool, **sealing: Any) -> None:
        if fs.isdir(path):
            raise InputError(f"{path} is a directory; name a file.")
        self._fs, self._path, self._autocommit = fs, path, autocommit
        self._staged = f"{path}{TEMPORARY_INFIX}{secrets.token_hex(8)}"
        self._below = fs.open(self._staged, "wb")
        self._pending = True
        try:
            super().__init__(self._below, **sealing)
        except BaseException:
            self._clean()
            raise
        self.name = path

    def close(self) -> None:
        """Complete the file and, unless in a transaction, give it its name."""
        if not self._done:
            super().close()
            self._below.close()
            if self._autocommit:
                self.commit()

    def commit(self) -> None:
        """Give the closed file its name."""
        self._fs.mv(self._staged, self._path)
        self._pending = False

    def discard(self) -> None:
        """Remove what was written; what had the name is untouched."""
        super().discard()
        if self._pending:
            self._clean()

    def _clean(self) -> None:
        self._pending = False
        with contextlib.suppress(Exception):  # what is being reported is why there is something to remove
            self._below.close()
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._staged)
