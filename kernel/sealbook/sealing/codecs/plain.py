"""Text, bytes and JSON values: codecs that need nothing but the standard library."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from sealbook.encoding import MAX_DEPTH, parse_json
from sealbook.errors import InputError
from sealbook.sealing.codecs.base import Codec, Payload

#: JSON is parsed in memory; longer values belong in a table or an array.
MAX_JSON_BYTES = 256 * 1024 * 1024


class TextCodec(Codec):
    """``str`` as UTF-8."""

    name: ClassVar[str] = "text"
    holds: ClassVar[str] = "text"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102 - described in Codec
        return type(obj) is str

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        try:
            encoded = obj.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"The text has a lone surrogate at position {error.start}, which no encoding holds; "
                "seal `text.encode(errors='surrogatepass')` as bytes instead."
            ) from None
        return Payload(lambda file: _write(file, encoded))

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> str:  # noqa: D102
        with self.reading():
            return file.read().decode()


class BytesCodec(Codec):
    """``bytes``, ``bytearray`` and ``memoryview``; all come back as ``bytes``."""

    name: ClassVar[str] = "bytes"
    holds: ClassVar[str] = "bytes"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102
        return isinstance(obj, bytes | bytearray | memoryview)

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        # tobytes of a copy: a bytearray may change while it is written.
        content = bytes(obj)
        return Payload(lambda file: _write(file, content))

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> bytes:  # noqa: D102
        with self.reading():
            return file.read()


class JsonCodec(Codec):
    """Numbers, booleans, None, and lists and string-keyed dicts of these and of text."""

    name: ClassVar[str] = "json"
    holds: ClassVar[str] = "JSON values (dict, list, numbers, bool, None)"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102
        return obj is None or type(obj) in (dict, list, int, float, bool)

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        _refuse_lossy(obj, "the value", 0)
        try:
            # ASCII only, so that lone surrogates in strings come back too.
            encoded = json.dumps(obj, separators=(",", ":"), allow_nan=False).encode("ascii")
        except ValueError as error:
            raise InputError(f"The value is not JSON ({error}).") from None
        if len(encoded) > MAX_JSON_BYTES:
            raise InputError(
                f"The value is longer than the {MAX_JSON_BYTES >> 20} MiB that JSON may have; "
                "seal it as a DataFrame, an array or a file."
            )
        return Payload(lambda file: _write(file, encoded))

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: D102
        with self.reading():
            content = file.read(MAX_JSON_BYTES + 1)
            return parse_json(content, what="The sealed JSON", max_bytes=MAX_JSON_BYTES)


def _refuse_lossy(value: Any, where: str, depth: int) -> None:
    """Refuse what JSON would return as something else (a tuple as a list, 1 as a key as "1")."""
    if depth > MAX_DEPTH:
        raise InputError(f"The value is nested deeper than the {MAX_DEPTH} levels that are accepted.")
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise InputError(
                    f"A key of {where} is of type {type(key).__name__}, and JSON has text keys only; "
                    "convert the keys with str()."
                )
            _refuse_lossy(item, f"[{key!r}]" if len(key) <= 40 else "an entry", depth + 1)
    elif type(value) is list:
        for position, item in enumerate(value):
            _refuse_lossy(item, f"[{position}]", depth + 1)
    elif type(value) is float and not math.isfinite(value):
        raise InputError(f"JSON has no {value} (in {where}); seal a NumPy array, which has.")
    elif value is not None and type(value) not in (str, int, float, bool):
        raise InputError(
            f"JSON would not return the {type(value).__name__} in {where} as it is; "
            "convert it to dict, list, text, a number, a boolean or None."
        )


def _write(file: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
