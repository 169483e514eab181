"""Kernels that are not attested: what they say, who admits them, and what nobody is told about them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbook.attestation import (
    AttestationResult,
    Collateral,
    MalformedQuoteError,
    MalformedStatementError,
    Policy,
    PolicyError,
    Quote,
    TrustVector,
    UnattestedAttester,
    UnattestedStatement,
    Verifier,
    checks,
    is_statement,
    policy_text,
)
from sealbook.attestation.intel import ROOT_CA_DER, ROOT_CA_FINGERPRINT
from sealbook.attestation.policy import INTEL_ROOT, NO_ROOT, TrustRoot
from sealbook.attestation.result import EAR_PROFILE, SIMULATED_EAR_PROFILE
from sealbook.encoding import canonical_json
from sealbook.errors import InputError

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
WANTED = bytes(range(64))
FIELDS = {"type": "not attested", "tee": "gramine-direct", "report_data": WANTED.hex()}


def text(**arguments: Any) -> str:
    return policy_text(**{"tee": "gramine-direct", "now": NOW, **arguments})


POLICY = Policy.parse(text())
STATEMENT = UnattestedAttester().quote(WANTED)


def judged(
    evidence: bytes = STATEMENT, policy: Policy = POLICY, now: datetime = NOW, expected: bytes | None = WANTED
) -> AttestationResult:
    return Verifier(policy).verify(evidence, None, now=now, expected_report_data=expected)


# -- the statement -----------------------------------------------------------------------------


def test_a_statement_says_what_it_is_and_is_read_back() -> None:
    assert json.loads(STATEMENT) == FIELDS
    parsed = UnattestedStatement.parse(STATEMENT)
    assert (parsed.tee, parsed.report_data) == ("gramine-direct", WANTED)
    assert parsed.encode() == STATEMENT
    assert parsed.identity != UnattestedStatement("gramine-direct", bytes(64)).identity


@pytest.mark.parametrize("length", [0, 63, 65])
def test_the_attester_states_exactly_64_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        UnattestedAttester().quote(bytes(length))


@pytest.mark.parametrize("tee", ["sgx", "", "none"])
def test_nothing_that_could_attest_itself_states_that_it_is_not_attested(tee: str) -> None:
    with pytest.raises(ValueError, match="no environment without attestation"):
        UnattestedAttester(tee)


ODD = {
    "nothing": b"",
    "text": STATEMENT.decode(),
    "a bytearray": bytearray(STATEMENT),
    "no object": b"[]",
    "cut off": STATEMENT[:-1],
    "not utf-8": b"{\xff}",
    "a byte after it": STATEMENT + b"\n",
    "white space": STATEMENT.replace(b",", b", "),
    "another order": json.dumps(FIELDS, separators=(",", ":")).encode(),
    "a field twice": STATEMENT[:-1] + b',"type":"not attested"}',
    "a field more": canonical_json(FIELDS | {"mrenclave": "00" * 32}),
    "no report data": canonical_json({k: v for k, v in FIELDS.items() if k != "report_data"}),
    "63 bytes": canonical_json(FIELDS | {"report_data": "00" * 63}),
    "65 bytes": canonical_json(FIELDS | {"report_data": "00" * 65}),
    "upper case": canonical_json(FIELDS | {"report_data": "AB" * 64}),
    "no hex": canonical_json(FIELDS | {"report_data": "zz" * 64}),
    "report data that is a number": canonical_json(FIELDS | {"report_data": 7}),
    "another type": canonical_json(FIELDS | {"type": "attested"}),
    "tee sgx": canonical_json(FIELDS | {"tee": "sgx"}),
    "tee that is a list": canonical_json(FIELDS | {"tee": ["gramine-direct"]}),
    "deep": b"{" * 40,
    "long": b'{"' + b"a" * 2000 + b'":1}',
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
def test_anything_but_the_one_encoding_is_no_statement(raw: Any) -> None:
    with pytest.raises(MalformedStatementError) as refused:
        UnattestedStatement.parse(raw)
    assert str(refused.value).endswith(".")
    result = judged(raw)
    assert not result.accepted
    assert result.evidence_id == ""


def test_a_statement_longer_than_is_accepted_is_refused_unread() -> None:
    with pytest.raises(MalformedStatementError, match="larger than the 1024 bytes"):
        UnattestedStatement.parse(b" " * 1025)


def test_no_statement_is_a_quote_and_no_quote_a_statement(scene: Any, real_quotes: Path) -> None:
    with pytest.raises(MalformedQuoteError):
        Quote.parse(STATEMENT)
    with pytest.raises(MalformedQuoteError):
        Quote.parse(STATEMENT.ljust(5000, b" "))
    for quote in (scene.quote(), (real_quotes / "phala_sgx" / "quote.bin").read_bytes()):
        assert not is_statement(quote)
        with pytest.raises(MalformedStatementError):
            UnattestedStatement.parse(quote)


@given(st.binary(max_size=600) | st.binary(max_size=600).map(lambda end: b"{" + end))
def test_no_bytes_parse_as_both(raw: bytes) -> None:
    for parse in (Quote.parse, UnattestedStatement.parse):
        with pytest.raises((MalformedQuoteError, MalformedStatementError)):
            parse(raw)
    assert is_statement(raw) == (raw[:1] == b"{")


# -- the policy --------------------------------------------------------------------------------


def test_a_policy_for_kernels_that_are_not_attested_says_so_everywhere() -> None:
    assert (POLICY.tee, POLICY.trust_root, POLICY.identities) == ("gramine-direct", NO_ROOT, ())
    assert (POLICY.attested, POLICY.simulated) == (False, False)
    assert POLICY.trust_root.fingerprint == ""
    assert "NOT ATTESTED" in text()
    assert POLICY.release.keys == ("*",)
    assert POLICY.freshness.nonce_ttl_seconds == 60
    sentences = POLICY.explain()
    assert "NOT ATTESTED" in sentences[0]
    assert not any(word in " ".join(sentences) for word in ("Intel", "SIMULATED", "enclave", "TCB"))
    assert all(sentence.endswith(".") for sentence in sentences)


def test_only_policies_that_ask_for_evidence_are_attested(scene: Any) -> None:
    assert scene.policy().attested
    assert Policy.parse(policy_text(mrenclave=bytes(32), now=NOW)).attested


@pytest.mark.parametrize(
    ("before", "after", "line", "cause"),
    [
        ('trust_root = "none"', "", None, "must be said with trust_root"),
        ('trust_root = "none"', 'trust_root = "intel"', "trust_root", "must be said with trust_root"),
        ('trust_root = "none"', "trust_root = 0", "trust_root", "must be said with trust_root"),
        ('tee = "gramine-direct"', 'tee = "sgx"', "trust_root", "goes with tee = 'gramine-direct' only"),
        ('tee = "gramine-direct"', 'tee = "gramine-sgx"', "tee", "tee is 'sgx' or 'gramine-direct'"),
        ('tee = "gramine-direct"', 'tee = "none"', "tee", "tee is 'sgx' or 'gramine-direct'"),
    ],
)
def test_no_root_and_no_attestation_imply_each_other(
    before: str, after: str, line: str | None, cause: str
) -> None:
    changed = text().replace(before, after)
    with pytest.raises(PolicyError, match=cause) as refused:
        Policy.parse(changed, source="p.toml")
    if line:
        number = next(n for n, row in enumerate(changed.splitlines(), 1) if row.startswith(line))
        assert str(refused.value).startswith(f"p.toml, line {number}: ")


@pytest.mark.parametrize(
    "table",
    [
        f'[[identity]]\nname = "k"\nmrenclave = ["{"ab" * 32}"]',
        "identity = []",
        "[tcb]",
        '[tcb]\nallowed_statuses = ["UpToDate"]',
        "[collateral]",
        "[collateral]\nmax_age_seconds = 1",
    ],
)
def test_demands_that_a_kernel_without_evidence_would_pass_unseen_are_refused(table: str) -> None:
    name = "identity" if "identity" in table else table.partition("]")[0][1:]
    changed = f"{table}\n{text()}" if "=" in table.split("\n")[0] else f"{text()}\n{table}\n"
    with pytest.raises(PolicyError, match=rf"line \d+: \[{name}\] asks for something of evidence"):
        Policy.parse(changed)


@pytest.mark.parametrize(
    "arguments",
    [
        {"mrenclave": bytes(32)},
        {"mrsigner": bytes(32)},
        {"isv_prod_id": 0},
        {"min_isv_svn": 0},
        {"allowed_statuses": ("UpToDate", "OutOfDate")},
        {"accepted_advisories": ("INTEL-SA-1",)},
    ],
)
def test_no_such_policy_is_written_with_anything_about_evidence(arguments: Any) -> None:
    with pytest.raises(PolicyError, match="names no root, enclave or platform"):
        text(**arguments)


def test_no_such_policy_is_written_with_a_root(scene: Any) -> None:
    with pytest.raises(PolicyError, match="names no root"):
        text(root=scene.forge.root)


def test_a_policy_for_enclaves_is_not_written_without_a_measurement() -> None:
    with pytest.raises(PolicyError, match="names the measurement"):
        policy_text(now=NOW)


def test_a_policy_that_is_half_attested_cannot_even_be_made(scene: Any) -> None:
    for policy, change in (
        (scene.policy(), {"tee": "gramine-direct"}),
        (scene.policy(), {"trust_root": NO_ROOT}),
        (scene.policy(), {"trust_root": NO_ROOT, "tee": "gramine-direct"}),
        (scene.policy(), {"identities": ()}),
        (POLICY, {"tee": "sgx"}),
        (POLICY, {"trust_root": INTEL_ROOT}),
        (POLICY, {"identities": scene.policy().identities}),
    ):
        with pytest.raises(ValueError, match="no root and no enclave"):
            replace(policy, **change)


@pytest.mark.parametrize(
    ("kind", "der"),
    [
        ("none", b"x"),
        ("intel", b""),
        ("simulated", b""),
        ("intel", b"x"),
        ("simulated", ROOT_CA_DER),
        ("", b"x"),
    ],
)
def test_a_root_of_trust_cannot_be_called_what_it_is_not(kind: str, der: bytes) -> None:
    with pytest.raises(ValueError, match=r"root of trust is|called intel"):
        TrustRoot(kind, der)


def test_the_digest_tells_the_kinds_of_policy_apart(scene: Any) -> None:
    assert Policy.parse("# comment\n" + text()).digest == POLICY.digest
    assert len({POLICY.digest, scene.policy().digest, Policy.parse(text(keys=("a",))).digest}) == 3


# -- the verifier ------------------------------------------------------------------------------


def test_the_policy_that_names_it_admits_a_kernel_without_evidence_and_claims_nothing() -> None:
    result = judged()
    assert result.require() is result
    assert (result.accepted, result.attested, result.simulated) == (True, False, False)
    assert (result.root, result.root_fingerprint, result.tee) == ("none", "", "gramine-direct")
    assert (result.status, result.label) == ("none", "not attested")
    assert result.trust_vector == TrustVector()
    assert (result.identity, result.mrenclave, result.tcb_status) == ("", "", "")
    assert result.bound
    assert result.report_data == WANTED.hex()
    assert result.evidence_id == UnattestedStatement.parse(STATEMENT).identity
    assert "not attested" in result.summary()
    assert "gramine-direct" in result.summary()
    assert not judged(expected=None).bound


def test_a_simulated_or_intel_policy_refuses_a_kernel_without_evidence(scene: Any, refused_by: Any) -> None:
    intel = Policy.parse(policy_text(mrenclave=scene.report.mrenclave, now=NOW))
    for policy in (scene.policy(), intel):
        for collateral in (None, scene.forge.collateral()):
            result = Verifier(policy).verify(STATEMENT, collateral, now=NOW, expected_report_data=WANTED)
            refused_by(result, "not-attested")
            assert not result.attested
            (refusal,) = result.refusals
            assert "not attested: it runs in Gramine without SGX" in refusal.reason
            assert "sealbook-gramine-sgx" in refusal.remedy
            assert "tee = 'gramine-direct'" in refusal.remedy
            assert result.root == policy.trust_root.kind
            assert result.trust_vector == TrustVector(hardware=97)


def test_a_simulated_quote_is_refused_where_kernels_without_evidence_are_admitted(
    scene: Any, refused_by: Any
) -> None:
    result = Verifier(POLICY).verify(
        scene.quote(), scene.forge.collateral(), now=NOW, expected_report_data=scene.expected
    )
    refused_by(result, "tee")
    assert (result.root, result.attested, result.mrenclave) == ("none", False, "")
    assert result.trust_vector == TrustVector()


def test_a_real_quote_is_refused_where_kernels_without_evidence_are_admitted(
    real_quotes: Path, refused_by: Any
) -> None:
    then = datetime.fromtimestamp(1750330571, UTC)
    folder = real_quotes / "phala_sgx"
    collateral = Collateral.from_json((folder / "collateral.json").read_bytes())
    policy = Policy.parse(text(now=then))
    for beside in (collateral, None):
        result = Verifier(policy).verify((folder / "quote.bin").read_bytes(), beside, now=then)
        refused_by(result, "tee")
        assert "admits only kernels of tee 'gramine-direct'" in result.refusals[0].reason


@pytest.mark.parametrize("evidence", [b"", b"nonsense", b"\x03\x00" + bytes(500), None, 7])
def test_what_is_neither_is_refused_under_every_policy(evidence: Any, scene: Any, refused_by: Any) -> None:
    refused_by(judged(evidence), "evidence-format")
    refused_by(scene.verify(evidence or b""), "quote-format")


def test_a_statement_for_another_start_is_refused(refused_by: Any) -> None:
    refused_by(judged(expected=bytes(64)), "report-data")
    refused_by(judged(expected=WANTED[:32] + bytes(32)), "report-data")


def test_a_policy_that_has_expired_or_is_not_yet_in_force_admits_nobody(refused_by: Any) -> None:
    refused_by(judged(now=NOW + timedelta(days=366)), "policy")
    refused_by(judged(now=NOW - timedelta(seconds=1)), "policy")


def test_everything_that_is_wrong_is_said_at_once(scene: Any, refused_by: Any) -> None:
    result = judged(policy=scene.policy(), now=NOW + timedelta(days=400), expected=bytes(64))
    refused_by(result, "not-attested", "policy", "report-data")


def test_an_error_in_the_verifier_is_a_refusal_here_too(
    refused_by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(checks, "run_without_evidence", broken)
    result = judged()
    refused_by(result, "internal")
    assert "secret detail" not in json.dumps(result.to_dict())


def test_a_quote_without_collateral_is_a_mistake_of_the_caller(scene: Any) -> None:
    with pytest.raises(ValueError, match="collateral"):
        Verifier(scene.policy()).verify(scene.quote(), None, now=NOW)


# -- the result --------------------------------------------------------------------------------


def test_the_result_survives_json() -> None:
    for result in (judged(), judged(expected=bytes(64))):
        again = AttestationResult.from_dict(json.loads(json.dumps(result.to_dict())))
        assert again == result
        assert again.to_dict()["attested"] is False


def test_every_result_says_whether_it_is_attested(scene: Any) -> None:
    assert scene.verify().to_dict()["attested"] is True
    assert scene.verify(expected=bytes(64)).to_dict()["attested"] is False


RELABELLED = {
    "attested": {"attested": True},
    "as intel": {"root": "intel", "root_fingerprint": ROOT_CA_FINGERPRINT},
    "as intel, attested": {
        "root": "intel",
        "root_fingerprint": ROOT_CA_FINGERPRINT,
        "tee": "sgx",
        "attested": True,
    },
    "as intel with everything but a status": {
        "root": "intel",
        "root_fingerprint": ROOT_CA_FINGERPRINT,
        "tee": "sgx",
        "attested": True,
        "identity": "kernel",
        "mrenclave": "ab" * 32,
    },
    "as intel without the fingerprint": {"root": "intel", "tee": "sgx"},
    "with intel's fingerprint": {"root_fingerprint": ROOT_CA_FINGERPRINT},
    "with some fingerprint": {"root_fingerprint": "00" * 32},
    "as simulated": {"root": "simulated", "simulated": True},
    "as simulated sgx": {"root": "simulated", "simulated": True, "tee": "sgx", "attested": True},
    "simulated only": {"simulated": True},
    "tee sgx": {"tee": "sgx"},
    "an unknown tee": {"tee": "other"},
    "affirming": {"status": "affirming"},
    "contraindicated though accepted": {"status": "contraindicated"},
    "with an identity": {"identity": "kernel"},
    "with a measurement": {"mrenclave": "ab" * 32},
    "with a signer": {"mrsigner": "ab" * 32},
    "with a product": {"isv_prod_id": 0},
    "with a version": {"isv_svn": 0},
    "with a tcb status": {"tcb_status": "UpToDate"},
    "with advisories": {"advisories": ["INTEL-SA-1"]},
    "with collateral": {"collateral_expires_at": "2027-01-01T00:00:00+00:00"},
    "without evidence id": {"evidence_id": ""},
    "refused": {"accepted": False},
    "with a refusal": {"refusals": [{"check": "a", "reason": "b", "remedy": "c"}]},
    "attested is no bool": {"attested": 0},
}


@pytest.mark.parametrize("change", RELABELLED.values(), ids=RELABELLED)
def test_attack_54_a_relabelled_result_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not an attestation result"):
        AttestationResult.from_dict(judged().to_dict() | change)


@pytest.mark.parametrize("claim", list(TrustVector().__dataclass_fields__))
def test_attack_54_nothing_can_be_claimed_of_a_kernel_that_is_not_attested(claim: str) -> None:
    data = judged().to_dict()
    for value in (2, 32, 97):
        changed = data | {"trust_vector": data["trust_vector"] | {claim: value}}
        with pytest.raises(InputError, match="not an attestation result"):
            AttestationResult.from_dict(changed | {"status": "affirming" if value == 2 else "warning"})
        with pytest.raises(InputError, match="not an attestation result"):
            AttestationResult.from_dict(changed)
    with pytest.raises(InputError, match="nothing can be claimed"):
        AttestationResult.from_dict(data | {"platform": data["platform"] | {"fmspc": "00906ea10000"}})


def test_attack_54_an_attested_result_cannot_be_stripped_to_an_unattested_one(scene: Any) -> None:
    data = scene.verify().to_dict()
    for change in (
        {"tee": "gramine-direct"},
        {"root": "none", "simulated": False, "tee": "gramine-direct", "root_fingerprint": ""},
        {"root": "none", "simulated": False},
        {"root_fingerprint": ""},
        {"attested": False},
    ):
        with pytest.raises(InputError, match="not an attestation result"):
            AttestationResult.from_dict(data | change)


@pytest.mark.parametrize(
    "change",
    [
        {"simulated": False},
        {"root": "intel", "simulated": False},
        {"root": "intel"},
        {"root": "other", "simulated": False},
        {"root_fingerprint": ROOT_CA_FINGERPRINT},
        {"root_fingerprint": ROOT_CA_FINGERPRINT, "root": "intel"},
    ],
)
def test_attack_54_what_is_not_called_simulated_any_more_is_not_taken_for_hardware(
    scene: Any, change: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="not an attestation result"):
        AttestationResult.from_dict(scene.verify().to_dict() | change)


def test_a_refused_result_of_such_a_policy_says_for_what_the_policy_is() -> None:
    result = judged(expected=bytes(64))
    assert result.label == "refused"
    assert result.status == "contraindicated"
    assert "for kernels that are not attested" in result.summary()


def test_the_ear_form_has_a_profile_of_its_own_and_no_vector(scene: Any) -> None:
    ear = json.loads(json.dumps(judged().to_ear()))
    kernel = ear["submods"]["kernel"]
    assert ear["eat_profile"] == "urn:sealbook:ear:not-attested:1"
    assert ear["eat_profile"] not in (EAR_PROFILE, SIMULATED_EAR_PROFILE)
    assert kernel["ear.status"] == "none"
    assert "ear.trustworthiness-vector" not in kernel
    assert (kernel["sealbook.attested"], kernel["sealbook.tee"]) == (False, "gramine-direct")
    simulated = scene.verify().to_ear()
    assert simulated["eat_profile"] == SIMULATED_EAR_PROFILE
    assert simulated["submods"]["kernel"]["sealbook.attested"] is True
