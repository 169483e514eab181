"""Attack cases 19, 22, 58: certificate chains that two readers of PEM read differently."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealbook.attestation import Collateral, MalformedQuoteError, Quote
from sealbook.attestation.pem import is_chain, read_chain, write_chain
from sealbook.attestation.simulated import QuoteSpec
from sealbook.attestation.simulated.forge import pem, sign, tcb_level

#: What one reader skips and another one reads.
LABELS = ["FOO", "PUBLIC KEY", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"]

#: From a good chain and another certificate to one that is not exactly certificates and line ends.
SPOILED: dict[str, Callable[[bytes, bytes], bytes]] = {
    **{f"{label} before": lambda good, other, label=label: _relabel(other, label) + good for label in LABELS},
    **{f"{label} after": lambda good, other, label=label: good + _relabel(other, label) for label in LABELS},
    **{f"{label} between": lambda good, other, label=label: _between(good, _relabel(other, label))
       for label in LABELS},
    "garbage between": lambda good, other: _between(good, b"garbage\n"),
    "space between": lambda good, other: _between(good, b" \n"),
    "garbage before": lambda good, other: b"garbage\n" + good,
    "garbage after": lambda good, other: good + b"garbage\n",
    "a certificate more": lambda good, other: good + other,
    "a certificate less": lambda good, other: good[: good.index(b"-----BEGIN", 1)],
    "two NULs": lambda good, other: good + b"\0\0",
    "NUL between": lambda good, other: _between(good, b"\0"),
    "header lines": lambda good, other: good.replace(b"-----\nMII", b"-----\nProc-Type: 4\n\nMII", 1),
    "padding inside": lambda good, other: good.replace(b"-----\nMII", b"-----\nAA==\nMII", 1),
    "no line end": lambda good, other: _between(good, b"").replace(b"-----\n-----B", b"----------B", 1),
}  # fmt: skip


def _relabel(text: bytes, label: str) -> bytes:
    return text.replace(b" CERTIFICATE-----", f" {label}-----".encode())


def _between(chain: bytes, what: bytes) -> bytes:
    place = chain.index(b"-----BEGIN", 1)
    return chain[:place] + what + chain[place:]


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("hidden", [1, 2])
@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
def test_attack_22_a_pck_hidden_under_another_label_signs_no_statement(
    scene: Any, refused_by: Any, label: str, hidden: int, statement: str
) -> None:
    # The attacker has the key of one broken platform's PCK: dcap-qvl took it for the signer,
    # while our own checks saw only the honest chain behind it.
    forge = scene.forge
    forged = dict(getattr(forge, statement), tcbEvaluationDataNumber=17)
    if statement == "tcb_info":
        forged["tcbLevels"] = [tcb_level(bytes(16), 0)]
    text = json.dumps(forged)
    chain = _relabel(pem(*(forge.pck, forge.pck_ca)[:hidden]), label) + pem(forge.tcb_signer, forge.root)
    changes = {
        statement: text,
        f"{statement}_signature": sign(forge.pck_key, text.encode()),
        f"{statement}_issuer_chain": chain.decode(),
    }
    result = scene.verify(collateral=forge.collateral(**changes))
    refused_by(result, "tcb-signer")
    assert result.trust_vector.hardware == 99


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize(
    ("part", "check"),
    [
        ("tcb_info_issuer_chain", "tcb-signer"),
        ("qe_identity_issuer_chain", "tcb-signer"),
        ("pck_crl_issuer_chain", "crl-issuer"),
        ("pck_certificate_chain", "pck-copy"),
    ],
)
def test_attack_19_22_58_a_chain_that_is_not_exactly_its_certificates_is_refused(
    scene: Any, refused_by: Any, how: str, part: str, check: str
) -> None:
    forge = scene.forge
    copy = pem(forge.pck, forge.pck_ca, forge.root).decode()
    honest = forge.collateral(pck_certificate_chain=copy)
    assert scene.verify(collateral=honest).accepted
    spoiled = SPOILED[how](getattr(honest, part).encode(), pem(forge.pck)).decode()
    assert spoiled != getattr(honest, part)
    refused_by(scene.verify(collateral=replace(honest, **{part: spoiled})), check)


@pytest.mark.parametrize("how", SPOILED)
def test_a_quote_whose_chain_is_not_exactly_its_certificates_is_refused(
    scene: Any, refused_by: Any, how: str
) -> None:
    forge = scene.forge
    chain = SPOILED[how](pem(forge.pck, forge.pck_ca, forge.root), pem(forge.pck))
    refused_by(scene.verify(scene.quote(QuoteSpec(chain=chain))), "quote-format")


@pytest.mark.parametrize("ending", ["", "\0", "\n\n", "\r\n\0"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_line_ends_and_a_last_nul_as_intel_has_them_are_accepted(
    scene: Any, ending: str, line_end: str
) -> None:
    forge = scene.forge

    def odd(*certificates: x509.Certificate) -> str:
        return pem(*certificates).decode().replace("\n", line_end) + ending

    signers, authorities = odd(forge.tcb_signer, forge.root), odd(forge.pck_ca, forge.root)
    collateral = forge.collateral(
        tcb_info_issuer_chain=signers, qe_identity_issuer_chain=signers, pck_crl_issuer_chain=authorities
    )
    quote = scene.quote(QuoteSpec(chain=odd(forge.pck, forge.pck_ca, forge.root).encode()))
    assert scene.verify(quote, collateral=collateral).accepted


def test_dcap_qvl_is_given_the_certificates_that_were_checked_and_no_other_bytes(scene: Any) -> None:
    forge = scene.forge
    signers = pem(forge.tcb_signer, forge.root).decode()
    odd = signers.replace("\n", "\r\n") + "\0"
    parts = json.loads(forge.collateral(tcb_info_issuer_chain=odd).for_dcap_qvl().to_json())
    assert parts["tcb_info_issuer_chain"] == signers
    chain = pem(forge.pck, forge.pck_ca, forge.root)
    quote = Quote.parse(scene.quote(QuoteSpec(chain=chain.replace(b"\n", b"\r\n") + b"\0")))
    again = Quote.parse(quote.for_dcap_qvl())
    assert again.certification_chain == chain
    assert replace(again, raw=b"", certification_chain=b"") == replace(
        quote, raw=b"", certification_chain=b""
    )


def test_dcap_qvl_is_given_no_text_as_it_came(scene: Any) -> None:
    from sealbook.attestation.signatures import verify_signatures

    given: list[Any] = []

    class Recording:
        """Stands in for dcap-qvl, which cannot tell what it was given."""

        def verify_with_policy(self, raw: bytes, parts: Any, *_: Any) -> None:
            given.append((raw, parts.to_json()))
            raise ValueError("recorded")

    forge = scene.forge
    chain = pem(forge.pck, forge.pck_ca, forge.root).replace(b"\n", b"\r\n")
    quote = Quote.parse(scene.quote(QuoteSpec(chain=chain)))
    signers = pem(forge.tcb_signer, forge.root).decode() + "\0"
    collateral = forge.collateral(tcb_info_issuer_chain=signers, qe_identity_issuer_chain=signers)
    recording: Any = Recording()
    verify_signatures(recording, quote, collateral, scene.policy(), scene.now)
    assert given == [(quote.for_dcap_qvl(), collateral.for_dcap_qvl().to_json())] * 2
    assert b"-----\r\n" not in given[0][0]


def test_dcap_qvl_never_sees_a_chain_that_our_checks_cannot_read(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without any check of ours, which a later change could break, the signatures alone refuse it.
    from sealbook.attestation import checks

    monkeypatch.setattr(checks, "CHECKS", ())
    assert scene.verify().accepted
    chain = _relabel(pem(scene.forge.pck), "FOO") + pem(scene.forge.tcb_signer, scene.forge.root)
    for part in ("tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain"):
        result = scene.verify(collateral=scene.forge.collateral(**{part: chain.decode()}))
        assert [refusal.check for refusal in result.refusals] == ["chain"]


def test_certificates_in_the_grammar_that_are_none_are_refused(scene: Any, refused_by: Any) -> None:
    nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert is_chain(nonsense.encode() * 2, 2)
    with pytest.raises(ValueError):
        read_chain(nonsense * 2, 2)
    forged = scene.forge.collateral(tcb_info_issuer_chain=nonsense * 2)
    refused_by(scene.verify(collateral=forged), "tcb-signer")
    quote = scene.quote(QuoteSpec(chain=nonsense.encode() * 3))
    refused_by(scene.verify(quote), "pck-chain", others=True)
    with pytest.raises(MalformedQuoteError):
        Quote.parse(quote).for_dcap_qvl()


def test_genuine_chains_are_read_and_written_back_unchanged(real_quotes: Any) -> None:
    collateral = Collateral.from_json((real_quotes / "phala_sgx" / "collateral.json").read_bytes())
    for name in ("tcb_info", "qe_identity", "pck_crl"):
        chain = collateral.issuer_chain(name)
        assert write_chain(chain).decode() == getattr(collateral, f"{name}_issuer_chain")
    for file in real_quotes.glob("*/quote.bin"):
        quote = Quote.parse(file.read_bytes())
        again = Quote.parse(quote.for_dcap_qvl())
        assert [each.public_bytes(Encoding.DER) for each in again.certificates] == [
            each.public_bytes(Encoding.DER) for each in quote.certificates
        ]
        assert again.certification_chain == quote.certification_chain.rstrip(b"\0")
        assert again.identity == quote.identity


def test_a_chain_of_many_short_lines_is_read_in_linear_steps(scene: Any) -> None:
    # 32 KiB of what matches up to its end: a grammar that tries again and again would never return.
    text = b"-----BEGIN CERTIFICATE-----\n" + b"A\r\n" * 10_000
    assert not is_chain(text, 2)
    assert not is_chain(pem(scene.forge.root) + b"\r\n" * 15_000 + b"x", 2)
