"""Whatever bytes come in: the parser refuses or understands, the verifier never raises and never accepts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sealbook.attestation import (
    Collateral,
    MalformedCollateralError,
    MalformedQuoteError,
    Policy,
    PolicyError,
    Quote,
    Verifier,
    policy_text,
)
from sealbook.attestation.simulated import Forge, ReportSpec


@cache
def _honest() -> tuple[Any, ...]:
    from datetime import UTC, datetime

    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    forge = Forge.create(now)
    text = policy_text(mrenclave=b"\xaa" * 32, root=forge.root, now=now)
    quote = forge.quote(ReportSpec(mrenclave=b"\xaa" * 32))
    return now, quote, forge.collateral(), Verifier(Policy.parse(text)), text


def _refusal(kind: type[Exception], action: Callable[[], object]) -> str | None:
    try:
        action()
    except kind as error:
        return str(error)
    return None


@given(st.binary(max_size=6000))
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    refusal = _refusal(MalformedQuoteError, lambda: Quote.parse(raw))
    assert refusal is None or refusal.endswith(".")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1045), st.integers(1, 255)), min_size=1, max_size=8, unique_by=lambda x: x[0]
    )
)
def test_a_quote_changed_before_its_certificates_is_never_accepted(changes: list[tuple[int, int]]) -> None:
    now, quote, collateral, verifier, _ = _honest()
    assert verifier.verify(quote, collateral, now=now).accepted
    forged = bytearray(quote)
    for offset, flip in changes:
        forged[offset] ^= flip
    assert not verifier.verify(bytes(forged), collateral, now=now).accepted


@settings(max_examples=100, deadline=None)
@given(st.integers(1046, 5000), st.binary(min_size=1, max_size=40))
def test_a_changed_certificate_chain_never_raises_and_never_changes_what_is_accepted(
    offset: int, garbage: bytes
) -> None:
    now, quote, collateral, verifier, _ = _honest()
    offset = min(offset, len(quote) - 1)
    forged = quote[:offset] + garbage + quote[offset + len(garbage) :]
    result = verifier.verify(forged, collateral, now=now)
    honest = verifier.verify(quote, collateral, now=now)
    if result.accepted:  # white space in the PEM text is all that may differ
        assert result == honest


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 15000), st.integers(0, 30))
def test_any_json_of_collateral_is_read_or_refused(garbage: bytes, offset: int, cut: int) -> None:
    _, _, collateral, _, _ = _honest()
    whole = collateral.to_json()
    offset %= len(whole)
    changed = whole[:offset] + garbage + whole[offset + cut :]
    refusal = _refusal(MalformedCollateralError, lambda: Collateral.from_json(changed))
    assert refusal is None or "\n" not in refusal


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.integers(0, 3000), st.integers(0, 40))
def test_any_policy_text_is_read_or_refused_with_one_line(garbage: str, offset: int, cut: int) -> None:
    text = _honest()[-1]
    offset %= len(text)
    changed = text[:offset] + garbage + text[offset + cut :]
    refusal = _refusal(PolicyError, lambda: Policy.parse(changed))
    assert refusal is None or refusal.startswith("policy.toml")
    assert refusal is None or "\n" not in refusal
