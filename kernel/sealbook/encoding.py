"""One canonical JSON for everything that is hashed, signed or authenticated.

The subset of RFC 8785 (JCS) that sealbook needs: objects with string keys sorted by code
point, no insignificant white space, UTF-8, and of the numbers only integers, because how
a float is written is where canonical JSON implementations disagree.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sealbook.errors import InputError

#: Objects and arrays may nest this deep; deeper input is refused before it is parsed.
MAX_DEPTH = 32

#: The closing quote is optional: nothing after a string's content can fail, so nothing is tried again and
#: the time is linear also where a string has no end.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
#: Only such an escape can bring half a surrogate pair into a parsed string: UTF-8 has none.
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def canonical_json(value: Any) -> bytes:
    """Encode `value` as canonical JSON.

    Parameters
    ----------
    value
        Made of dict (string keys), list or tuple, str, int, bool and None.

    Returns
    -------
    bytes
        UTF-8; equal values give equal bytes.

    Raises
    ------
    TypeError
        For floats and every other type: their encoding would not be canonical. For strings with half a
        surrogate pair: they have no UTF-8.
    """
    _refuse_inexact(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise TypeError("no canonical JSON for half a surrogate pair") from None


def parse_json(data: bytes | str, *, what: str, max_bytes: int) -> Any:
    """Parse untrusted JSON, refusing what parsers are known to disagree about.

    Parameters
    ----------
    data
        The text; invalid UTF-8 is refused.
    what
        What the text is supposed to be, for the error's sentence ("the sealed file's header").
    max_bytes
        Longer input is refused unread.

    Raises
    ------
    InputError
        Too long, nested deeper than :data:`MAX_DEPTH`, not UTF-8, not JSON, a duplicate key, a NaN, half a
        surrogate pair (RFC 8259, section 8.2: what parsers make of one is unpredictable).
    """
    if len(data) > max_bytes:
        raise InputError(f"{what} is larger than the {max_bytes} bytes that are accepted.")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        if _nesting(text) > MAX_DEPTH:
            raise InputError(f"{what} is nested deeper than the {MAX_DEPTH} levels that are accepted.")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if isinstance(data, str) or _SURROGATE_ESCAPE.search(text):
            _refuse_lone_surrogates(value)
        return value
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is not valid JSON ({_first_line(error)}): use an intact copy.") from None


def _refuse_inexact(value: Any) -> None:
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"canonical JSON has string keys only, not {type(key).__name__}")
            _refuse_inexact(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_inexact(item)
    else:
        raise TypeError(f"no canonical JSON for {type(value).__name__}")


def _nesting(text: str) -> int:
    """Return the depth of brackets outside strings; json.loads would recurse once for each."""
    deepest = depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        piece = match.group()
        if piece in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif piece in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair stands in a string") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
