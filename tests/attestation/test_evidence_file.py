"""Evidence files: what a verdict rests on, read strictly and verified again from the file alone."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sealbook.attestation import Collateral, Policy, UnattestedAttester, Verifier, report_data
from sealbook.attestation import policy_text as write_commented
from sealbook.attestation.evidence_file import (
    FORMAT,
    MAX_EVIDENCE_FILE_BYTES,
    EvidenceFile,
    _digest,
    is_evidence_file,
)
from sealbook.attestation.policy_writer import write_policy
from sealbook.encoding import canonical_json
from sealbook.errors import InputError

NONCE = bytes(range(32))
BOUND = {"role": "kernel", "audience": "broker", "nonce": NONCE, "claims": {"key": b"public key of A"}}
PAST = timedelta(days=-2)


def make(scene: Any, **changes: Any) -> EvidenceFile:
    quote, collateral, policy = scene.quote(), scene.forge.collateral(), scene.policy()
    result = scene.verify(quote, collateral=collateral, policy=policy)
    file = EvidenceFile(
        evidence=quote,
        collateral=collateral,
        policy=policy,
        report_data=scene.expected,
        result=result,
        **BOUND,
    )
    return replace(file, **changes)


def edited(file: EvidenceFile, **changes: Any) -> bytes:
    """Return the file with fields changed by somebody who knows how the digest is made."""
    content = json.loads(file.to_json())
    content |= changes
    del content["digest"]
    return canonical_json(content | {"digest": _digest(content)})


@pytest.fixture
def past(scene: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An honest scene whose moment lies before this machine's present, whatever its clock says."""
    import sealbook.attestation.evidence_file as module

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return scene.now + timedelta(days=1)

    monkeypatch.setattr(module, "datetime", Later)
    return scene


def test_a_file_comes_back_as_it_was_and_gives_the_same_verdict(past: Any) -> None:
    file = make(past)
    data = file.to_json()
    again = EvidenceFile.from_json(data)
    assert again.to_json() == data
    assert again.policy.digest == file.policy.digest
    assert (again.evidence, again.collateral, again.result) == (file.evidence, file.collateral, file.result)
    verdict = again.verify()
    assert verdict.good
    assert verdict.result == file.result
    assert verdict.result.bound
    assert is_evidence_file(data)


def test_a_file_of_genuine_hardware_is_verified_at_the_time_it_states(real_quotes: Path) -> None:
    folder = real_quotes / "phala_sgx"
    quote = (folder / "quote.bin").read_bytes()
    collateral = Collateral.from_json((folder / "collateral.json").read_bytes())
    now = datetime.fromtimestamp(1750330571, UTC)
    policy = Policy.parse(
        write_commented(
            mrenclave=quote[112:144],
            now=now,
            allowed_statuses=("UpToDate", "ConfigurationAndSWHardeningNeeded"),
            accepted_advisories=("INTEL-SA-00289", "INTEL-SA-00615"),
        )
    )
    # This quote's report data was not made by sealbook's rule, so nothing gives it: the file says so.
    expected = quote[368:432]
    result = Verifier(policy).verify(quote, collateral, now=now, expected_report_data=expected)
    assert result.accepted
    file = EvidenceFile(quote, collateral, policy, expected, result=result, **BOUND)
    verdict = EvidenceFile.from_json(file.to_json()).verify()
    assert not verdict.good
    assert not verdict.binds
    assert {refusal.check for refusal in verdict.result.refusals} == {"report-data"}
    assert verdict.result.platform.fmspc == "00a067110000"


def test_every_policy_comes_back_with_its_digest(scene: Any) -> None:
    texts = [
        scene.policy_text(),
        write_commented(mrenclave=bytes(32), now=scene.now),
        write_commented(tee="gramine-direct", now=scene.now, keys=("a", "b*")),
    ]
    policies = [Policy.parse(text) for text in texts]
    policies.append(
        scene.policy(
            identity={"mrsigner_only": True, "mrenclave": (), "misc_select_mask": 3, "misc_select_value": 1},
            tcb={
                "accepted_advisories": ('INTEL "quoted" \\ \x7f\t', "ä😀"),
                "fmspc": ("00a067110000",),
                "sgx_types": (1,),
                "allow_smt": True,
                "ppid_deny": ("ab" * 16,),
                "equal_eval_data_numbers": False,
            },
            collateral={"min_issue_date": scene.now, "monotonic": False},
            release={"keys": ("k*",), "max_uses": 3, "roles": ("kernel",), "max_sessions": 2},
            freshness={"nonce_ttl_seconds": 7},
            created=scene.now - timedelta(microseconds=123456),
        )
    )
    for policy in policies:
        assert Policy.parse(write_policy(policy)) == policy


def test_a_policy_that_no_file_could_have_is_not_written(scene: Any) -> None:
    by_hand = scene.policy(tcb={"allowed_statuses": ("Revoked",)})
    with pytest.raises(InputError):
        make(scene, policy=by_hand).to_json()
    # Read again it would be another policy: the reader writes these in lower case.
    with pytest.raises(InputError, match="cannot be written"):
        write_policy(scene.policy(tcb={"fmspc": ("00A067110000",)}))


def test_a_flip_of_any_bit_is_noticed(past: Any) -> None:
    data = make(past).to_json()
    generator = random.Random(7)
    for place in [*range(0, len(data), 97), *(generator.randrange(len(data)) for _ in range(200))]:
        changed = bytearray(data)
        changed[place] ^= 1 << generator.randrange(7)
        if not is_evidence_file(bytes(changed)):
            continue
        with pytest.raises(InputError):
            EvidenceFile.from_json(bytes(changed))


def _mutations(file: EvidenceFile) -> dict[str, bytes]:
    content = json.loads(file.to_json())
    result, collateral = content["result"], content["collateral"]
    raw = bytearray(file.evidence)
    raw[48 + 64] ^= 1
    flipped = base64.b64encode(raw).decode()
    found = {
        "evidence": edited(file, evidence=flipped),
        "role": edited(file, role="spark-driver"),
        "audience": edited(file, audience="somebody"),
        "nonce": edited(file, nonce="00" * 32),
        "claims": edited(file, claims={"key": base64.b64encode(b"public key of B").decode()}),
        "another claim": edited(file, claims=content["claims"] | {"more": ""}),
        "no claim": edited(file, claims={}),
        "report_data": edited(file, report_data="00" * 64),
        "policy": edited(file, policy=content["policy"].replace("version = 1", "version = 2")),
    }
    for name in collateral:
        if collateral[name] is None or name.endswith("_chain"):
            continue
        text = collateral[name]
        place = len(text) // 2
        other = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]
        found[f"collateral {name}"] = edited(file, collateral=collateral | {name: other})
    for name, value in (
        ("mrenclave", "00" * 32),
        ("isv_svn", 99),
        ("tcb_status", "OutOfDate"),
        ("advisories", ["INTEL-SA-00001"]),
        ("policy_id", "other"),
        ("policy_digest", "00" * 32),
        ("identity", "somebody"),
        ("report_data", "00" * 64),
        ("evidence_id", "00" * 32),
        ("bound", False),
        ("verified_at", "2026-11-23T11:59:59+00:00"),
        ("collateral_expires_at", "2030-01-01T00:00:00+00:00"),
        ("root_fingerprint", "00" * 32),
        ("platform", result["platform"] | {"ppid": "00" * 16}),
    ):
        found[f"result {name}"] = edited(file, result=result | {name: value})
    return found


def test_a_field_changed_by_somebody_who_mends_the_digest_is_noticed(past: Any) -> None:
    for name, data in _mutations(make(past)).items():
        try:
            verdict = EvidenceFile.from_json(data).verify()
        except InputError:
            continue
        # A verdict at another second differs in nothing but the time: then the file is as good.
        if name == "result verified_at":
            assert verdict.result.verified_at == datetime(2026, 11, 23, 11, 59, 59, tzinfo=UTC)
            continue
        assert not verdict.good, name


def test_a_result_that_says_accepted_of_refused_evidence_is_noticed(past: Any) -> None:
    good = make(past)
    refused = replace(good, evidence=past.quote(report_data=bytes(64)))
    verdict = EvidenceFile.from_json(refused.to_json()).verify()
    assert not verdict.good
    assert not verdict.same_result
    assert "report-data" in {refusal.check for refusal in verdict.result.refusals}
    assert any("not the one" in problem for problem in verdict.problems)


def test_a_refusal_is_a_refusal_also_if_the_file_says_so_itself(past: Any) -> None:
    quote = past.quote(mrenclave=bytes(32))
    result = past.verify(quote)
    verdict = EvidenceFile.from_json(make(past, evidence=quote, result=result).to_json()).verify()
    assert verdict.same_result
    assert not verdict.good


def test_the_readers_policy_and_time_count_instead_of_the_files(past: Any) -> None:
    file = make(past)
    stricter = past.policy(tcb={"allowed_statuses": ("OutOfDate",)})
    verdict = file.verify(policy=stricter)
    assert {refusal.check for refusal in verdict.result.refusals} == {"tcb-status"}
    assert not verdict.good
    assert verdict.same_result
    late = file.verify(at=past.now + timedelta(days=60))
    assert not late.result.accepted
    assert late.same_result


def test_a_verdict_of_the_future_is_pointed_out(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sealbook.attestation.evidence_file as module

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return scene.now + PAST

    monkeypatch.setattr(module, "datetime", Earlier)
    assert any("not come yet" in problem for problem in make(scene).verify().problems)


def test_a_kernel_that_is_not_attested_has_a_file_too_which_proves_nothing(past: Any) -> None:
    expected = report_data(**BOUND)
    statement = UnattestedAttester().quote(expected)
    policy = Policy.parse(write_commented(tee="gramine-direct", now=past.now))
    result = Verifier(policy).verify(statement, None, now=past.now, expected_report_data=expected)
    file = EvidenceFile(statement, None, policy, expected, result=result, **BOUND)
    verdict = EvidenceFile.from_json(file.to_json()).verify()
    assert verdict.good
    assert not verdict.result.attested


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"format": "sealbook-evidence/2"},
        {"evidence": "not base64!"},
        {"evidence": 5},
        {"evidence": base64.b64encode(bytes(20_000)).decode()},
        {"collateral": []},
        {"collateral": {"tcb_info": "x"}},
        {"policy": "schema = 1"},
        {"policy": 7},
        {"nonce": "00"},
        {"nonce": "AA" * 32},
        {"claims": [1]},
        {"claims": {"a": 5}},
        {"claims": {f"c{n}": "" for n in range(65)}},
        {"role": "x" * 2000},
        {"role": ""},
        {"result": []},
        {"result": {}},
        {"report_data": None},
    ],
    ids=str,
)
def test_what_is_no_evidence_file_is_refused_in_a_sentence(past: Any, changes: dict[str, Any]) -> None:
    data = edited(make(past), **changes)
    with pytest.raises(InputError) as error:
        EvidenceFile.from_json(data).verify()
    assert str(error.value).endswith(".")


def test_a_missing_field_a_float_or_another_layout_is_refused(past: Any) -> None:
    data = make(past).to_json()
    content = json.loads(data)
    for name in content:
        with pytest.raises(InputError):
            EvidenceFile.from_json(canonical_json({k: v for k, v in content.items() if k != name}))
    for text in (
        json.dumps(content, indent=1).encode(),
        json.dumps(content | {"role": 1.5}).encode(),
        data + b" ",
        b" " * (MAX_EVIDENCE_FILE_BYTES + 1),
    ):
        with pytest.raises(InputError):
            EvidenceFile.from_json(text)


def test_a_quote_without_collateral_is_refused_in_a_sentence(past: Any) -> None:
    data = edited(make(past), collateral=None)
    with pytest.raises(InputError, match="no collateral"):
        EvidenceFile.from_json(data).verify()


def test_the_format_has_a_name_and_nothing_else_is_taken_for_it(scene: Any) -> None:
    assert FORMAT == "sealbook-evidence/1"
    assert not is_evidence_file(scene.quote())
    assert not is_evidence_file(UnattestedAttester().quote(bytes(64)))
    assert not is_evidence_file(b"")
