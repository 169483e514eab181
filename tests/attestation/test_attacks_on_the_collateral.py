"""Attack cases 23-29, 32-34, 52, 53, 55-57: TCB info, QE identity, time and the state of the platform."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sealbook.attestation import Collateral, CollateralMemory, MalformedCollateralError, NonceLedger
from sealbook.attestation.simulated import Forge, SgxExtensionSpec
from sealbook.attestation.simulated.forge import pem, sign, tcb_level


def _signed(scene: Any, **texts: str) -> Collateral:
    """Return collateral with these statements as text, correctly signed."""
    parts: dict[str, Any] = {}
    for name, text in texts.items():
        parts[name] = text
        parts[f"{name}_signature"] = sign(scene.forge.tcb_signer_key, text.encode())
    return scene.forge.collateral(**parts)


def test_attack_23_tcb_info_of_another_processor_is_refused(scene: Any, refused_by: Any) -> None:
    scene.forge.tcb_info["fmspc"] = "00A067110001"
    refused_by(scene.verify(), "fmspc")


def test_attack_24_tcb_info_of_another_pce_is_refused(scene: Any, refused_by: Any) -> None:
    scene.forge.tcb_info["pceId"] = "0001"
    refused_by(scene.verify(), "pce-id")


@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
def test_attack_25_statements_for_tdx_are_refused(scene: Any, statement: str) -> None:
    getattr(scene.forge, statement)["id"] = "TDX" if statement == "tcb_info" else "TD_QE"
    result = scene.verify()
    assert not result.accepted
    assert result.trust_vector.hardware == 99


def test_attack_26_the_identity_of_the_quote_verification_enclave_is_refused(
    scene: Any, refused_by: Any
) -> None:
    scene.forge.qe_identity["id"] = "QVE"
    refused_by(scene.verify(), "quoting-enclave")


@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize("days", [-31, 1], ids=["expired", "future"])
def test_attack_27_a_statement_outside_its_time_is_refused(
    scene: Any, refused_by: Any, statement: str, days: int
) -> None:
    dates = getattr(scene.forge, statement)
    for name in ("issueDate", "nextUpdate"):
        moved = scene.now + timedelta(days=days + (30 if name == "nextUpdate" else 0))
        dates[name] = f"{moved:%Y-%m-%dT%H:%M:%SZ}"
    refused_by(scene.verify(), "collateral-time", others=True)


def test_attack_27_collateral_older_than_the_policy_accepts_is_refused(scene: Any, refused_by: Any) -> None:
    policy = scene.policy(collateral={"max_age_seconds": 5 * 24 * 3600})
    assert scene.verify(policy=policy, now=scene.now + timedelta(days=4)).accepted
    refused_by(scene.verify(policy=policy, now=scene.now + timedelta(days=6)), "collateral-age")


def test_attack_27_collateral_issued_before_the_policys_date_is_refused(scene: Any, refused_by: Any) -> None:
    refused_by(scene.verify(policy=scene.policy(collateral={"min_issue_date": scene.now})), "collateral-age")


@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
def test_attack_28_an_edited_statement_with_the_old_signature_is_refused(
    scene: Any, refused_by: Any, statement: str
) -> None:
    text = getattr(scene.forge.collateral(), statement)
    edited = text.replace('"tcbEvaluationDataNumber":17', '"tcbEvaluationDataNumber":18')
    assert edited != text
    result = scene.verify(collateral=scene.forge.collateral(**{statement: edited}))
    assert not result.accepted
    assert result.trust_vector.hardware == 99


@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize("how", ["duplicate-key", "trailing", "deep", "not-an-object", "nan"])
def test_attack_28_signed_text_that_parsers_disagree_about_is_refused(
    scene: Any, refused_by: Any, statement: str, how: str
) -> None:
    text = getattr(scene.forge.collateral(), statement)
    odd = {
        "duplicate-key": text[:-1] + ',"tcbEvaluationDataNumber":99}',
        "trailing": text + "{}",
        "deep": text[:-1] + ',"x":' + "[" * 500 + "]" * 500 + "}",
        "not-an-object": "[" + text + "]",
        "nan": text[:-1] + ',"x":NaN}',
    }[how]
    refused_by(scene.verify(collateral=_signed(scene, **{statement: odd})), "collateral-format")


def test_attack_29_an_older_tcb_evaluation_is_refused(scene: Any, refused_by: Any) -> None:
    assert scene.verify(policy=scene.policy(tcb={"min_tcb_eval_data_number": 17})).accepted
    refused_by(scene.verify(policy=scene.policy(tcb={"min_tcb_eval_data_number": 18})), "tcb-evaluation")


def test_attack_29_statements_of_different_tcb_evaluations_are_refused(scene: Any, refused_by: Any) -> None:
    scene.forge.qe_identity["tcbEvaluationDataNumber"] = 3
    refused_by(scene.verify(), "tcb-evaluation")
    assert scene.verify(policy=scene.policy(tcb={"equal_eval_data_numbers": False})).accepted


def _at_level(
    scene: Any, status: str, advisories: tuple[str, ...] = (), date: str = "2024-03-13T00:00:00Z"
) -> None:
    sgx = scene.forge.sgx
    scene.forge.tcb_info["tcbLevels"] = [
        tcb_level(sgx.cpu_svn, sgx.pce_svn, status=status, advisories=advisories, date=date)
    ]


def test_attack_32_a_revoked_tcb_level_is_refused(scene: Any) -> None:
    _at_level(scene, "Revoked")
    assert not scene.verify().accepted
    # Nor does a policy object that was built by hand to allow it help.
    by_hand = scene.policy(tcb={"allowed_statuses": ("UpToDate", "Revoked")})
    assert not scene.verify(policy=by_hand).accepted


def test_attack_32_a_platform_below_every_level_is_refused(scene: Any) -> None:
    sgx = scene.forge.sgx
    scene.forge.tcb_info["tcbLevels"] = [tcb_level(sgx.cpu_svn, sgx.pce_svn + 1)]
    result = scene.verify()
    assert not result.accepted


@pytest.mark.parametrize(
    "status",
    [
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ],
)
def test_attack_33_a_status_that_is_not_listed_is_refused(scene: Any, refused_by: Any, status: str) -> None:
    _at_level(scene, status)
    result = scene.verify()
    refused_by(result, "tcb-status")
    assert result.tcb_status == status
    lenient = {"allowed_statuses": ("UpToDate", status), "grace_seconds": 2000 * 24 * 3600}
    assert scene.verify(policy=scene.policy(tcb=lenient)).accepted


def test_attack_33_an_up_to_date_platform_is_refused_where_only_another_status_is_listed(
    scene: Any, refused_by: Any
) -> None:
    refused_by(scene.verify(policy=scene.policy(tcb={"allowed_statuses": ("OutOfDate",)})), "tcb-status")


def test_attack_33_an_outdated_quoting_enclave_is_refused(scene: Any, refused_by: Any) -> None:
    scene.forge.qe_identity["tcbLevels"][0]["tcbStatus"] = "OutOfDate"
    refused_by(scene.verify(), "tcb-status")


def test_attack_34_an_advisory_that_is_not_accepted_is_refused(scene: Any, refused_by: Any) -> None:
    _at_level(scene, "UpToDate", ("INTEL-SA-00334", "INTEL-SA-00615"))
    refused_by(scene.verify(), "advisory")
    both = ("INTEL-SA-00334", "INTEL-SA-00615")
    assert scene.verify(policy=scene.policy(tcb={"accepted_advisories": both})).accepted
    refused_by(scene.verify(policy=scene.policy(tcb={"accepted_advisories": both[:1]})), "advisory")


def test_attack_34_a_rejected_advisory_is_refused_even_if_accepted_too(scene: Any, refused_by: Any) -> None:
    _at_level(scene, "UpToDate", ("INTEL-SA-00334",))
    tcb = {"accepted_advisories": ("INTEL-SA-00334",), "rejected_advisories": ("INTEL-SA-00334",)}
    refused_by(scene.verify(policy=scene.policy(tcb=tcb)), "advisory")


def test_attack_34_an_advisory_about_the_quoting_enclave_counts_too(scene: Any, refused_by: Any) -> None:
    scene.forge.qe_identity["tcbLevels"][0]["advisoryIDs"] = ["INTEL-SA-00477"]
    refused_by(scene.verify(), "advisory")


@pytest.mark.parametrize("days", [-3, 40, 365 * 11], ids=["back", "forward", "far-forward"])
def test_attack_52_a_clock_that_is_wrong_makes_the_evidence_refused(scene: Any, days: int) -> None:
    result = scene.verify(now=scene.now + timedelta(days=days))
    assert not result.accepted
    assert result.trust_vector.hardware == 99


def test_attack_52_a_nonce_does_not_outlive_a_clock_that_goes_back(scene: Any) -> None:
    from sealbook.attestation import StaleNonceError

    ledger = NonceLedger(ttl=60)
    nonce = ledger.issue(scene.now)
    with pytest.raises(StaleNonceError, match="clock"):
        ledger.redeem(nonce, scene.now - timedelta(seconds=1))


def _renew(scene: Any, *, hours: float) -> Collateral:
    scene.forge.issue_collateral(issued=scene.now - timedelta(hours=hours))
    return scene.forge.collateral()


def test_attack_53_collateral_older_than_seen_before_is_refused(
    scene: Any, refused_by: Any, tmp_path: Path
) -> None:
    scene.memory = CollateralMemory(tmp_path / "seen.json")
    old, new = _renew(scene, hours=10), _renew(scene, hours=2)
    assert scene.verify(collateral=old).accepted
    assert scene.verify(collateral=new).accepted
    refused_by(scene.verify(collateral=old), "collateral-rollback")
    assert scene.verify(collateral=new).accepted
    # Another process, later, knows it too.
    scene.memory = CollateralMemory(tmp_path / "seen.json")
    refused_by(scene.verify(collateral=old), "collateral-rollback")
    # A policy may do without; nothing else is lost then.
    assert scene.verify(collateral=old, policy=scene.policy(collateral={"monotonic": False})).accepted


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "pck_crl", "root_ca_crl"])
def test_attack_53_a_rollback_of_one_part_only_is_refused(
    scene: Any, refused_by: Any, tmp_path: Path, part: str
) -> None:
    scene.memory = CollateralMemory(tmp_path / "seen.json")
    old, new = _renew(scene, hours=10), _renew(scene, hours=2)
    assert scene.verify(collateral=new).accepted
    names = [field.name for field in fields(old) if field.name in (part, f"{part}_signature")]
    mixed = replace(new, **{name: getattr(old, name) for name in names})
    refused_by(scene.verify(collateral=mixed), "collateral-rollback")


def test_attack_53_a_lower_evaluation_number_is_a_rollback(
    scene: Any, refused_by: Any, tmp_path: Path
) -> None:
    scene.memory = CollateralMemory(tmp_path / "seen.json")
    assert scene.verify().accepted
    scene.forge.tcb_info["tcbEvaluationDataNumber"] = 16
    scene.forge.qe_identity["tcbEvaluationDataNumber"] = 16
    refused_by(scene.verify(), "collateral-rollback")


def test_attack_53_forged_collateral_from_the_future_cannot_poison_the_memory(
    scene: Any, tmp_path: Path
) -> None:
    scene.memory = CollateralMemory(tmp_path / "seen.json")
    stranger = Forge.create(scene.now, issued=scene.now - timedelta(minutes=1))
    assert not scene.verify(stranger.quote(scene.report), collateral=stranger.collateral()).accepted
    assert not (tmp_path / "seen.json").exists()
    assert scene.verify().accepted


def test_attack_53_collateral_signed_in_a_wrong_role_cannot_poison_the_memory(
    scene: Any, refused_by: Any, tmp_path: Path
) -> None:
    scene.memory = CollateralMemory(tmp_path / "seen.json")
    forge = scene.forge
    forge.tcb_info["tcbEvaluationDataNumber"] = forge.qe_identity["tcbEvaluationDataNumber"] = 10**6
    key, forge.tcb_signer_key = forge.tcb_signer_key, forge.pck_key
    chain = pem(forge.pck, forge.pck_ca, forge.root).decode()
    forged = forge.collateral(tcb_info_issuer_chain=chain, qe_identity_issuer_chain=chain)
    refused_by(scene.verify(collateral=forged), "tcb-signer")
    forge.tcb_signer_key = key
    forge.issue_collateral()
    assert scene.verify().accepted


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"seen":{},"version":2}', b'{"seen":{"k":{}},"version":1}']
)
def test_attack_53_a_damaged_memory_refuses_and_is_not_replaced(
    scene: Any, refused_by: Any, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "seen.json"
    file.write_bytes(content)
    scene.memory = CollateralMemory(file)
    refused_by(scene.verify(), "rollback")
    assert file.read_bytes() == content


def test_attack_53_the_memory_of_many_threads_keeps_the_newest(scene: Any, tmp_path: Path) -> None:
    from sealbook.attestation.collateral_memory import CollateralAge

    def witness(number: int) -> None:
        CollateralMemory(tmp_path / "seen.json").witness("key", CollateralAge(number, 1, 1, 1, 1, 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(witness, [*range(40), *range(40)]))
    seen = json.loads((tmp_path / "seen.json").read_text())["seen"]["key"]
    assert seen["tcb_info_issued"] == 39
    assert CollateralMemory(tmp_path / "seen.json").witness("key", CollateralAge(38, 1, 1, 1, 1, 1)) == (
        "TCB info",
    )


def test_attack_55_oversized_collateral_is_refused(scene: Any) -> None:
    whole = json.loads(scene.forge.collateral().to_json())
    for name in whole:
        with pytest.raises(MalformedCollateralError, match=name):
            Collateral.from_json(json.dumps({**whole, name: "00" * 1_500_000}))
    with pytest.raises(MalformedCollateralError, match="larger"):
        Collateral.from_json(b" " * 5_000_000)


def test_attack_55_deep_or_odd_collateral_json_is_refused(scene: Any) -> None:
    whole = json.loads(scene.forge.collateral().to_json())
    texts = [
        "[" * 100_000,
        "[]",
        "not json",
        json.dumps({**whole, "unknown": "x"}),
        json.dumps({**whole, "pck_crl": "zz"}),
        json.dumps({**whole, "pck_crl": 7}),
        json.dumps({name: value for name, value in whole.items() if name != "qe_identity"}),
        json.dumps(whole)[:-1] + ', "tcb_info": "{}"}',
        b"\xff\xfe",
    ]
    for text in texts:
        with pytest.raises(MalformedCollateralError):
            Collateral.from_json(text)


def test_attack_55_a_pem_bomb_in_the_collateral_is_refused(scene: Any, refused_by: Any) -> None:
    chain = scene.forge.collateral().tcb_info_issuer_chain
    forged = scene.forge.collateral(tcb_info_issuer_chain=chain * 8)
    refused_by(scene.verify(collateral=forged), "tcb-signer", others=True)
    with pytest.raises(MalformedCollateralError):
        scene.forge.collateral(tcb_info_issuer_chain=chain * 1000)


def test_attack_56_a_deny_listed_machine_is_refused(scene: Any, refused_by: Any) -> None:
    ppid = scene.forge.sgx.ppid.hex()
    refused_by(scene.verify(policy=scene.policy(tcb={"ppid_deny": (ppid,)})), "platform-denied")
    refused_by(scene.verify(policy=scene.policy(tcb={"ppid_allow": ("00" * 16,)})), "platform-denied")
    assert scene.verify(policy=scene.policy(tcb={"ppid_allow": (ppid,)})).accepted


def test_attack_56_a_deny_listed_platform_instance_is_refused(scene: Any, refused_by: Any) -> None:
    instance = bytes(range(16))
    scene.forge = Forge.create(scene.now, sgx=SgxExtensionSpec(platform_instance_id=instance))
    policy = scene.policy(tcb={"platform_instance_deny": (instance.hex(),)})
    assert scene.verify().accepted
    refused_by(scene.verify(policy=policy), "platform-denied")
    other = scene.policy(tcb={"platform_instance_allow": ("ff" * 16,)})
    refused_by(scene.verify(policy=other), "platform-denied")


@pytest.mark.parametrize(
    ("sgx", "rule"),
    [
        ({"dynamic_platform": True}, {"allow_dynamic_platform": True}),
        ({"cached_keys": True}, {"allow_cached_keys": True}),
        ({"smt_enabled": True}, {"allow_smt": True}),
        ({"sgx_type": 3}, {"sgx_types": (3,)}),
    ],
    ids=["dynamic", "cached-keys", "smt", "sgx-type"],
)
def test_a_platform_of_a_kind_the_policy_does_not_admit_is_refused(
    scene: Any, refused_by: Any, sgx: Any, rule: Any
) -> None:
    scene.forge = Forge.create(scene.now, sgx=SgxExtensionSpec(**sgx))
    refused_by(scene.verify(), "platform")
    assert scene.verify(policy=scene.policy(tcb=rule)).accepted


def test_a_platform_that_says_it_is_not_dynamic_is_accepted(scene: Any) -> None:
    sgx = SgxExtensionSpec(dynamic_platform=False, cached_keys=False, smt_enabled=False)
    scene.forge = Forge.create(scene.now, sgx=sgx)
    assert scene.verify().accepted


def test_a_processor_that_is_not_listed_is_refused(scene: Any, refused_by: Any) -> None:
    assert scene.verify(policy=scene.policy(tcb={"fmspc": (scene.forge.sgx.fmspc.hex(),)})).accepted
    refused_by(scene.verify(policy=scene.policy(tcb={"fmspc": ("00a067110001",)})), "platform")


def test_attack_57_grace_is_counted_from_the_verifiers_own_now(scene: Any, refused_by: Any) -> None:
    _at_level(scene, "OutOfDate", date=f"{scene.now - timedelta(days=10):%Y-%m-%dT%H:%M:%SZ}")
    policy = scene.policy(
        tcb={"allowed_statuses": ("UpToDate", "OutOfDate"), "grace_seconds": 11 * 24 * 3600}
    )
    assert scene.verify(policy=policy).accepted
    refused_by(scene.verify(policy=policy, now=scene.now + timedelta(days=2)), "tcb-grace")


def test_attack_57_dcap_qvl_is_given_one_moment_for_everything(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A recording stand-in for dcap-qvl's policy class, whose own clock cannot be seen from outside.
    from types import SimpleNamespace

    import dcap_qvl

    seen: list[int] = []

    def recording(make: Any) -> Any:
        return lambda now: (seen.append(now), make(now))[1]

    real = dcap_qvl.QuotePolicy
    stand_in = SimpleNamespace(strict=recording(real.strict), claims_only=recording(real.claims_only))
    monkeypatch.setattr(dcap_qvl, "QuotePolicy", stand_in)
    _at_level(scene, "OutOfDate")
    assert scene.verify().trust_vector.hardware == 97
    assert seen == [int(scene.now.timestamp())] * 2


def test_a_flip_in_any_signed_byte_of_the_collateral_is_refused(scene: Any) -> None:
    honest, quote, policy = scene.forge.collateral(), scene.quote(), scene.policy()
    for name in (
        "tcb_info",
        "qe_identity",
        "tcb_info_signature",
        "qe_identity_signature",
        "pck_crl",
        "root_ca_crl",
    ):
        value = getattr(honest, name)
        for offset in range(0, len(value), 7):
            if isinstance(value, str):
                changed: Any = value[:offset] + chr(ord(value[offset]) ^ 1) + value[offset + 1 :]
            else:
                changed = value[:offset] + bytes([value[offset] ^ 1]) + value[offset + 1 :]
            forged = replace(honest, **{name: changed})
            assert not scene.verify(quote, collateral=forged, policy=policy).accepted, (name, offset)


def test_collateral_survives_its_json_form(scene: Any) -> None:
    honest = scene.forge.collateral()
    assert Collateral.from_json(honest.to_json()) == honest
    assert Collateral.from_json(honest.for_dcap_qvl().to_json()) == honest
