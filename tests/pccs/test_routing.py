"""Which source is asked for which evidence, and the way through the broker to a session."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from sealbook import paths
from sealbook.attestation import (
    ROLE_KERNEL,
    CollateralMemory,
    Measurement,
    Policy,
    Quote,
    SimulatedPlatform,
    policy_text,
    report_data,
)
from sealbook.attestation.endorsements import EndorsementRouter, names_intel, user_endorsements
from sealbook.attestation.result import AttestationRefusedError
from sealbook.broker import AuditLog, Broker, GuardedClock, Keyring, MemoryStore
from sealbook.errors import RefusedError

from .conftest import FIRST

QUOTED = b"Hello, world!".ljust(64, b"\0")
BOUND = {"role": ROLE_KERNEL, "audience": "test", "claims": {"key": b"k"}}


class Untouched:
    """A source that must not be asked."""

    def collateral_for(self, quote: Quote) -> None:
        pytest.fail("the wrong source was asked")


def hardware_policy(quote: Quote) -> Policy:
    return Policy.parse(
        policy_text(
            id="hardware",
            mrenclave=quote.report.mrenclave,
            root=None,
            now=FIRST,
            allowed_statuses=("UpToDate", "ConfigurationAndSWHardeningNeeded"),
            accepted_advisories=("INTEL-SA-00289", "INTEL-SA-00615"),
        )
    )


def broker(source: object, directory: Path, now=FIRST + timedelta(days=1)) -> Broker:
    return Broker(
        Keyring(MemoryStore()),
        AuditLog(directory / "audit.jsonl", clock=lambda: now),
        source,
        clock=GuardedClock(lambda: now, elapsed=lambda: 0.0),
        memory=CollateralMemory(directory / "memory.json"),
    )


@pytest.fixture
def simulated(tmp_path: Path) -> SimulatedPlatform:
    return SimulatedPlatform.load_or_create(tmp_path / "platform")


def simulated_quote(platform: SimulatedPlatform) -> Quote:
    return Quote.parse(platform.attester(Measurement(b"\x01" * 32)).quote(bytes(64)))


def test_a_simulated_quote_goes_to_the_simulated_platform_and_nobody_else(simulated):
    quote = simulated_quote(simulated)
    assert not names_intel(quote)
    router = EndorsementRouter(hardware=Untouched(), simulated=simulated.source())
    assert router.collateral_for(quote) == simulated.collateral()


def test_a_quote_that_names_intels_root_goes_to_the_service_and_nobody_else(side, quote, genuine):
    assert names_intel(quote)
    router = EndorsementRouter(hardware=side.source(), simulated=Untouched())
    assert router.collateral_for(quote).tcb_info == genuine.tcb_info


def test_real_evidence_opens_a_session_through_broker_router_and_service(side, quote, tmp_path, monkeypatch):
    # The real quote binds "Hello, world!" and not what this broker asks for; everything else is real.
    monkeypatch.setattr("sealbook.broker.broker.report_data", lambda **bound: QUOTED)
    asking = broker(EndorsementRouter(hardware=side.source(), simulated=Untouched()), tmp_path)
    policy = hardware_policy(quote)
    session = asking.attest(quote.raw, nonce=asking.challenge(policy), policy=policy, **BOUND)
    assert session.result.accepted
    assert session.result.root == "intel"
    assert not session.result.simulated
    assert session.result.label == "attested"


def test_real_evidence_that_binds_something_else_is_refused_for_that_and_nothing_else(side, quote, tmp_path):
    asking = broker(EndorsementRouter(hardware=side.source(), simulated=Untouched()), tmp_path)
    policy = hardware_policy(quote)
    with pytest.raises(AttestationRefusedError) as caught:
        asking.attest(quote.raw, nonce=asking.challenge(policy), policy=policy, **BOUND)
    assert [refusal.check for refusal in caught.value.result.refusals] == ["report-data"]


def test_an_unreachable_service_is_a_refusal_in_one_sentence_that_the_audit_log_has(
    side, pccs, quote, tmp_path, monkeypatch
):
    monkeypatch.setattr("sealbook.broker.broker.report_data", lambda **bound: QUOTED)
    pccs.answers = {}
    asking = broker(EndorsementRouter(hardware=side.source(), simulated=Untouched()), tmp_path)
    policy = hardware_policy(quote)
    with pytest.raises(RefusedError, match="There is no valid collateral") as caught:
        asking.attest(quote.raw, nonce=asking.challenge(policy), policy=policy, **BOUND)
    *_, entry = asking.audit.entries()
    assert entry["decision"] == "refused"
    assert entry["reasons"] == [str(caught.value)]


def test_a_service_that_goes_back_to_older_collateral_is_seen_by_the_brokers_memory(
    side, pccs, quote, tmp_path, monkeypatch
):
    monkeypatch.setattr("sealbook.broker.broker.report_data", lambda **bound: QUOTED)
    memory = tmp_path / "memory.json"
    policy = hardware_policy(quote)
    asking = broker(EndorsementRouter(hardware=side.source(), simulated=Untouched()), tmp_path)
    asking.attest(quote.raw, nonce=asking.challenge(policy), policy=policy, **BOUND)
    memory.write_text(memory.read_text().replace('"tcb_eval_data_number":17', '"tcb_eval_data_number":18'))
    with pytest.raises(AttestationRefusedError) as caught:
        asking.attest(quote.raw, nonce=asking.challenge(policy), policy=policy, **BOUND)
    assert [refusal.check for refusal in caught.value.result.refusals] == ["collateral-rollback"]


def test_the_service_vouches_for_nothing_simulated_evidence_needs_under_intels_root(
    side, quote, simulated, tmp_path
):
    """The router is a hint: Intel's root refuses a simulated quote wherever its collateral is from."""
    asking = broker(EndorsementRouter(hardware=side.source(), simulated=simulated.source()), tmp_path)
    policy = hardware_policy(quote)
    nonce = asking.challenge(policy)
    evidence = simulated.attester(Measurement(quote.report.mrenclave)).quote(
        report_data(nonce=nonce, **BOUND)
    )
    with pytest.raises(AttestationRefusedError, match="simulated"):
        asking.attest(evidence, nonce=nonce, policy=policy, **BOUND)


def test_the_users_own_endorsements_serve_simulated_quotes_without_any_network(tmp_path, monkeypatch):
    monkeypatch.setenv("SEALBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEALBOOK_PCCS", "not an address at all")
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("the network was used"))
    source = user_endorsements()
    platform = SimulatedPlatform.load_or_create(paths.simulated_platform_dir())
    assert source.collateral_for(simulated_quote(platform)) == platform.collateral()
    assert not paths.collateral_cache_dir().exists()


def test_a_configuration_that_cannot_be_used_is_said_when_hardware_is_to_be_judged(
    tmp_path, monkeypatch, quote
):
    monkeypatch.setenv("SEALBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEALBOOK_PCCS", "not an address at all")
    source = user_endorsements()
    with pytest.raises(Exception, match="SEALBOOK_PCCS") as caught:
        source.collateral_for(quote)
    assert "no https address" in str(caught.value)


def test_the_embedded_broker_asks_the_users_endorsements(tmp_path, monkeypatch):
    from sealbook.jupyter import embedded

    monkeypatch.setenv("SEALBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(embedded, "_broker", None)
    assert isinstance(embedded.embedded_broker()._collateral, EndorsementRouter)
