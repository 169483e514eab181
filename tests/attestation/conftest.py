"""A simulated platform in memory that each test forges one part of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sealbook.attestation import (
    AttestationResult,
    Collateral,
    CollateralMemory,
    Policy,
    Verifier,
    policy_text,
    report_data,
)
from sealbook.attestation.simulated import Forge, QuoteSpec, ReportSpec

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NONCE = bytes(range(32))
EXPECTED = report_data(role="kernel", audience="broker", nonce=NONCE, claims={"key": b"public key of A"})
REPORT = ReportSpec(
    mrenclave=b"\xaa" * 32, mrsigner=b"\xbb" * 32, isv_prod_id=7, isv_svn=3, report_data=EXPECTED
)


@dataclass
class Scene:
    """One forge and the policy that admits its honest quote."""

    now: datetime = NOW
    expected: bytes = EXPECTED
    report: ReportSpec = REPORT
    forge: Forge = field(default_factory=lambda: Forge.create(NOW))
    memory: CollateralMemory | None = None

    def policy_text(self) -> str:
        return policy_text(
            mrenclave=REPORT.mrenclave,
            mrsigner=REPORT.mrsigner,
            isv_prod_id=7,
            min_isv_svn=3,
            root=self.forge.root,
            now=NOW,
        )

    def policy(
        self, *, text: str | None = None, identity: dict[str, Any] | None = None, **parts: Any
    ) -> Policy:
        """Return the honest policy; each part is a dict of changed fields or a whole value."""
        policy = Policy.parse(text or self.policy_text())
        if identity:
            policy = replace(policy, identities=(replace(policy.identities[0], **identity),))
        for name, value in parts.items():
            policy = replace(
                policy,
                **{name: replace(getattr(policy, name), **value) if isinstance(value, dict) else value},
            )
        return policy

    def quote(self, spec: QuoteSpec | None = None, **report: Any) -> bytes:
        return self.forge.quote(replace(self.report, **report), spec)

    def verify(
        self,
        quote: bytes | None = None,
        *,
        collateral: Collateral | None = None,
        policy: Policy | None = None,
        now: datetime | None = None,
        expected: bytes | None = EXPECTED,
    ) -> AttestationResult:
        verifier = Verifier(policy or self.policy(), memory=self.memory)
        return verifier.verify(
            self.quote() if quote is None else quote,
            collateral or self.forge.collateral(),
            now=now or self.now,
            expected_report_data=expected,
        )


@pytest.fixture
def scene() -> Scene:
    """An honest platform; that it is accepted is checked first, or a refusal would prove nothing."""
    honest = Scene()
    assert honest.verify().accepted, honest.verify().refusals
    return honest


@pytest.fixture(scope="session")
def real_quotes() -> Path:
    """Real Intel quotes, with their collateral (tests/data/sgx-quotes/README.md)."""
    return Path(__file__).parents[1] / "data" / "sgx-quotes"


@pytest.fixture(scope="session")
def refused_by() -> Any:
    """Assert that a result is refused, by these checks and (unless ``others``) nothing else."""

    def check(result: AttestationResult, *checks: str, others: bool = False) -> None:
        found = {refusal.check for refusal in result.refusals}
        assert not result.accepted
        assert result.label == "refused"
        assert result.status == "contraindicated"
        assert set(checks) <= found, result.refusals
        if not others:
            assert found == set(checks), result.refusals
        assert_sentences(result.refusals)

    return check


def assert_sentences(refusals: Iterable[Any]) -> None:
    for refusal in refusals:
        for sentence in (refusal.reason, refusal.remedy):
            assert sentence.endswith(".")
            assert "\n" not in sentence
            assert sentence[0].isupper()
