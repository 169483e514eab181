"""What a worker's ``java`` asks of the executor starter: its arguments, environment and directory.

Four bytes, big-endian, with the length of the rest; then, with a NUL between each two, the directory,
the number of arguments, the arguments, and ``NAME=VALUE`` for each variable. (Nothing that a process is
started with has a NUL in it.) Written by ``executor_client.py``, which imports nothing of this package
to be there at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sealbook.errors import InputError

#: Of all behind the length. What Spark's worker sends has 10 KiB.
MAX_BYTES = 256 * 1024
LENGTH_BYTES = 4
_MAX_DIGITS = 6


@dataclass(frozen=True)
class ExecutorRequest:
    """How a worker called its ``java``."""

    directory: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    @staticmethod
    def length(head: bytes) -> int:
        """Return how many bytes follow `head`, the first four.

        Raises
        ------
        InputError
            More than there may be.
        """
        length = int.from_bytes(head, "big")
        if length > MAX_BYTES:
            raise InputError(f"A request for an executor has at most {MAX_BYTES} bytes, not {length}.")
        return length

    @classmethod
    def parse(cls, body: bytes) -> ExecutorRequest:
        """Return what the bytes behind the length say.

        Raises
        ------
        InputError
            They are not such a request.
        """
        directory, *rest = [os.fsdecode(part) for part in body.split(b"\0")]
        digits = rest[0] if rest else ""
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS):
            raise _malformed()
        count = int(digits)
        arguments, variables = rest[1 : 1 + count], rest[1 + count :]
        pairs = [variable.partition("=") for variable in variables]
        if len(arguments) != count or not all(name and equals for name, equals, _ in pairs):
            raise _malformed()
        return cls(Path(directory), tuple(arguments), {name: value for name, _, value in pairs})


def _malformed() -> InputError:
    return InputError("This is not a request for an executor: only a worker's `java` makes one.")
