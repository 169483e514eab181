"""What is shown of each link of the chain of trust: read from untrusted bytes, and nothing verified here."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from sealbook.attestation import chain_places as places
from sealbook.attestation.collateral import Collateral
from sealbook.attestation.policy import Policy
from sealbook.attestation.quote import Quote

#: Longest value; a name in a certificate may be as long as its maker likes.
MAX_FACT = 200

Fact = tuple[str, str]


def facts_of(quote: Quote | None, collateral: Collateral | None, policy: Policy) -> Mapping[str, list[Fact]]:
    """Return (name, value) pairs of each link; of what cannot be read there are none.

    Parameters
    ----------
    quote
        None where the evidence is none.
    """
    readers: dict[str, Callable[[], Iterator[Fact]]] = {places.POLICY: lambda: _policy(policy)}
    if quote is not None:
        readers |= {
            places.QUOTE: lambda: _quote(quote),
            places.QUOTING_ENCLAVE: lambda: _quoting_enclave(quote),
            places.PCK: lambda: _pck(quote),
            places.PCK_CA: lambda: _certificate(quote.certificates[1]),
            places.ROOT: lambda: _certificate(quote.certificates[2]),
        }
    if collateral is not None:
        readers |= {
            places.TCB_INFO: lambda: _tcb_info(collateral),
            places.QE_IDENTITY: lambda: _qe_identity(collateral),
            places.TCB_SIGNER: lambda: _certificate(collateral.issuer_chain("tcb_info")[0]),
            places.REVOCATION_LISTS: lambda: _revocation_lists(collateral),
        }
    return {link: _read(reader) for link, reader in readers.items()}


def _read(reader: Callable[[], Iterator[Fact]]) -> list[Fact]:
    found: list[Fact] = []
    # Whatever libraries make of forged input: the checks say what is wrong with it.
    with contextlib.suppress(Exception):
        for name, value in reader():
            found.append((name, value if len(value) <= MAX_FACT else value[:MAX_FACT] + "..."))
    return found


def _quote(quote: Quote) -> Iterator[Fact]:
    report = quote.report
    yield "Measurement (MRENCLAVE)", report.mrenclave.hex()
    yield "Signer (MRSIGNER)", report.mrsigner.hex()
    yield "Product id", str(report.isv_prod_id)
    yield "Security version", str(report.isv_svn)
    yield "Debug", "yes" if report.debug else "no"
    yield "Report data", report.report_data.hex()


def _quoting_enclave(quote: Quote) -> Iterator[Fact]:
    report = quote.qe_report
    yield "Measurement (MRENCLAVE)", report.mrenclave.hex()
    yield "Signer (MRSIGNER)", report.mrsigner.hex()
    yield "Security version", str(report.isv_svn)
    yield "Attestation key (SHA-256)", hashlib.sha256(quote.attestation_key).hexdigest()
    yield "Its report binds", report.report_data[:32].hex()


def _pck(quote: Quote) -> Iterator[Fact]:
    yield from _certificate(quote.certificates[0])
    yield "Processor (FMSPC)", quote.fmspc
    yield "Machine (PPID)", bytes(quote.pck.ppid).hex()


def _certificate(certificate: x509.Certificate) -> Iterator[Fact]:
    yield "Subject", _name(certificate.subject)
    yield "Issued by", _name(certificate.issuer)
    yield (
        "Valid",
        f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}",
    )
    yield "Serial number", f"{certificate.serial_number:x}"
    yield "Fingerprint (SHA-256)", hashlib.sha256(_der(certificate)).hexdigest()


def _tcb_info(collateral: Collateral) -> Iterator[Fact]:
    statement = collateral.statement("tcb_info")
    yield "Processor (FMSPC)", str(statement["fmspc"]).lower()
    yield from _dates(statement)
    yield "Levels", str(len(statement["tcbLevels"]))


def _qe_identity(collateral: Collateral) -> Iterator[Fact]:
    statement = collateral.statement("qe_identity")
    yield "Signer (MRSIGNER)", str(statement["mrsigner"]).lower()
    yield "Product id", str(statement["isvprodid"])
    yield from _dates(statement)


def _dates(statement: Mapping[str, Any]) -> Iterator[Fact]:
    yield "Issued", str(statement["issueDate"])
    yield "Next update", str(statement["nextUpdate"])
    yield "TCB evaluation", str(statement["tcbEvaluationDataNumber"])


def _revocation_lists(collateral: Collateral) -> Iterator[Fact]:
    for what, raw in (("Root list", collateral.root_ca_crl), ("PCK list", collateral.pck_crl)):
        listed = x509.load_der_x509_crl(raw)
        until = listed.next_update_utc
        ends = f" to {until:%Y-%m-%d}" if until else ""
        yield what, f"{len(listed)} withdrawn, in force from {listed.last_update_utc:%Y-%m-%d}{ends}"


def _policy(policy: Policy) -> Iterator[Fact]:
    yield "Id", policy.id
    yield "Digest", policy.digest
    yield "In force", f"{_day(policy.created)} to {_day(policy.expires)}"
    if policy.attested:
        yield "Root", policy.trust_root.fingerprint
        yield "Admits", ", ".join(identity.name for identity in policy.identities)
    else:
        yield "Admits", f"kernels of {policy.tee}, which are not attested"


def _day(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d}"


def _name(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(common[0].value) if len(common) == 1 else name.rfc4514_string()


def _der(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)
