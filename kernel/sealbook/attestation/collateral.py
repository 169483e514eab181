"""Collateral: what the maker of the platform says about it, signed, and needed to judge a quote."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from cryptography import x509

from sealbook.attestation.pem import read_chain, write_chain
from sealbook.attestation.quote import Quote
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, RefusedError

if TYPE_CHECKING:
    import dcap_qvl


#: The whole document; Intel's has about 15 KiB.
MAX_COLLATERAL_BYTES = 4 * 1024 * 1024
_MAX_CHAIN_BYTES = 32 * 1024
_MAX_CRL_BYTES = 1024 * 1024
_MAX_STATEMENT_BYTES = 256 * 1024
_SIGNATURE_BYTES = 64
_CERTIFICATES_IN_CHAIN = 2
_LIMITS = {
    "pck_crl_issuer_chain": _MAX_CHAIN_BYTES,
    "root_ca_crl": _MAX_CRL_BYTES,
    "pck_crl": _MAX_CRL_BYTES,
    "tcb_info_issuer_chain": _MAX_CHAIN_BYTES,
    "tcb_info": _MAX_STATEMENT_BYTES,
    "tcb_info_signature": _SIGNATURE_BYTES,
    "qe_identity_issuer_chain": _MAX_CHAIN_BYTES,
    "qe_identity": _MAX_STATEMENT_BYTES,
    "qe_identity_signature": _SIGNATURE_BYTES,
    "pck_certificate_chain": _MAX_CHAIN_BYTES,
}
_BINARY = frozenset({"root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"})
_OPTIONAL = frozenset({"pck_certificate_chain"})


class MalformedCollateralError(RefusedError):
    """The collateral is not what it claims to be, before any signature is looked at."""


@dataclass(frozen=True)
class Collateral:
    """The nine parts of a DCAP collateral, version 3 (``sgx_ql_qve_collateral_t``).

    Attributes
    ----------
    pck_crl_issuer_chain, tcb_info_issuer_chain, qe_identity_issuer_chain
        PEM certificates: the signer and a root, nothing else.
    root_ca_crl, pck_crl
        DER certificate revocation lists.
    tcb_info, qe_identity
        The JSON text exactly as signed.
    tcb_info_signature, qe_identity_signature
        64 bytes, r || s over P-256.
    pck_certificate_chain
        Some services add the PCK chain. It is never used to verify: the quote carries its own.

    Raises
    ------
    MalformedCollateralError
        A part has another type or is longer than any genuine one.
    """

    pck_crl_issuer_chain: str
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: bytes
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: bytes
    pck_certificate_chain: str | None = None

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not isinstance(value, bytes if name in _BINARY else str):
                raise MalformedCollateralError(f"The collateral's {name} has the wrong type.")
            if len(value) > limit:
                raise MalformedCollateralError(
                    f"The collateral's {name} is longer than the {limit} bytes that are accepted."
                )

    def to_json(self) -> bytes:
        """Return the JSON form that dcap-qvl and Intel's tools read: binary parts in hex."""
        parts = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if value is not None:
                parts[part.name] = value.hex() if isinstance(value, bytes) else value
        return canonical_json(parts)

    @classmethod
    def from_json(cls, data: bytes | str) -> Collateral:
        """Read :meth:`to_json`'s form.

        Raises
        ------
        MalformedCollateralError
            Too long, not JSON, duplicate or unknown keys, a part missing or of the wrong kind.
        """
        try:
            parts = parse_json(data, what="The collateral", max_bytes=MAX_COLLATERAL_BYTES)
        except InputError as error:
            raise MalformedCollateralError(str(error)) from None
        if not isinstance(parts, dict):
            raise MalformedCollateralError("The collateral is not a JSON object.")
        unknown = sorted(set(parts) - set(_LIMITS))
        missing = sorted(set(_LIMITS) - _OPTIONAL - set(parts))
        if unknown:
            raise MalformedCollateralError(f"The collateral has an unknown part, {_shorten(unknown[0])!r}.")
        if missing:
            raise MalformedCollateralError(f"The collateral has no {missing[0]}.")
        return cls(**{name: _decode(name, value) for name, value in parts.items()})

    def statement(self, name: str) -> dict[str, Any]:
        """Return ``tcb_info`` or ``qe_identity`` parsed (unverified).

        Raises
        ------
        MalformedCollateralError
            Not a JSON object, duplicate keys, trailing text, nested too deep.
        """
        what = "The collateral's " + ("TCB info" if name == "tcb_info" else "QE identity")
        try:
            value = parse_json(getattr(self, name), what=what, max_bytes=_MAX_STATEMENT_BYTES)
        except InputError as error:
            raise MalformedCollateralError(str(error)) from None
        if not isinstance(value, dict):
            raise MalformedCollateralError(f"{what} is not a JSON object.")
        return value

    def issuer_chain(self, name: str) -> tuple[x509.Certificate, ...]:
        """Return the signer and the root of ``pck_crl``, ``tcb_info`` or ``qe_identity`` (unverified).

        Raises
        ------
        MalformedCollateralError
            The chain is not exactly two PEM certificates.
        """
        try:
            return read_chain(getattr(self, f"{name}_issuer_chain"), _CERTIFICATES_IN_CHAIN)
        except ValueError:
            raise MalformedCollateralError(
                f"The collateral's {name}_issuer_chain is not exactly two PEM certificates."
            ) from None

    def for_dcap_qvl(self) -> dcap_qvl.QuoteCollateralV3:
        """Return dcap-qvl's object.

        Without the PCK chain, so that only the quote's own is used, and with the other chains written
        anew from :meth:`issuer_chain`, so that dcap-qvl sees the certificates that our checks see.

        Raises
        ------
        MalformedCollateralError
            A chain cannot be read.
        """
        import dcap_qvl

        chains = {
            name: write_chain(self.issuer_chain(name)).decode()
            for name in ("pck_crl", "tcb_info", "qe_identity")
        }
        return dcap_qvl.QuoteCollateralV3(
            pck_crl_issuer_chain=chains["pck_crl"],
            root_ca_crl=self.root_ca_crl,
            pck_crl=self.pck_crl,
            tcb_info_issuer_chain=chains["tcb_info"],
            tcb_info=self.tcb_info,
            tcb_info_signature=self.tcb_info_signature,
            qe_identity_issuer_chain=chains["qe_identity"],
            qe_identity=self.qe_identity,
            qe_identity_signature=self.qe_identity_signature,
        )


class CollateralSource(Protocol):
    """Where collateral comes from: the simulated platform, or a service for genuine hardware.

    Which of them is :class:`sealbook.attestation.endorsements.EndorsementRouter`'s matter.
    """

    def collateral_for(self, quote: Quote) -> Collateral:
        """Return the collateral for the platform that made `quote`.

        Raises
        ------
        RefusedError
            This source has none for that platform.
        """
        ...


def parse_time(text: Any, *, what: str) -> datetime:
    """Parse a time of TCB info or QE identity, ``2025-06-19T10:56:11Z``.

    Raises
    ------
    MalformedCollateralError
        Anything else.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    except (TypeError, ValueError):
        raise MalformedCollateralError(f"{what} is not a time in UTC.") from None


def _decode(name: str, value: Any) -> Any:
    if value is None and name in _OPTIONAL:
        return None
    if not isinstance(value, str):
        raise MalformedCollateralError(f"The collateral's {name} is not a string.")
    if name not in _BINARY:
        return value
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise MalformedCollateralError(f"The collateral's {name} is not hexadecimal.") from None


def _shorten(text: str) -> str:
    return json.dumps(text[:40])[1:-1]
