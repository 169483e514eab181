"""Attack cases 14-22, 54, 58: certificates, revocation and roots."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sealbook.attestation import Policy, Verifier, policy_text
from sealbook.attestation.simulated import CertificateSpec, Forge, QuoteSpec, SgxExtensionSpec
from sealbook.attestation.simulated.forge import PCK_NAME, TCB_SIGNER_NAME, new_key, pem, sign


def test_attack_14_a_chain_under_another_root_is_refused(scene: Any, refused_by: Any) -> None:
    other = Forge.create(scene.now)
    result = scene.verify(other.quote(scene.report), collateral=other.collateral())
    refused_by(result, "trust-root", others=True)
    assert result.trust_vector.hardware == 99


def test_attack_14_only_the_copy_of_the_root_exchanged_is_refused(scene: Any, refused_by: Any) -> None:
    # dcap-qvl ignores the third certificate; a person who reads the quote does not.
    other = Forge.create(scene.now)
    chain = pem(scene.forge.pck, scene.forge.pck_ca, other.root)
    refused_by(scene.verify(scene.quote(QuoteSpec(chain=chain))), "trust-root")


def test_attack_15_a_simulated_quote_is_refused_where_intel_is_required(scene: Any, refused_by: Any) -> None:
    intel = Policy.parse(policy_text(mrenclave=scene.report.mrenclave, root=None, now=scene.now))
    result = scene.verify(policy=intel)
    refused_by(result, "trust-root", others=True)
    assert "simulated platform" in result.refusals[0].reason
    assert result.root == "intel"


def test_attack_15_a_simulated_root_that_calls_itself_intels_is_refused(scene: Any) -> None:
    names = {
        "root_name": "Intel SGX Root CA",
        "pck_ca_name": "Intel SGX PCK Processor CA",
        "pck_name": "Intel SGX PCK Certificate",
        "tcb_signer_name": "Intel SGX TCB Signing",
    }
    liar = Forge.create(scene.now, **names)
    intel = Policy.parse(policy_text(mrenclave=scene.report.mrenclave, root=None, now=scene.now))
    result = scene.verify(liar.quote(scene.report), collateral=liar.collateral(), policy=intel)
    assert not result.accepted
    assert result.trust_vector.hardware == 99


def test_attack_15_a_genuine_quote_is_refused_where_the_simulated_root_is_required(
    scene: Any, real_quotes: Any, refused_by: Any
) -> None:
    from sealbook.attestation import Collateral

    folder = real_quotes / "phala_sgx"
    collateral = Collateral.from_json((folder / "collateral.json").read_bytes())
    result = scene.verify((folder / "quote.bin").read_bytes(), collateral=collateral)
    refused_by(result, "trust-root", others=True)
    assert "genuine Intel hardware" in result.refusals[0].reason


@pytest.mark.parametrize("days", [-500, +3], ids=["expired", "not-yet-valid"])
def test_attack_16_a_pck_outside_its_time_is_refused(scene: Any, refused_by: Any, days: int) -> None:
    forge = scene.forge
    spec = CertificateSpec(PCK_NAME, scene.now + timedelta(days=days), days=365, sgx=forge.sgx)
    forge.pck = spec.issue(forge.pck_key, issuer=forge.pck_ca_name, issuer_key=forge.pck_ca_key)
    refused_by(scene.verify(), "certificate-time")


def test_attack_17_a_revoked_pck_is_refused(scene: Any, refused_by: Any) -> None:
    forge = scene.forge
    forge.pck_crl = forge.make_crl(forge.pck_ca_name, forge.pck_ca_key, revoked=[forge.pck.serial_number])
    refused_by(scene.verify(), "revoked")


@pytest.mark.parametrize("name", ["pck_ca", "tcb_signer", "root"])
def test_attack_18_a_revoked_authority_signer_or_root_is_refused(scene: Any, name: str) -> None:
    forge = scene.forge
    serial = getattr(forge, name).serial_number
    forge.root_crl = forge.make_crl(forge.root_name, forge.root_key, revoked=[serial])
    result = scene.verify()
    assert not result.accepted
    assert result.trust_vector.hardware == 99


@pytest.mark.parametrize("which", ["root_crl", "pck_crl"])
@pytest.mark.parametrize("how", ["empty", "garbage", "expired", "future", "forged", "of-the-other-issuer"])
def test_attack_19_a_missing_expired_or_forged_revocation_list_is_refused(
    scene: Any, which: str, how: str
) -> None:
    forge = scene.forge
    issuer = (
        (forge.root_name, forge.root_key) if which == "root_crl" else (forge.pck_ca_name, forge.pck_ca_key)
    )
    other = forge.pck_crl if which == "root_crl" else forge.root_crl
    forged = {
        "empty": lambda: b"",
        "garbage": lambda: b"\x30\x03\x02\x01\x01",
        "expired": lambda: forge.make_crl(*issuer, issued=scene.now - timedelta(days=60)),
        "future": lambda: forge.make_crl(*issuer, issued=scene.now + timedelta(days=2)),
        "forged": lambda: forge.make_crl(issuer[0], new_key()),
        "of-the-other-issuer": lambda: other,
    }
    setattr(forge, which, forged[how]())
    result = scene.verify()
    assert not result.accepted
    assert result.trust_vector.hardware == 99


@pytest.mark.parametrize("chain", ["garbage", "", "other", "other-issuer"])
def test_attack_19_a_wrong_issuer_chain_of_the_revocation_list_is_refused(
    scene: Any, refused_by: Any, chain: str
) -> None:
    other = Forge.create(scene.now)
    text = pem(other.pck_ca, other.root).decode() if chain == "other" else chain
    if chain == "other-issuer":
        text = pem(scene.forge.tcb_signer, scene.forge.root).decode()
    refused_by(scene.verify(collateral=scene.forge.collateral(pck_crl_issuer_chain=text)), "crl-issuer")


def test_attack_20_a_pck_signed_by_a_leaf_is_refused(scene: Any, refused_by: Any) -> None:
    forge = scene.forge
    key = new_key()
    forge.pck_ca, leaf_key = forge.pck, forge.pck_key
    forge.pck = CertificateSpec(PCK_NAME, scene.now, sgx=forge.sgx).issue(
        key, issuer=PCK_NAME, issuer_key=leaf_key
    )
    forge.pck_key = key
    refused_by(scene.verify(), "pck-issuer", others=True)


def test_attack_21_a_pck_straight_from_the_root_is_refused(scene: Any, refused_by: Any) -> None:
    forge = scene.forge
    forge.pck = CertificateSpec(PCK_NAME, scene.now, sgx=forge.sgx).issue(
        forge.pck_key, issuer=forge.root_name, issuer_key=forge.root_key
    )
    forge.pck_ca = forge.root
    result = scene.verify()
    refused_by(result, "pck-issuer", others=True)


@pytest.mark.parametrize("name", ["SIMULATED SGX TCB Signing", "SIMULATED SGX Root CA", "PCK Processor CA"])
def test_attack_21_a_pck_from_an_authority_of_another_role_is_refused(
    scene: Any, refused_by: Any, name: str
) -> None:
    scene.forge = Forge.create(scene.now, pck_ca_name=name)
    refused_by(scene.verify(), "pck-issuer", others=True)


def test_attack_22_a_tcb_signer_used_as_pck_is_refused(scene: Any, refused_by: Any) -> None:
    forge = scene.forge
    forge.pck, forge.pck_key = forge.tcb_signer, forge.tcb_signer_key
    refused_by(scene.verify(), "pck-role", others=True)


def test_attack_22_a_pck_that_names_no_platform_is_refused(scene: Any, refused_by: Any) -> None:
    forge = scene.forge
    forge.pck = CertificateSpec(PCK_NAME, scene.now).issue(
        forge.pck_key, issuer=forge.pck_ca_name, issuer_key=forge.pck_ca_key
    )
    refused_by(scene.verify(), "pck-role", others=True)


def test_attack_22_a_pck_of_another_name_is_refused(scene: Any, refused_by: Any) -> None:
    scene.forge = Forge.create(scene.now, pck_name=TCB_SIGNER_NAME)
    refused_by(scene.verify(), "pck-role")


@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
def test_attack_22_a_statement_signed_by_a_pck_is_refused(
    scene: Any, refused_by: Any, statement: str
) -> None:
    forge = scene.forge
    honest = forge.collateral()
    chain = pem(forge.pck, forge.pck_ca, forge.root).decode()
    signature = sign(forge.pck_key, getattr(honest, statement).encode())
    forged = replace(honest, **{f"{statement}_issuer_chain": chain, f"{statement}_signature": signature})
    refused_by(scene.verify(collateral=forged), "tcb-signer")


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "SIMULATED SGX something else"},
        {"name": TCB_SIGNER_NAME, "sgx": SgxExtensionSpec()},
        {"name": TCB_SIGNER_NAME, "authority": True},
    ],
    ids=["name", "sgx-extension", "authority"],
)
def test_attack_22_a_statement_signed_by_a_certificate_of_another_role_is_refused(
    scene: Any, refused_by: Any, spec: Any
) -> None:
    forge = scene.forge
    forge.tcb_signer = CertificateSpec(now=scene.now, **spec).issue(
        forge.tcb_signer_key, issuer=forge.root_name, issuer_key=forge.root_key
    )
    refused_by(scene.verify(), "tcb-signer", others=True)


def test_attack_22_another_root_at_the_end_of_the_signers_chain_is_refused(
    scene: Any, refused_by: Any
) -> None:
    other = Forge.create(scene.now)
    chain = pem(scene.forge.tcb_signer, other.root).decode()
    forged = scene.forge.collateral(tcb_info_issuer_chain=chain)
    refused_by(scene.verify(collateral=forged), "tcb-signer")


def test_attack_54_simulated_evidence_is_labelled_wherever_it_goes(scene: Any) -> None:
    result = scene.verify()
    assert result.simulated
    assert result.label == "simulated"
    assert "simulated" in result.summary()
    assert result.status == "contraindicated"
    assert result.trust_vector.hardware == 97
    assert result.to_ear()["eat_profile"] == "urn:sealbook:ear:simulated:1"
    assert result.to_ear()["submods"]["kernel"]["sealbook.simulated"] is True
    assert "SIMULATED" in scene.policy().explain()[0]
    for certificate in (scene.forge.root, scene.forge.pck_ca, scene.forge.pck, scene.forge.tcb_signer):
        for attribute in certificate.subject:
            assert "SIMULATED" in attribute.value
    refused = scene.verify(expected=bytes(64))
    assert "simulated" in refused.summary()
    assert refused.label == "refused"


@pytest.mark.parametrize(
    "change",
    [
        {"simulated": False},
        {"root": "intel"},
        {"simulated": False, "root": "intel"},
        {"status": "affirming"},
        {"status": "affirming", "trust_vector": "honest"},
    ],
)
def test_attack_54_a_result_whose_simulated_label_was_removed_is_refused(scene: Any, change: Any) -> None:
    from sealbook.attestation import AttestationResult
    from sealbook.errors import InputError

    data = scene.verify().to_dict()
    assert AttestationResult.from_dict(data) == scene.verify()
    if change.get("trust_vector"):
        vector = {**data["trust_vector"], "hardware": 2, "runtime_opaque": 2}
        change = {**change, "trust_vector": vector}
    with pytest.raises(InputError):
        AttestationResult.from_dict({**data, **change})


def test_attack_58_a_pck_chain_beside_the_quote_is_not_used_and_must_be_the_same(
    scene: Any, refused_by: Any
) -> None:
    forge = scene.forge
    own = pem(forge.pck, forge.pck_ca, forge.root).decode()
    assert scene.verify(collateral=forge.collateral(pck_certificate_chain=own)).accepted
    other = Forge.create(scene.now)
    swapped = pem(other.pck, other.pck_ca, other.root).decode()
    for chain in (swapped, "", "garbage"):
        refused_by(scene.verify(collateral=forge.collateral(pck_certificate_chain=chain)), "pck-copy")
    # A quote of another platform gains nothing from the right chain beside it.
    stolen = other.quote(scene.report)
    collateral = forge.collateral(pck_certificate_chain=own)
    assert not Verifier(scene.policy()).verify(stolen, collateral, now=scene.now).accepted
