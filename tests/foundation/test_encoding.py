"""Canonical JSON is canonical, and untrusted JSON is refused where parsers disagree."""

from __future__ import annotations

import json

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
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested"),
    ],
)
def test_bad_json_is_refused_with_its_cause_in_one_line(data: bytes, cause: str) -> None:
    with pytest.raises(InputError, match=cause) as refused:
        parse_json(data, what="The thing", max_bytes=100)
    assert str(refused.value).startswith("The thing ")
    assert "\n" not in str(refused.value)


def test_brackets_in_strings_do_not_count_as_nesting() -> None:
    text = json.dumps("[" * 50 + '\\"' + "{" * 20)
    assert isinstance(parse_json(text, what="it", max_bytes=1000), str)
