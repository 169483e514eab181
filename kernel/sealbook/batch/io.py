"""papermill reads and writes ``sealed://`` notebooks: sealed files, with a key of the user's.

``sealed://runs/out.ipynb`` is relative, ``sealed:///data/out.ipynb`` absolute. An output is sealed to
the key after ``?key=``, else to the session's default key (``$SEALBOOK_KEY``); an input names its key
itself. papermill runs on the user's side and is no enclave, so the key must be one that demands
no attestation.

This module must not import papermill, which loads it in the middle of its own import: every
``import papermill`` of the environment would fail. Nor does it load anything heavy for those who
import papermill and never seal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs

from sealbook.errors import InputError

SCHEME = "sealed://"


class SealedHandler:
    """The handler that the entry point ``papermill.io`` names; papermill calls the class, not an instance."""

    #: Where relative paths pointed when papermill began: it changes the directory before it saves.
    _begun: ClassVar[dict[str, Path]] = {}

    @classmethod
    def read(cls, path: str) -> str:
        """Unseal a notebook.

        Raises
        ------
        UnsealError, KeyUnavailableError
            See :func:`sealbook.unseal`.
        InputError
            No such file, or its content is no text.
        """
        from sealbook import artifacts

        file, key = cls._split(path)
        if key is not None:
            raise InputError(f"{path} names a key, but a sealed file names its own; leave out '?key='.")
        with _said_of_papermill(), artifacts.open(file) as sealed:
            content = sealed.read()
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise InputError(f"{path} holds no notebook; give papermill the sealed .ipynb file.") from None

    @classmethod
    def write(cls, buf: str, path: str) -> None:
        """Seal a notebook; the file under its name is always complete, also while cells still run.

        Raises
        ------
        KeyUnavailableError
            The key is not one that this process gets.
        InputError
            The path cannot be written.
        """
        from sealbook import artifacts

        file, key = cls._split(path)
        with _said_of_papermill(), artifacts.open(file, "wb", key=key) as sealed:
            sealed.write(buf.encode())

    @classmethod
    def listdir(cls, path: str) -> list[str]:
        """List a directory as ``sealed://`` paths."""
        directory, _ = cls._split(path)
        if not directory.is_dir():
            raise InputError(f"{path} is not a directory; name the directory of the notebooks.")
        return [f"{SCHEME}{found}" for found in sorted(directory.iterdir())]

    @classmethod
    def pretty_path(cls, path: str) -> str:
        """Return the path for papermill's log; papermill asks this first, before it changes the directory."""
        cls._begun.pop(path, None)
        cls._begun[path], _ = cls._split(path)
        return path

    @classmethod
    def _split(cls, path: str) -> tuple[Path, str | None]:
        """Return the file and the key of a ``sealed://`` path."""
        name, _, query = path.removeprefix(SCHEME).partition("?")
        fields = parse_qs(query, keep_blank_values=True)
        if not name or set(fields) - {"key"} or len(fields.get("key", [])) > 1:
            raise InputError(f"{path} is not a sealed path; write sealed://PATH or sealed://PATH?key=NAME.")
        return cls._begun.get(path) or Path(name).expanduser().absolute(), fields.get("key", [None])[0]


@contextlib.contextmanager
def _said_of_papermill() -> Iterator[None]:
    """Say of whom a refused key is said: the notebook's kernel may well be attested, papermill is not."""
    from sealbook.sealing import KeyUnavailableError

    try:
        yield
    except KeyUnavailableError as error:
        raise KeyUnavailableError(
            "papermill reads and writes sealed:// notebooks itself, outside the attested kernel: name a "
            "key that demands no attestation, sealed://PATH?key=NAME (`sealbook keys create NAME --guard "
            f"none` makes one). {error}"
        ) from None
