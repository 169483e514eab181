"""Which certificate may do what: the roles dcap-qvl does not look at.

dcap-qvl verifies that every chain ends in the configured root. It does not ask whether a
TCB info was signed by the TCB signer and not by some processor's PCK, whether a PCK was
issued by a PCK CA and not by the root, nor does it look at the CRL issuer chain or at the root
certificate a chain carries. The names are those of Intel's "SGX PCK Certificate and CRL
Profile Specification", section 2; a simulated platform's begin with SIMULATED instead of Intel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from sealbook.attestation.collateral import Collateral, MalformedCollateralError
from sealbook.attestation.pem import read_chain
from sealbook.attestation.policy import INTEL_ROOT, SIMULATED_MARK, TrustRoot
from sealbook.attestation.quote import MalformedQuoteError, Quote
from sealbook.attestation.result import Refusal

#: Intel's SGX extension of PCK certificates.
SGX_EXTENSION = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
PCK = "PCK Certificate"
PCK_CAS = ("PCK Processor CA", "PCK Platform CA")
TCB_SIGNER = "TCB Signing"

_SUSPECT = "Do not trust this evidence; somebody combined certificates in a way their issuer does not."
_CLOCK = "Check this machine's clock, then fetch the platform's current collateral."
_RENEW = "Fetch the platform's collateral again, from its maker."


def check_root(quote: Quote, root: TrustRoot) -> Iterator[Refusal]:
    """Check that the chain in the quote ends in the policy's root (attack cases 14, 15)."""
    certificates = _of_quote(quote)
    if certificates is None:
        return
    found = certificates[-1]
    if _is_root(found, root):
        return
    if root.simulated and _spki(found) == _spki(INTEL_ROOT.certificate):
        yield Refusal(
            "trust-root",
            "The evidence claims genuine Intel hardware, but the policy admits one simulated platform only.",
            'Use a policy with trust_root = "intel" for hardware.',
        )
    elif not root.simulated and SIMULATED_MARK in _common_name(found):
        yield Refusal(
            "trust-root",
            "The evidence comes from a simulated platform, but the policy demands genuine Intel hardware.",
            "Run the enclave on SGX hardware, or try things out with a policy that pins this root.",
        )
    else:
        which = "simulated platform" if root.simulated else "maker of hardware"
        yield Refusal(
            "trust-root",
            f"The evidence comes from another {which} than the one the policy trusts.",
            "Use the policy that belongs to this platform, or write one with `sealbook install`.",
        )


def check_pck_chain(quote: Quote, root: TrustRoot) -> Iterator[Refusal]:
    """Check that PCK, PCK CA and root are three certificates in these roles (cases 20, 21, 22)."""
    certificates = _of_quote(quote)
    if certificates is None:
        yield Refusal("pck-chain", "The quote's certificate chain cannot be read.", _SUSPECT)
        return
    pck, authority, anchor = certificates
    if not _has_role(pck, root, (PCK,)) or _is_authority(pck) or not _has_sgx_extension(pck):
        yield Refusal(
            "pck-role", "The certificate that vouches for the quoting enclave is not a PCK.", _SUSPECT
        )
    if (
        not _has_role(authority, root, PCK_CAS)
        or not _is_authority(authority)
        or _spki(authority) == _spki(anchor)
    ):
        yield Refusal(
            "pck-issuer", "The PCK certificate was not issued by a PCK certificate authority.", _SUSPECT
        )
    if pck.issuer != authority.subject or authority.issuer != anchor.subject:
        yield Refusal("pck-chain", "The certificates in the quote do not follow from each other.", _SUSPECT)


def check_statement_signers(collateral: Collateral, root: TrustRoot) -> Iterator[Refusal]:
    """Check that TCB info and QE identity are signed by the TCB signer (case 22)."""
    for what, chain in (
        ("TCB info", _of_issuer(collateral, "tcb_info")),
        ("QE identity", _of_issuer(collateral, "qe_identity")),
    ):
        if chain is None:
            yield Refusal("tcb-signer", f"The certificate chain of the {what} cannot be read.", _RENEW)
            continue
        signer, anchor = chain
        if (
            not _has_role(signer, root, (TCB_SIGNER,))
            or _is_authority(signer)
            or _has_sgx_extension(signer)
            or signer.issuer != root.certificate.subject
        ):
            yield Refusal(
                "tcb-signer", f"The {what} was not signed by the platform maker's TCB signer.", _RENEW
            )
        if not _is_root(anchor, root):
            yield Refusal("tcb-signer", f"The certificate chain of the {what} ends in another root.", _RENEW)


def check_crl_issuer(quote: Quote, collateral: Collateral, root: TrustRoot) -> Iterator[Refusal]:
    """Check that the CRL's issuer is the quote's PCK CA (dcap-qvl accepts garbage there, case 19)."""
    certificates = _of_quote(quote)
    chain = _of_issuer(collateral, "pck_crl")
    if certificates is None:
        return
    if chain is None:
        yield Refusal(
            "crl-issuer", "The certificate chain of the PCK revocation list cannot be read.", _RENEW
        )
        return
    issuer, anchor = chain
    expected = certificates[1]
    if issuer.subject != expected.subject or _spki(issuer) != _spki(expected) or not _is_root(anchor, root):
        yield Refusal(
            "crl-issuer", "The PCK revocation list belongs to another certificate authority.", _RENEW
        )


def check_times(quote: Quote, collateral: Collateral, now: datetime) -> Iterator[Refusal]:
    """Check that certificates are valid and no revocation list is from the future (cases 16, 19, 52)."""
    signers = _of_issuer(collateral, "tcb_info") or ()
    identity_signers = _of_issuer(collateral, "qe_identity") or ()
    for certificate in dict.fromkeys((*(_of_quote(quote) or ()), *signers, *identity_signers)):
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            yield Refusal(
                "certificate-time",
                f"The certificate {_common_name(certificate)!r} is not valid now, but from "
                f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}.",
                _CLOCK,
            )
    for what, raw in (("root", collateral.root_ca_crl), ("PCK", collateral.pck_crl)):
        listed = _load_crl(raw)
        if listed is not None and listed.last_update_utc > now:
            yield Refusal(
                "collateral-time", f"The {what} revocation list was issued after the present time.", _CLOCK
            )


def check_revocation(quote: Quote, collateral: Collateral) -> Iterator[Refusal]:
    """Look up every certificate (cases 17, 18): dcap-qvl refuses revoked ones too but does not say which."""
    certificates = _of_quote(quote) or ()
    signers = (
        *(_of_issuer(collateral, "tcb_info") or ()),
        *(_of_issuer(collateral, "qe_identity") or ()),
    )
    for raw, candidates in (
        (collateral.pck_crl, certificates[:1]),
        (collateral.root_ca_crl, (*certificates[1:], *signers)),
    ):
        listed = _load_crl(raw)
        if listed is None:
            continue
        for certificate in dict.fromkeys(candidates):
            if listed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                yield Refusal(
                    "revoked",
                    f"The certificate {_common_name(certificate)!r} has been revoked.",
                    "Do not use this platform; its maker withdrew its trust.",
                )


def check_pck_copy(quote: Quote, collateral: Collateral) -> Iterator[Refusal]:
    """Check that a PCK chain beside the quote is the quote's own (case 58); it is never used."""
    if collateral.pck_certificate_chain is None:
        return
    certificates = _of_quote(quote)
    if certificates is None:
        return
    try:
        copy = read_chain(collateral.pck_certificate_chain, 3)
    except ValueError:
        copy = ()
    if list(copy[:2]) != list(certificates[:2]):
        yield Refusal(
            "pck-copy", "The collateral carries the certificates of another platform than the quote.", _RENEW
        )


def _of_quote(quote: Quote) -> Sequence[x509.Certificate] | None:
    try:
        certificates = quote.certificates
    except MalformedQuoteError:
        return None
    return certificates if len(certificates) == 3 else None


def _of_issuer(collateral: Collateral, name: str) -> Sequence[x509.Certificate] | None:
    try:
        return collateral.issuer_chain(name)
    except MalformedCollateralError:
        return None


def _load_crl(raw: bytes) -> x509.CertificateRevocationList | None:
    try:
        return x509.load_der_x509_crl(raw)
    except ValueError:
        return None


def _has_role(certificate: x509.Certificate, root: TrustRoot, roles: tuple[str, ...]) -> bool:
    prefix = f"{SIMULATED_MARK} SGX" if root.simulated else "Intel SGX"
    return _common_name(certificate) in [f"{prefix} {role}" for role in roles]


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _has_sgx_extension(certificate: x509.Certificate) -> bool:
    return any(extension.oid == SGX_EXTENSION for extension in certificate.extensions)


def _is_root(certificate: x509.Certificate, root: TrustRoot) -> bool:
    """Equal, or (Intel has issued its root more than once) the same self-signed name and key."""
    if certificate == root.certificate:
        return True
    if certificate.subject != root.certificate.subject or _spki(certificate) != _spki(root.certificate):
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
