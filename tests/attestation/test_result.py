"""The result: fail-closed, honest about itself, and the same after a trip through JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sealbook.attestation import AttestationRefusedError, AttestationResult, Verifier, checks
from sealbook.attestation.result import TrustVector, tier
from sealbook.errors import InputError


def test_an_accepted_result_survives_json_and_require_returns_it(scene: Any) -> None:
    result = scene.verify()
    assert result.require() is result
    again = AttestationResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again == result
    assert (again.identity, again.policy_id, again.tcb_status) == ("kernel", "kernel", "UpToDate")


def test_a_refused_result_survives_json_and_require_raises_one_sentence(scene: Any) -> None:
    result = scene.verify(scene.quote(mrenclave=bytes(32), mrsigner=bytes(32)), expected=bytes(64))
    again = AttestationResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again == result
    with pytest.raises(AttestationRefusedError) as caught:
        result.require()
    message = str(caught.value)
    assert message.startswith(
        "The code that runs (measurement 0000000000000000...) is not one the policy admits"
    )
    assert "(and 1 more reason)" in message
    assert message.endswith(".")
    assert "\n" not in message
    assert caught.value.result is result
    assert caught.value.exit_code == 1


def test_every_refusal_that_can_be_determined_is_listed(scene: Any, refused_by: Any) -> None:
    scene.forge.tcb_info["pceId"] = "0001"
    scene.forge.qe_identity["tcbEvaluationDataNumber"] = 3
    policy = scene.policy(tcb={"ppid_deny": (scene.forge.sgx.ppid.hex(),)})
    result = scene.verify(
        scene.quote(isv_svn=1, attributes=b"\x15" + scene.report.attributes[1:]),
        policy=policy,
        expected=bytes(64),
        collateral=scene.forge.collateral(
            pck_crl_issuer_chain=scene.forge.collateral().tcb_info_issuer_chain
        ),
    )
    refused_by(
        result,
        "attributes",
        "identity",
        "report-data",
        "crl-issuer",
        "pce-id",
        "tcb-evaluation",
        "platform-denied",
    )
    assert [r["check"] for r in result.to_ear()["submods"]["kernel"]["sealbook.refusals"]] == [
        refusal.check for refusal in result.refusals
    ]


def test_an_internal_error_is_a_refusal(scene: Any, refused_by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(appraisal: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    # A stand-in for a programming error, which cannot be had on purpose.
    monkeypatch.setattr(checks, "CHECKS", (broken,))
    result = scene.verify()
    refused_by(result, "internal")
    assert "secret detail" not in json.dumps(result.to_dict())


def test_without_expected_report_data_the_result_says_that_it_is_not_bound(scene: Any) -> None:
    assert scene.verify().bound
    assert not scene.verify(expected=None).bound


def test_a_mistake_of_the_caller_raises(scene: Any) -> None:
    verifier = Verifier(scene.policy())
    quote, collateral = scene.quote(), scene.forge.collateral()
    with pytest.raises(ValueError, match="aware"):
        verifier.verify(quote, collateral, now=scene.now.replace(tzinfo=None))
    with pytest.raises(ValueError, match="64 bytes"):
        verifier.verify(quote, collateral, now=scene.now, expected_report_data=bytes(32))


@pytest.mark.parametrize(
    "change",
    [
        {"accepted": False},
        {"refusals": [{"check": "a", "reason": "b", "remedy": "c"}]},
        {"identity": ""},
        {"mrenclave": ""},
        {"verified_at": "2026-01-01T00:00:00"},
        {"verified_at": None},
        {"verified_at": 7},
        {"verified_at": "0001-01-01T00:00:00+14:00"},
        {"verified_at": "0001-01-01T00:00:00+00:00"},
        {"verified_at": "1999-12-31T23:59:59+00:00"},
        {"verified_at": "2000-01-01T00:00:00+00:01"},
        {"verified_at": "9999-01-01T00:00:00+00:00"},
        {"verified_at": "9998-12-31T23:59:59-00:01"},
        {"verified_at": "9999-12-31T23:59:59-14:00"},
        {"collateral_expires_at": "0001-01-01T00:00:00+14:00"},
        {"collateral_expires_at": "9999-12-31T23:59:59-14:00"},
        {"unknown": 1},
        {"advisories": [1]},
        {"accepted": 1},
        {"isv_svn": "1"},
        {"isv_svn": True},
        {"isv_prod_id": False},
        {"platform": {}},
        {"trust_vector": {"hardware": 97}},
        {"root": "other"},
    ],
)
def test_a_result_that_contradicts_itself_is_refused(scene: Any, change: Any) -> None:
    data = {**scene.verify().to_dict(), **change}
    with pytest.raises(InputError, match="not an attestation result"):
        AttestationResult.from_dict(data)


def test_a_result_about_a_platform_has_numbers_where_numbers_belong(scene: Any) -> None:
    data = scene.verify().to_dict()
    for name in ("sgx_type", "tcb_eval_data_number", "pck_crl_number"):
        assert isinstance(data["platform"][name], int)
        with pytest.raises(InputError, match="whole numbers"):
            AttestationResult.from_dict({**data, "platform": {**data["platform"], name: True}})


def test_the_first_and_the_last_time_that_a_result_may_state_come_back(scene: Any) -> None:
    for moment in ("2000-01-01T00:00:00+00:00", "9998-12-31T23:59:59+00:00"):
        data = {**scene.verify().to_dict(), "verified_at": moment}
        assert AttestationResult.from_dict(data).to_dict() == data


def test_a_result_whose_status_does_not_follow_from_its_vector_is_refused(scene: Any) -> None:
    data = scene.verify().to_dict()
    vector = dict.fromkeys(data["trust_vector"], 2)
    with pytest.raises(InputError, match="does not follow"):
        AttestationResult.from_dict({**data, "trust_vector": vector})


def test_a_result_without_a_field_is_refused(scene: Any) -> None:
    data = scene.verify().to_dict()
    for name in data:
        with pytest.raises(InputError):
            AttestationResult.from_dict({key: value for key, value in data.items() if key != name})


def test_the_status_is_the_worst_tier() -> None:
    assert [tier(value) for value in (-1, 0, 1, 2, 31, 32, 95, 96, 99)] == [
        "none",
        "none",
        "none",
        "affirming",
        "affirming",
        "warning",
        "warning",
        "contraindicated",
        "contraindicated",
    ]
    assert TrustVector().status == "none"
    assert TrustVector(hardware=2, executables=33).status == "warning"
    assert TrustVector(hardware=2, executables=2).status == "affirming"


def test_the_ear_form_is_json_and_names_the_policy(scene: Any) -> None:
    result = scene.verify()
    ear = json.loads(json.dumps(result.to_ear()))
    kernel = ear["submods"]["kernel"]
    assert kernel["ear.trustworthiness-vector"] == {
        "configuration": 2,
        "executables": 2,
        "hardware": 97,
        "runtime-opaque": 96,
    }
    assert kernel["ear.appraisal-policy-id"].endswith(result.policy_digest)
    assert ear["iat"] == int(scene.now.timestamp())


def test_a_verifier_can_be_shared_between_threads(scene: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    verifier = Verifier(scene.policy())
    good, bad = scene.quote(), scene.quote(isv_svn=1)
    collateral = scene.forge.collateral()

    def verify(number: int) -> bool:
        quote = good if number % 2 else bad
        return verifier.verify(quote, collateral, now=scene.now).accepted

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(verify, range(40))) == [bool(number % 2) for number in range(40)]


def test_the_policy_of_one_result_is_not_that_of_another(scene: Any) -> None:
    lenient = scene.policy(tcb={"grace_seconds": 1})
    assert scene.verify(policy=lenient).policy_digest != scene.verify().policy_digest
    assert replace(scene.verify(), policy_id="x").policy_id == "x"
