"""Whether the maker of a platform signed a collateral, and until when all of it holds.

The verifier checks all this again, with the evidence. Here it keeps what is not genuine out of the cache: a
service that sent something broken once must not block attestation until that expires.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sealbook.attestation.collateral import Collateral, MalformedCollateralError, parse_time
from sealbook.attestation.collateral_memory import CollateralAge
from sealbook.attestation.quote import Quote
from sealbook.errors import RefusedError

_PCK_CAS = {"PCK Processor CA": "processor", "PCK Platform CA": "platform"}
_P256_BYTES = 32


class NotGenuineError(RefusedError):
    """The maker of the platform has not signed this."""


@dataclass(frozen=True)
class Platform:
    """What collateral is asked for by.

    Attributes
    ----------
    fmspc
        12 lower-case hex digits.
    authority
        Which authority issued the processor's PCK certificate: "processor" or "platform".
    issuer
        That authority's certificate.
    """

    fmspc: str
    authority: str
    issuer: x509.Certificate

    @classmethod
    def of(cls, quote: Quote, root: x509.Certificate) -> Platform:
        """Read the platform from a quote whose PCK certificate leads to `root`.

        Whatever a host invents is refused here, so that nobody makes us ask a service for it.

        Raises
        ------
        NotGenuineError
            The certificates do not lead there, or are not a PCK certificate and its authority.
        """
        pck, issuer, _ = quote.certificates
        try:
            issuer.verify_directly_issued_by(root)
            pck.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            raise NotGenuineError(
                "There is no collateral for the platform that the evidence names, because its certificates "
                "do not lead to the platform maker's root: do not trust this evidence."
            ) from None
        names = issuer.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        common_name = str(names[0].value) if len(names) == 1 else ""
        for ending, authority in _PCK_CAS.items():
            if common_name.endswith(f" SGX {ending}"):
                return cls(quote.fmspc, authority, issuer)
        raise NotGenuineError(
            "There is no collateral for the platform that the evidence names, because its certificate was "
            "not issued by an authority for processors: do not trust this evidence."
        )


def require_genuine(collateral: Collateral, platform: Platform, root: x509.Certificate) -> None:
    """Check every signature in a collateral, and that it is for this platform.

    Raises
    ------
    NotGenuineError
        A sentence about the first part that is not.
    """
    for name, what in (("tcb_info", "TCB info"), ("qe_identity", "QE identity")):
        with _refusing(what):
            signer, _ = collateral.issuer_chain(name)
            signer.verify_directly_issued_by(root)
            _verify(signer, getattr(collateral, name), getattr(collateral, f"{name}_signature"))
    if str(collateral.statement("tcb_info").get("fmspc", "")).lower() != platform.fmspc:
        raise NotGenuineError("The TCB info is for another kind of processor.")
    for what, raw, issuer in (
        ("root's revocation list", collateral.root_ca_crl, root),
        ("PCK revocation list", collateral.pck_crl, platform.issuer),
    ):
        with _refusing(what):
            _verify_list(raw, issuer)


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn everything that can be wrong with a signed part into one refusal."""
    try:
        yield
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, MalformedCollateralError):
        raise NotGenuineError(f"The {what} is not signed by the platform's maker.") from None


def _verify(signer: x509.Certificate, text: str, signature: bytes) -> None:
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(signature) != 2 * _P256_BYTES:
        raise ValueError("not a signature over P-256")
    r, s = (int.from_bytes(half, "big") for half in (signature[:_P256_BYTES], signature[_P256_BYTES:]))
    key.verify(encode_dss_signature(r, s), text.encode(), ec.ECDSA(hashes.SHA256()))


def _verify_list(raw: bytes, issuer: x509.Certificate) -> None:
    listed = x509.load_der_x509_crl(raw)
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or listed.issuer != issuer.subject:
        raise ValueError("of another issuer")
    if not listed.is_signature_valid(key):
        raise InvalidSignature


def expires_at(collateral: Collateral) -> datetime:
    """Return until when everything in a collateral is valid: its lists, statements and certificates.

    Raises
    ------
    MalformedCollateralError
        A part does not say until when it is valid.
    """
    ends = [
        parse_time(collateral.statement(name).get("nextUpdate"), what="nextUpdate")
        for name in ("tcb_info", "qe_identity")
    ]
    for name in ("tcb_info", "qe_identity", "pck_crl"):
        ends += [each.not_valid_after_utc for each in collateral.issuer_chain(name)]
    for raw in (collateral.root_ca_crl, collateral.pck_crl):
        try:
            end = x509.load_der_x509_crl(raw).next_update_utc
        except ValueError:
            end = None
        if end is None:
            raise MalformedCollateralError("A revocation list does not say until when it is valid.")
        ends.append(end)
    return min(ends)


def age_of(collateral: Collateral) -> CollateralAge:
    """Return how new a genuine collateral is, in the numbers by which the verifier sees a rollback.

    Raises
    ------
    MalformedCollateralError
        A part does not say.
    """
    tcb_info, qe_identity = (collateral.statement(name) for name in ("tcb_info", "qe_identity"))
    return CollateralAge(
        tcb_info_issued=_issued(tcb_info),
        qe_identity_issued=_issued(qe_identity),
        tcb_eval_data_number=_evaluation(tcb_info),
        qe_eval_data_number=_evaluation(qe_identity),
        pck_crl_number=_crl_number(collateral.pck_crl),
        root_crl_number=_crl_number(collateral.root_ca_crl),
    )


def _issued(statement: dict[str, Any]) -> int:
    return int(parse_time(statement.get("issueDate"), what="issueDate").timestamp())


def _evaluation(statement: dict[str, Any]) -> int:
    number = statement.get("tcbEvaluationDataNumber")
    if isinstance(number, bool) or not isinstance(number, int):
        raise MalformedCollateralError("The collateral's tcbEvaluationDataNumber is not a number.")
    return number


def _crl_number(raw: bytes) -> int:
    try:
        extensions = x509.load_der_x509_crl(raw).extensions
        return extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0  # as the verifier takes it
    except ValueError:
        raise MalformedCollateralError("A revocation list cannot be read.") from None
