"""Attack cases 1-13, 30, 31, 35-41, 43-45, 55: what a forger does to the quote itself."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from sealbook.attestation import MalformedQuoteError, Quote, report_data
from sealbook.attestation.simulated import QuoteSpec, ReportSpec
from sealbook.attestation.simulated.forge import ENCLAVE_ATTRIBUTES, QE_ATTRIBUTES, QE_SIGNER, new_key, pem

_AUTH = 436
REGIONS = {
    "01_header": (0, 48),
    "02_report_body": (48, 432),
    "03_isv_signature": (_AUTH, _AUTH + 64),
    "04_attestation_key": (_AUTH + 64, _AUTH + 128),
    "05_qe_report": (_AUTH + 128, _AUTH + 512),
    "06_qe_report_signature": (_AUTH + 512, _AUTH + 576),
    "07_qe_auth_data": (_AUTH + 576, _AUTH + 610),
}


@pytest.mark.parametrize("region", REGIONS)
def test_attack_01_to_07_a_flipped_bit_in_any_byte_is_refused(scene: Any, region: str) -> None:
    quote, collateral, policy = scene.quote(), scene.forge.collateral(), scene.policy()
    for offset in range(*REGIONS[region]):
        forged = bytearray(quote)
        forged[offset] ^= 1 << (offset % 8)
        result = scene.verify(bytes(forged), collateral=collateral, policy=policy, expected=None)
        assert not result.accepted, offset
        # Not only because a policy would dislike the new value: the signature itself is wrong.
        assert result.trust_vector.hardware == 99, offset


def test_attack_08_a_truncated_quote_is_refused(scene: Any, refused_by: Any) -> None:
    quote, collateral = scene.quote(), scene.forge.collateral()
    for length in [0, 1, 47, 48, 431, 432, 435, 436, *range(437, len(quote), 61), len(quote) - 1]:
        refused_by(scene.verify(quote[:length], collateral=collateral), "quote-format")


@pytest.mark.parametrize("change", [-1, 1, -4096, 2**31])
def test_attack_08_a_wrong_length_of_the_signature_section_is_refused(
    scene: Any, refused_by: Any, change: int
) -> None:
    quote = bytearray(scene.quote())
    (length,) = struct.unpack_from("<I", quote, 432)
    struct.pack_into("<I", quote, 432, (length + change) % 2**32)
    refused_by(scene.verify(bytes(quote)), "quote-format")


def test_attack_08_a_wrong_length_of_the_certificate_chain_is_refused(scene: Any, refused_by: Any) -> None:
    quote = bytearray(scene.quote())
    offset = _AUTH + 576 + 2 + 32 + 2
    (length,) = struct.unpack_from("<I", quote, offset)
    struct.pack_into("<I", quote, offset, length - 1)
    refused_by(scene.verify(bytes(quote)), "quote-format")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_attack_08_qe_authentication_data_of_another_length_is_refused(
    scene: Any, refused_by: Any, length: int
) -> None:
    refused_by(scene.verify(scene.quote(QuoteSpec(qe_auth_data=bytes(length)))), "quote-format")


@pytest.mark.parametrize("trailing", [b"\0", b"0123456789", bytes(1000)])
def test_attack_09_trailing_bytes_are_refused(scene: Any, refused_by: Any, trailing: bytes) -> None:
    refused_by(scene.verify(scene.quote(QuoteSpec(trailing=trailing))), "quote-format")


@pytest.mark.parametrize("version", [0, 1, 2, 4, 5, 0xFFFF])
def test_attack_10_another_quote_version_is_refused(scene: Any, refused_by: Any, version: int) -> None:
    refused_by(scene.verify(scene.quote(QuoteSpec(version=version))), "quote-format")


def test_attack_10_a_tdx_quote_is_refused(scene: Any, refused_by: Any) -> None:
    refused_by(scene.verify(scene.quote(QuoteSpec(tee_type=0x81))), "quote-format")
    refused_by(scene.verify(scene.quote(QuoteSpec(version=4, tee_type=0x81))), "quote-format")


@pytest.mark.parametrize("key_type", [0, 1, 3])
def test_attack_11_another_attestation_key_type_is_refused(
    scene: Any, refused_by: Any, key_type: int
) -> None:
    refused_by(scene.verify(scene.quote(QuoteSpec(key_type=key_type))), "quote-format")


def test_attack_12_a_foreign_quoting_enclave_vendor_is_refused(scene: Any, refused_by: Any) -> None:
    refused_by(scene.verify(scene.quote(QuoteSpec(vendor=bytes(16)))), "quote-format")


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 6, 7])
def test_attack_13_another_certification_type_is_refused(scene: Any, refused_by: Any, kind: int) -> None:
    refused_by(scene.verify(scene.quote(QuoteSpec(certification_type=kind))), "quote-format")


@pytest.mark.parametrize(
    "qe",
    [
        {"mrsigner": bytes(32)},
        {"isv_prod_id": 2},
        {"isv_svn": 7},
        {"attributes": b"\x17" + QE_ATTRIBUTES[1:]},
    ],
    ids=["mrsigner", "prodid", "svn", "debug"],
)
def test_attack_30_a_quoting_enclave_other_than_the_vouched_one_is_refused(scene: Any, qe: Any) -> None:
    result = scene.verify(scene.quote(QuoteSpec(qe=replace(QuoteSpec().qe, **qe))))
    assert not result.accepted
    assert result.refusals
    assert QuoteSpec().qe.mrsigner == QE_SIGNER


def test_attack_31_a_quoting_enclave_that_does_not_bind_the_key_is_refused(
    scene: Any, refused_by: Any
) -> None:
    refused_by(scene.verify(scene.quote(QuoteSpec(qe_report_data=bytes(64)))), "qe-binding")


def test_attack_31_bytes_after_the_key_hash_are_refused(scene: Any, refused_by: Any) -> None:
    honest = Quote.parse(scene.quote()).qe_report.report_data
    spec = QuoteSpec(qe_report_data=honest[:63] + b"\x01")
    refused_by(scene.verify(scene.quote(spec)), "qe-binding")


def test_attack_31_a_quote_signed_by_a_key_the_quoting_enclave_never_saw_is_refused(scene: Any) -> None:
    honest = Quote.parse(scene.quote()).qe_report.report_data
    result = scene.verify(scene.quote(QuoteSpec(signing_key=new_key(), qe_report_data=honest)))
    assert not result.accepted
    assert result.trust_vector.hardware == 99


def test_attack_35_a_debug_enclave_is_refused(scene: Any, refused_by: Any) -> None:
    result = scene.verify(scene.quote(attributes=b"\x07" + ENCLAVE_ATTRIBUTES[1:]))
    refused_by(result, "debug")
    # Our own check says so, whether or not dcap-qvl does.
    assert result.refusals[0].reason == "The enclave runs in debug mode, so the host can read its memory."


@pytest.mark.parametrize(
    "flags", [0x04, 0x01, 0x15, 0x25], ids=["not-initialised", "32-bit", "provision-key", "launch-key"]
)
def test_attack_36_an_enclave_with_wrong_attributes_is_refused(
    scene: Any, refused_by: Any, flags: int
) -> None:
    refused_by(scene.verify(scene.quote(attributes=bytes([flags]) + ENCLAVE_ATTRIBUTES[1:])), "attributes")


def test_attack_37_an_unlisted_measurement_is_refused(scene: Any, refused_by: Any) -> None:
    result = scene.verify(scene.quote(mrenclave=b"\xac" * 32, mrsigner=b"\xbc" * 32))
    refused_by(result, "measurement")
    assert result.trust_vector.executables == 33


def test_attack_38_the_right_signer_with_another_product_is_refused(scene: Any, refused_by: Any) -> None:
    refused_by(scene.verify(scene.quote(isv_prod_id=8)), "identity")
    signer_only = scene.policy(identity={"mrenclave": (), "mrsigner_only": True})
    assert scene.verify(policy=signer_only).accepted
    refused_by(scene.verify(scene.quote(isv_prod_id=8), policy=signer_only), "identity")


def test_attack_39_a_security_version_below_the_least_is_refused(scene: Any, refused_by: Any) -> None:
    assert scene.verify(scene.quote(isv_svn=4)).accepted
    refused_by(scene.verify(scene.quote(isv_svn=2)), "identity")


def test_attack_40_only_the_right_signer_where_a_measurement_is_pinned_is_refused(
    scene: Any, refused_by: Any
) -> None:
    refused_by(scene.verify(scene.quote(mrenclave=b"\xac" * 32)), "measurement")


def test_attack_40_the_right_measurement_of_another_signer_is_refused(scene: Any, refused_by: Any) -> None:
    refused_by(scene.verify(scene.quote(mrsigner=b"\xbc" * 32)), "identity")


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ({"config_id": bytes(64)}, {"config_id": b"\x01" + bytes(63)}),
        ({"misc_select_mask": 1, "misc_select_value": 0}, {"misc_select": 1}),
        (
            {
                "attributes_mask": bytes(8) + b"\x04" + bytes(7),
                "attributes_value": bytes(8) + b"\x04" + bytes(7),
            },
            {"attributes": ENCLAVE_ATTRIBUTES[:8] + b"\x03" + bytes(7)},
        ),
    ],
    ids=["config-id", "miscselect", "xfrm"],
)
def test_an_enclave_configured_otherwise_than_the_policy_says_is_refused(
    scene: Any, refused_by: Any, rule: Any, change: Any
) -> None:
    policy = scene.policy(identity=rule)
    assert scene.verify(policy=policy).accepted
    refused_by(scene.verify(scene.quote(**change), policy=policy), "identity")


def _data(**changes: Any) -> bytes:
    parts = {
        "role": "kernel",
        "audience": "broker",
        "nonce": bytes(range(32)),
        "claims": {"key": b"public key of A"},
        **changes,
    }
    return report_data(**parts)


@pytest.mark.parametrize(
    "said",
    [bytes(64), _data(nonce=bytes(32)), _data(nonce=bytes(31) + b"\x01")],
    ids=["nothing", "no-nonce", "other-nonce"],
)
def test_attack_41_evidence_without_this_nonce_is_refused(scene: Any, refused_by: Any, said: bytes) -> None:
    result = scene.verify(scene.quote(report_data=said))
    refused_by(result, "report-data")
    assert result.trust_vector.instance_identity == 99


def test_attack_43_a_quote_relayed_with_another_key_is_refused(scene: Any, refused_by: Any) -> None:
    expected = _data(claims={"key": b"public key of B"})
    refused_by(scene.verify(expected=expected), "report-data")


@pytest.mark.parametrize("keep", [slice(0, 32), slice(0, 63), slice(32, 64)])
def test_attack_44_report_data_right_in_a_part_only_is_refused(
    scene: Any, refused_by: Any, keep: slice
) -> None:
    said = bytearray(byte ^ 0xFF for byte in scene.expected)
    said[keep] = scene.expected[keep]
    refused_by(scene.verify(scene.quote(report_data=bytes(said))), "report-data")


@pytest.mark.parametrize(
    "said",
    [
        _data(role="worker"),
        _data(audience="somebody else"),
        _data(claims={"key": b"public key of A", "port": b"1"}),
        _data(claims={"kez": b"public key of A"}),
    ],
    ids=["role", "audience", "more-claims", "claim-name"],
)
def test_attack_45_evidence_for_another_role_or_audience_is_refused(
    scene: Any, refused_by: Any, said: bytes
) -> None:
    refused_by(scene.verify(scene.quote(report_data=said)), "report-data")


def test_attack_45_parts_of_report_data_cannot_be_shifted_into_each_other() -> None:
    values = {
        _data(role="kernel", audience="broker"),
        _data(role="kernelb", audience="roker"),
        _data(claims={"a": b"bc"}),
        _data(claims={"ab": b"c"}),
        _data(claims={"a": b"b", "c": b""}),
        _data(claims={}),
        _data(claims={"": b""}),
    }
    assert len(values) == 7


def test_attack_55_an_oversized_quote_is_refused_unread(scene: Any, refused_by: Any) -> None:
    refused_by(scene.verify(scene.quote() + bytes(20_000)), "quote-format")
    with pytest.raises(MalformedQuoteError, match="more than the 16384"):
        Quote.parse(bytes(16 * 1024 + 1))


def test_attack_55_a_pem_bomb_is_refused(scene: Any, refused_by: Any) -> None:
    certificate = pem(scene.forge.pck)
    for chain in (certificate * 8, certificate, b"", b"-----BEGIN CERTIFICATE-----\n" * 300):
        refused_by(scene.verify(scene.quote(QuoteSpec(chain=chain))), "quote-format")


def test_attack_55_text_between_the_certificates_is_refused(scene: Any, refused_by: Any) -> None:
    chain = pem(scene.forge.pck) + b"hello\n" + pem(scene.forge.pck_ca, scene.forge.root)
    refused_by(scene.verify(scene.quote(QuoteSpec(chain=chain))), "quote-format")


@pytest.mark.parametrize("thing", [None, "quote", bytearray(5000), 7])
def test_something_that_is_no_byte_string_is_refused_and_does_not_raise(
    scene: Any, refused_by: Any, thing: Any
) -> None:
    refused_by(scene.verify(thing) if thing is not None else scene.verify(b""), "quote-format")


def test_the_quote_has_one_identity_however_it_is_encoded(scene: Any) -> None:
    spec = QuoteSpec(chain=pem(scene.forge.pck, scene.forge.pck_ca, scene.forge.root).replace(b"\n", b"\r\n"))
    honest = scene.quote()
    again = honest[:432] + scene.quote(spec)[432:]
    assert honest != again
    assert Quote.parse(honest).identity == Quote.parse(again).identity
    assert Quote.parse(honest).identity != Quote.parse(scene.quote(report_data=bytes(64))).identity


def test_the_fields_of_a_quote_are_the_forged_ones(scene: Any) -> None:
    report = ReportSpec(
        mrenclave=b"\x01" * 32,
        mrsigner=b"\x02" * 32,
        report_data=b"\x03" * 64,
        isv_prod_id=4,
        isv_svn=5,
        misc_select=6,
        config_id=b"\x07" * 64,
        config_svn=8,
    )
    parsed = Quote.parse(scene.forge.quote(report)).report
    for name in (
        "mrenclave",
        "mrsigner",
        "report_data",
        "isv_prod_id",
        "isv_svn",
        "misc_select",
        "config_id",
    ):
        assert getattr(parsed, name) == getattr(report, name)
    assert (parsed.config_svn, parsed.debug, parsed.initialized, parsed.mode64) == (8, False, True, True)
