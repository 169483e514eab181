"""The four documents of Intel's API, version 4, put together as one collateral.

"Intel SGX and Intel TDX services: API documentation", version 4 of the PCS for SGX; a PCCS answers the same,
and has the root's revocation list besides, which Intel serves elsewhere::

    GET tcb?fmspc=00A067110000           {"tcbInfo": ..., "signature": hex}, header TCB-Info-Issuer-Chain
    GET qe/identity                      {"enclaveIdentity": ..., "signature": hex}, header SGX-Enclave-...
    GET pckcrl?ca=platform&encoding=der  DER, in a PCCS also hex of it, header SGX-PCK-CRL-Issuer-Chain
    GET rootcacrl                        hex of DER (PCCS only)
"""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealbook.attestation.collateral import Collateral, MalformedCollateralError
from sealbook.attestation.intel import ROOT_CA_DER
from sealbook.attestation.pccs.settings import PccsService
from sealbook.attestation.pccs.transport import Answer, ServiceError, Transport
from sealbook.encoding import parse_json
from sealbook.errors import InputError

#: Body of a signed statement and of a revocation list; a list in hex takes twice its size.
_MAX_STATEMENT_BYTES = 300 * 1024
_MAX_CRL_BYTES = 2 * 1024 * 1024 + 1024
_SPACE = re.compile(r"[ \t\r\n]*")
_HEX = re.compile(rb'\s*"?[0-9a-fA-F]+"?\s*')


def fetch_collateral(
    service: PccsService,
    *,
    fmspc: str,
    authority: str,
    seconds: float,
    root_crl_url: str | None = None,
) -> Collateral:
    """Fetch the collateral of one kind of processor.

    Parameters
    ----------
    fmspc
        12 hex digits.
    authority
        Whose revocation list: "processor" or "platform".
    seconds
        For everything together.
    root_crl_url
        Where the root's revocation list is if the service has none. Default: where Intel's root
        certificate says, which is pinned; never where the evidence says.

    Returns
    -------
    Collateral
        Bounded in size and made of the right kinds of parts; no signature has been looked at.

    Raises
    ------
    ServiceError
        The service gave no usable answer.
    InputError
        The certificate authority that is configured cannot be read.
    """
    transport = Transport(seconds=seconds, ca=service.ca)

    def get(what: str, limit: int) -> Answer:
        return transport.get(service.url + what, max_bytes=limit)

    try:
        tcb = get(f"tcb?fmspc={fmspc.upper()}", _MAX_STATEMENT_BYTES)
    except ServiceError as error:
        if error.status != 404:
            raise
        raise ServiceError(
            f"knows no processor of the FMSPC {fmspc.upper()} (status 404)",
            remedy="register the platform with it",
            status=404,
        ) from None
    identity = get("qe/identity", _MAX_STATEMENT_BYTES)
    pck_crl = get(f"pckcrl?ca={authority}&encoding=der", _MAX_CRL_BYTES)
    try:
        root_crl = get("rootcacrl", _MAX_CRL_BYTES)
    except ServiceError as error:
        if error.status != 404:
            raise
        # Intel's own service: a machine of Intel's, whose certificate the system vouches for.
        elsewhere = Transport(seconds=transport.seconds_left)
        root_crl = elsewhere.get(root_crl_url or distribution_point(), max_bytes=_MAX_CRL_BYTES)
    tcb_info, tcb_signature = _statement(tcb, "tcbInfo", "TCB info")
    qe_identity, qe_signature = _statement(identity, "enclaveIdentity", "QE identity")
    try:
        return Collateral(
            pck_crl_issuer_chain=_chain(pck_crl, "SGX-PCK-CRL-Issuer-Chain"),
            root_ca_crl=_crl(root_crl, "root"),
            pck_crl=_crl(pck_crl, "PCK"),
            tcb_info_issuer_chain=_chain(tcb, "TCB-Info-Issuer-Chain"),
            tcb_info=tcb_info,
            tcb_info_signature=tcb_signature,
            qe_identity_issuer_chain=_chain(identity, "SGX-Enclave-Identity-Issuer-Chain"),
            qe_identity=qe_identity,
            qe_identity_signature=qe_signature,
        )
    except MalformedCollateralError as error:
        raise ServiceError(f"sends collateral that cannot be read ({str(error).rstrip('.')})") from None


def probe(service: PccsService, *, seconds: float) -> None:
    """Ask for the smallest document, to see whether the service answers.

    Raises
    ------
    ServiceError
        It does not.
    InputError
        The certificate authority that is configured cannot be read.
    """
    transport = Transport(seconds=seconds, ca=service.ca)
    answer = transport.get(service.url + "qe/identity", max_bytes=_MAX_STATEMENT_BYTES)
    _statement(answer, "enclaveIdentity", "QE identity")


def distribution_point() -> str:
    """Return where Intel publishes its root's revocation list: what its root certificate says."""
    root = x509.load_der_x509_certificate(ROOT_CA_DER)
    points = root.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    names = points[0].full_name
    assert names, "the pinned certificate names one"  # noqa: S101
    return str(names[0].value)


def _statement(answer: Answer, member: str, what: str) -> tuple[str, bytes]:
    """Return the text that was signed, to the byte as it was sent, and the signature."""
    try:
        text = answer.body.decode("utf-8")
        # Refuses what parsers disagree about: duplicate keys, trailing text, deep nesting.
        document = parse_json(text, what=what, max_bytes=_MAX_STATEMENT_BYTES)
        members = _members(text) if isinstance(document, dict) else {}
        signature = bytes.fromhex(document["signature"])
        return members[member], signature
    except (InputError, KeyError, ValueError, TypeError):
        raise ServiceError(f"sends a {what} that is none") from None


def _members(text: str) -> dict[str, str]:
    """Return the members of a JSON object with their values' text; `text` is valid JSON."""
    decoder = json.JSONDecoder()
    members: dict[str, str] = {}
    at = _after_space(text, _after_space(text, 0) + 1)
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        start = _after_space(text, _after_space(text, at) + 1)
        _, end = decoder.raw_decode(text, start)
        members[name] = text[start:end]
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return members


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _chain(answer: Answer, header: str) -> str:
    value = answer.headers.get(header.lower())
    if value is None:
        raise ServiceError(f"sends no header {header}, so it does not speak version 4 of the API")
    # What is no ASCII now is no PEM either, which Collateral.issuer_chain says.
    return unquote(value)


def _crl(answer: Answer, what: str) -> bytes:
    """Return a revocation list in DER; services send DER, hex of it, or PEM."""
    body = answer.body
    try:
        if body.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_crl(body).public_bytes(Encoding.DER)
        der = bytes.fromhex(body.decode().strip().strip('"')) if _HEX.fullmatch(body) else body
        x509.load_der_x509_crl(der)
        return der
    except ValueError:
        raise ServiceError(f"sends a {what} revocation list that is none") from None
