"""Reads the two files with which an image describes itself, as input that anyone may have written."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sealbook.errors import InputError
from sealbook.files import read_bounded
from sealbook.image.roles import ROLES

MANIFEST = "kernel.manifest"
SIGNED_MANIFEST = "kernel.manifest.sgx"

#: 22,000 trusted files take 4.4 MB.
MAX_MANIFEST_BYTES = 32 << 20

#: tomllib takes quadratic time for a key of many parts; a line of a real manifest has a file name or two.
_MOST_DOTS = 64
_MAX_ITEMS = 10_000
_MAX_BYTES_COUNTED = 2**50

_Check = Callable[[Any], bool]


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest's TOML.

    Raises
    ------
    InputError
        It cannot be read, is too large, or is not TOML.
    """
    return parse_manifest(read_bounded(path, "The manifest", MAX_MANIFEST_BYTES, regular=True), str(path))


def parse_manifest(data: bytes, source: str = MANIFEST) -> dict[str, Any]:
    """Parse a manifest's TOML.

    Raises
    ------
    InputError
        One sentence that begins with `source`.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise InputError(f"{source} is larger than the {MAX_MANIFEST_BYTES} bytes that are accepted.")
    if any(line.count(b".") > _MOST_DOTS for line in data.split(b"\n")):
        raise InputError(f"{source} has a line with more than the {_MOST_DOTS} dots that are accepted.")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{source} is not TOML: it is not UTF-8.") from None
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is a ValueError; so is a number of more digits than Python converts.
        cause = str(error).partition("\n")[0][:200].rstrip(".") or type(error).__name__
        raise InputError(f"{source} is not TOML: {cause}.") from None


def check_facts(facts: Any, source: str) -> None:
    """Check what was parsed from an ``image.json``: every field there, of its form, and no other.

    Raises
    ------
    InputError
        One sentence that begins with `source`.
    """
    if not isinstance(facts, dict):
        raise InputError(f"{source} is not an image's record: it is not an object.")
    for name in facts:
        if name not in _FACTS:
            raise InputError(f"{source} is not an image's record: the field {name[:40]!r} is not known.")
    for name, (fits, form) in _FACTS.items():
        if name not in facts:
            raise InputError(f"{source} is not an image's record: {name} is missing.")
        if not fits(facts[name]):
            raise InputError(f"{source} is not an image's record: {name} is not {form}.")
    if facts["signed"] and (facts["mrenclave"] is None or facts["mrsigner"] is None):
        raise InputError(
            f"{source} is not an image's record: it is signed and has no mrenclave or no mrsigner."
        )


def _text(pattern: str) -> _Check:
    form = re.compile(pattern)
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


def _whole(low: int, high: int) -> _Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _or_none(fits: _Check) -> _Check:
    return lambda value: value is None or fits(value)


def _list(fits: _Check) -> _Check:
    return lambda value: isinstance(value, list) and len(value) <= _MAX_ITEMS and all(map(fits, value))


def _table(key: _Check, fits: _Check) -> _Check:
    return lambda value: (
        isinstance(value, dict)
        and len(value) <= _MAX_ITEMS
        and all(key(name) and fits(item) for name, item in value.items())
    )


def _is_group(value: Any) -> bool:
    number = _whole(0, _MAX_BYTES_COUNTED)
    return isinstance(value, dict) and set(value) == {"files", "bytes"} and all(map(number, value.values()))


_NAME = _text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = _text(r"[A-Za-z0-9][A-Za-z0-9.!+~_-]{0,63}")
_MEASUREMENT = (_or_none(_text(r"[0-9a-f]{64}")), "null or 64 lower-case hexadecimal digits")
_ID = (_whole(0, 0xFFFF), "a whole number from 0 to 65535")

#: Field -> what it must be, and that in words.
_FACTS: Mapping[str, tuple[_Check, str]] = {
    "format": (_whole(1, 1), "1, the only format that this sealbook reads"),
    "name": (_NAME, "a name"),
    "layers": (_list(_NAME), "a list of names"),
    "gramine": (_VERSION, "a version"),
    "python": (_VERSION, "a version"),
    "packages": (_table(_NAME, _VERSION), "names of packages with their versions"),
    # From "!" to "~": what can be printed, without spaces. "[" is a program.
    "programs": (_list(_text(r"[!-~]{1,128}")), "a list of names"),
    "mrenclave": _MEASUREMENT,
    "mrsigner": _MEASUREMENT,
    "isv_prod_id": _ID,
    "isv_svn": _ID,
    "signed": (lambda value: isinstance(value, bool), "true or false"),
    "manifest": (_text(r"[0-9a-f]{64}"), "64 lower-case hexadecimal digits"),
    "owner": _MEASUREMENT,
    "role": (_text("|".join(ROLES)), "a role of images"),
    "tables": (_or_none(_text(r"/[!-~]{1,1024}")), "null or an absolute path"),
    "work": (_text("host|encrypted"), '"host" or "encrypted"'),
    "groups": (
        _table(_text(r"[A-Za-z][A-Za-z0-9 _-]{0,39}"), _is_group),
        "names of groups with files and bytes",
    ),
}
