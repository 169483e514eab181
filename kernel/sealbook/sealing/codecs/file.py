"""Ordinary files, byte for byte."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from sealbook.errors import InputError
from sealbook.sealing.codecs.base import Codec, Payload

_CHUNK = 1024 * 1024


class FileCodec(Codec):
    """A ``pathlib.Path`` that names a regular file.

    Name, times and permissions are not kept: what an untrusted host may know of the file
    should not depend on where it lay. The whole content comes back as ``bytes`` unless
    the caller unseals to a path, which streams.
    """

    name: ClassVar[str] = "file"
    holds: ClassVar[str] = "files (as pathlib.Path)"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102 - described in Codec
        return isinstance(obj, Path) and not obj.is_dir()

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        try:
            mode = obj.stat().st_mode
        except OSError as error:
            raise InputError(f"The file {obj} cannot be read ({os.strerror(error.errno or 0)}).") from None
        if not stat.S_ISREG(mode):
            raise InputError(f"{obj} is not a regular file; only files and directories can be sealed.")

        def write(file: BinaryIO) -> None:
            with obj.open("rb") as source:
                shutil.copyfileobj(source, file, _CHUNK)

        return Payload(write)

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> bytes:  # noqa: D102
        with self.reading():
            return file.read()
