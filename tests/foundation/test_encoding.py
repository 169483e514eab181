"""Canonical JSON is canonical, and untrusted JSON is refused where parsers disagree."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbook.encoding import MAX_DEPTH, canonical_json, parse_json
from sealbook.errors import InputError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(values)
def test_what_was_encoded_is_parsed_to_the_same(value: object) -> None:
    assert parse_json(canonical_json(value), what="it", max_bytes=10**6) == value


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=6))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


@pytest.mark.parametrize("value", [1.0, float("nan"), {1: "a"}, {"a": b"bytes"}, [object()]])
def test_what_has_no_canonical_form_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b'{"a":1,"a":2}', "twice"),
        (b"[NaN]", "NaN"),
        (b"[1] [2]", "Extra data"),
        (b"\xff", "utf-8"),
        (b"{", "Expecting"),
        (b" " * 101, "larger"),
        (rb'["\ud800"]', "surrogate"),
        (rb'{"a":{"\uDFFFx":1}}', "surrogate"),
        (rb'["\udc00\ud800"]', "surrogate"),
        ('["\ud800"]', "surrogate"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested"),
    ],
)
def test_bad_json_is_refused_with_its_cause_in_one_line(data: bytes | str, cause: str) -> None:
    with pytest.raises(InputError, match=cause) as refused:
        parse_json(data, what="The thing", max_bytes=100)
    assert str(refused.value).startswith("The thing ")
    assert "\n" not in str(refused.value)


def test_brackets_in_strings_do_not_count_as_nesting() -> None:
    text = json.dumps("[" * 50 + '\\"' + "{" * 20)
    assert isinstance(parse_json(text, what="it", max_bytes=1000), str)


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, ["a", {"b": "x\udc00y"}]])
def test_half_a_surrogate_pair_has_no_canonical_form(value: object) -> None:
    with pytest.raises(TypeError, match="surrogate"):
        canonical_json(value)


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert parse_json(rb'{"\ud83d\uDE00":"\\ud800"}', what="it", max_bytes=100) == {"\U0001f600": "\\ud800"}


def _seconds(data: bytes) -> float:
    """Return the CPU time of parsing, the least of three."""
    times = []
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(InputError):
            parse_json(data, what="it", max_bytes=len(data))
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize("unit", [rb"\"", rb"\"\"\\", rb"[\\", rb"\\"])
def test_a_string_without_an_end_takes_no_longer_than_one_with(unit: bytes) -> None:
    # A ratio, not a time: 64 KiB took 15 seconds when each quote was tried up to the end. The small
    # size comes first so that a slow one fails soon.
    for size in (2**14, 2**20):
        benign = json.dumps(['a\\"' * (size // 8)]).encode()
        bound = 50 * max(_seconds(benign), 0.001)
        hostile = (unit * size)[:size]
        for data in (hostile, b'"' + hostile, b'["' + hostile):
            with pytest.raises(InputError):
                parse_json(data, what="it", max_bytes=2 * size)
            assert _seconds(data) < bound
