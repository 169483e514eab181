"""Quotes of real SGX hardware (tests/data/sgx-quotes/README.md says whence and under which licence)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sealbook.attestation import (
    AttestationResult,
    Collateral,
    CollateralMemory,
    Policy,
    Quote,
    Verifier,
    policy_text,
)
from sealbook.attestation.intel import ROOT_CA_DER

FIRST, LAST = 1750330571, 1752919278
MRENCLAVE = bytes.fromhex("33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb")
LENIENT = {
    "allowed_statuses": ("UpToDate", "ConfigurationAndSWHardeningNeeded"),
    "accepted_advisories": ("INTEL-SA-00289", "INTEL-SA-00615"),
}


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.fixture
def genuine(real_quotes: Path) -> tuple[bytes, Collateral]:
    folder = real_quotes / "phala_sgx"
    return (folder / "quote.bin").read_bytes(), Collateral.from_json(
        (folder / "collateral.json").read_bytes()
    )


def _policy(**arguments: Any) -> Policy:
    defaults = {"mrenclave": MRENCLAVE, "root": None, "now": _time(FIRST), **LENIENT}
    return Policy.parse(policy_text(**{**defaults, **arguments}))


@pytest.mark.parametrize("now", [FIRST, FIRST + 1_000_000, LAST])
def test_a_genuine_quote_is_accepted_while_its_collateral_is_valid(
    genuine: Any, tmp_path: Path, now: int
) -> None:
    expected = b"Hello, world!".ljust(64, b"\0")
    verifier = Verifier(_policy(), memory=CollateralMemory(tmp_path / "seen.json"))
    result = verifier.verify(*genuine, now=_time(now), expected_report_data=expected)
    assert result.require() is result
    assert result.label == "attested"
    assert not result.simulated
    assert result.root == "intel"
    assert result.status == "warning"
    assert result.tcb_status == "ConfigurationAndSWHardeningNeeded"
    assert result.advisories == ("INTEL-SA-00289", "INTEL-SA-00615")
    assert result.platform.fmspc == "00a067110000"
    assert result.platform.ppid == "d04ec06d4e6d92dc90d0ad3cf5ee2ddf"
    assert (result.isv_prod_id, result.isv_svn) == (0, 0)
    assert result.bound
    assert "simulated" not in result.summary()
    assert result.collateral_expires_at == _time(LAST)
    assert AttestationResult.from_dict(result.to_dict()) == result
    assert result.to_ear()["eat_profile"].startswith("tag:")


@pytest.mark.parametrize("now", [FIRST - 1, LAST + 1, 1795430000])
def test_a_genuine_quote_is_refused_outside_the_time_of_its_collateral(
    genuine: Any, refused_by: Any, now: int
) -> None:
    policy = replace(_policy(), created=_time(0), expires=_time(2_000_000_000))
    result = Verifier(policy).verify(*genuine, now=_time(now))
    refused_by(result, "collateral-time", others=True)


def test_a_genuine_quote_is_refused_by_the_default_rules_with_every_reason(
    genuine: Any, refused_by: Any
) -> None:
    policy = _policy(allowed_statuses=("UpToDate",), accepted_advisories=(), mrenclave=bytes(32))
    result = Verifier(policy).verify(*genuine, now=_time(FIRST), expected_report_data=bytes(64))
    refused_by(result, "measurement", "report-data", "tcb-status", "advisory")
    assert len(result.refusals) == 5


@pytest.mark.parametrize("folder", ["debug_trustee_occlum", "parse_only_openenclave"])
def test_a_genuine_debug_enclave_parses_and_is_refused(
    genuine: Any, real_quotes: Path, refused_by: Any, folder: str
) -> None:
    raw = (real_quotes / folder / "quote.bin").read_bytes()
    quote = Quote.parse(raw)
    assert quote.report.debug
    policy = _policy(mrenclave=quote.report.mrenclave)
    result = Verifier(policy).verify(raw, genuine[1], now=_time(FIRST))
    refused_by(result, "debug", others=True)


@pytest.mark.parametrize("folder", ["phala_sgx", "debug_trustee_occlum", "parse_only_openenclave"])
def test_the_pinned_intel_root_is_the_one_in_real_quotes(real_quotes: Path, folder: str) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    quote = Quote.parse((real_quotes / folder / "quote.bin").read_bytes())
    assert quote.certificates[2].public_bytes(Encoding.DER) == ROOT_CA_DER
    assert len(quote.fmspc) == 12


def test_a_flip_anywhere_in_a_genuine_quote_before_its_certificates_is_refused(genuine: Any) -> None:
    raw, collateral = genuine
    verifier = Verifier(_policy())
    for offset in range(0, 1048, 3):
        forged = bytearray(raw)
        forged[offset] ^= 0x10
        assert not verifier.verify(bytes(forged), collateral, now=_time(FIRST)).accepted, offset


def test_what_dcap_qvl_lets_through_on_a_genuine_quote_is_refused(genuine: Any) -> None:
    raw, collateral = genuine
    verifier = Verifier(_policy())
    assert not verifier.verify(raw + b"\0", collateral, now=_time(FIRST)).accepted
    garbage = replace(collateral, pck_crl_issuer_chain="garbage")
    assert not verifier.verify(raw, garbage, now=_time(FIRST)).accepted
    root = bytearray(raw)
    place = raw.rindex(b"-----END") - 20  # in the signature of the root certificate
    root[place] = ord("A") if root[place] != ord("A") else ord("B")
    assert not verifier.verify(bytes(root), collateral, now=_time(FIRST)).accepted


def test_the_quote_to_learn_from_is_the_one_that_is_tested(genuine: Any) -> None:
    from sealbook.attestation.examples import genuine_example

    example = genuine_example()
    assert (example.quote, example.collateral) == genuine
    assert FIRST <= example.valid_at.timestamp() <= LAST
    assert Verifier(_policy()).verify(*genuine, now=example.valid_at).accepted
