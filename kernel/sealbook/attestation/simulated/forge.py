"""Makes every part of a SIMULATED platform's evidence, right by default and forgeable in each field.

:class:`~sealbook.attestation.simulated.platform.SimulatedPlatform` uses it with the defaults; tests
and the teaching notebook change one part at a time to see what refuses it. With it one can forge
only under a simulated root: there is no key of Intel's here.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from sealbook.attestation.collateral import Collateral
from sealbook.attestation.quote import INTEL_QE_VENDOR
from sealbook.attestation.simulated.sgx_extension import OID, SgxExtensionSpec

ORGANIZATION = "SIMULATED - not Intel"
ROOT_NAME = "SIMULATED SGX Root CA"
PCK_CA_NAME = "SIMULATED SGX PCK Processor CA"
PCK_NAME = "SIMULATED SGX PCK Certificate"
TCB_SIGNER_NAME = "SIMULATED SGX TCB Signing"
QE_SIGNER = hashlib.sha256(b"SIMULATED quoting enclave signer").digest()
#: Flags INIT and MODE64BIT; XFRM of x87, SSE, AVX, AVX-512.
ENCLAVE_ATTRIBUTES = bytes([0x05]) + bytes(7) + bytes([0xE7]) + bytes(7)
#: The same and PROVISIONKEY, which quoting enclaves have.
QE_ATTRIBUTES = bytes([0x15]) + bytes(7) + bytes([0xE7]) + bytes(7)
_CRL_URL = "https://simulated.invalid/crl"  # RFC 2606: resolves nowhere

_Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class ReportSpec:
    """An enclave report to be made; lengths as in :class:`~sealbook.attestation.quote.EnclaveReport`."""

    mrenclave: bytes = bytes(32)
    mrsigner: bytes = bytes(32)
    report_data: bytes = bytes(64)
    isv_prod_id: int = 0
    isv_svn: int = 0
    attributes: bytes = ENCLAVE_ATTRIBUTES
    cpu_svn: bytes = bytes([11, 11, 2, 2, 255, 1]) + bytes(10)
    misc_select: int = 0
    config_id: bytes = bytes(64)
    config_svn: int = 0

    def to_bytes(self) -> bytes:
        """Return the 384 bytes."""
        return struct.pack(
            "<16sI28x16s32s32x32s32x64sHHH58x64s",
            self.cpu_svn,
            self.misc_select,
            self.attributes,
            self.mrenclave,
            self.mrsigner,
            self.config_id,
            self.isv_prod_id,
            self.isv_svn,
            self.config_svn,
            self.report_data,
        )


@dataclass(frozen=True)
class QuoteSpec:
    """Everything in a quote besides the enclave report; None means: the right value.

    Attributes
    ----------
    qe_report_data
        64 bytes; right is SHA-256(attestation key || auth data) and 32 zero bytes.
    chain
        The certification data; right is the PEM chain of PCK, PCK CA and root, and a NUL.
    trailing
        Appended after the quote's end.
    """

    version: int = 3
    key_type: int = 2
    tee_type: int = 0
    vendor: bytes = INTEL_QE_VENDOR
    qe: ReportSpec = ReportSpec(
        mrenclave=hashlib.sha256(b"SIMULATED quoting enclave").digest(),
        mrsigner=QE_SIGNER,
        isv_prod_id=1,
        isv_svn=10,
        attributes=QE_ATTRIBUTES,
    )
    qe_report_data: bytes | None = None
    qe_auth_data: bytes = bytes(range(32))
    certification_type: int = 5
    chain: bytes | None = None
    signing_key: _Key | None = field(default=None, repr=False)
    pck_key: _Key | None = field(default=None, repr=False)
    trailing: bytes = b""


@dataclass(frozen=True)
class CertificateSpec:
    """A certificate to be made.

    Attributes
    ----------
    sgx
        The SGX extension of a PCK, or None.
    days
        Of validity, counted from one day before `now`.
    """

    name: str
    now: datetime
    days: float = 3650
    authority: bool = False
    path_length: int | None = None
    sgx: SgxExtensionSpec | None = None
    serial: int | None = None

    def issue(self, key: _Key, *, issuer: str, issuer_key: _Key) -> x509.Certificate:
        """Sign the certificate for `key` with `issuer_key`."""
        start = self.now.astimezone(UTC).replace(microsecond=0) - timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_x509_name(self.name))
            .issuer_name(_x509_name(issuer))
            .public_key(key.public_key())
            .serial_number(self.serial or x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=self.days))
            .add_extension(x509.BasicConstraints(self.authority, self.path_length), critical=True)
            .add_extension(_key_usage(authority=self.authority), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
            )
            .add_extension(_crl_distribution_point(), critical=False)
        )
        if self.sgx is not None:
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(OID), self.sgx.der())
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(issuer_key, hashes.SHA256())


@dataclass
class Forge:
    """A whole simulated platform in memory; every attribute may be replaced before a quote is made.

    Make it with :meth:`create`. Keys are in the object: use it for tests and lessons.
    """

    now: datetime
    root_key: _Key = field(repr=False)
    pck_ca_key: _Key = field(repr=False)
    tcb_signer_key: _Key = field(repr=False)
    pck_key: _Key = field(repr=False)
    attestation_key: _Key = field(repr=False)
    root: x509.Certificate
    pck_ca: x509.Certificate
    tcb_signer: x509.Certificate
    pck: x509.Certificate
    root_crl: bytes
    pck_crl: bytes
    tcb_info: dict[str, Any]
    qe_identity: dict[str, Any]
    sgx: SgxExtensionSpec = field(default_factory=SgxExtensionSpec)
    root_name: str = ROOT_NAME
    pck_ca_name: str = PCK_CA_NAME

    @classmethod
    def create(
        cls,
        now: datetime,
        *,
        sgx: SgxExtensionSpec | None = None,
        root_name: str = ROOT_NAME,
        pck_ca_name: str = PCK_CA_NAME,
        pck_name: str = PCK_NAME,
        tcb_signer_name: str = TCB_SIGNER_NAME,
        keys: dict[str, _Key] | None = None,
        issued: datetime | None = None,
        validity: timedelta = timedelta(days=30),
    ) -> Forge:
        """Make keys (those not given), certificates, revocation lists and statements.

        Parameters
        ----------
        now
            Aware; certificates are valid from a day before.
        keys
            Of ``root``, ``pck_ca``, ``tcb_signer``, ``pck``, ``attestation``.
        issued
            When collateral is issued; an hour before `now` by default.
        validity
            Of the collateral.
        """
        given = keys or {}
        root_key, pck_ca_key, tcb_key, pck_key, attestation_key = (
            given.get(name) or new_key() for name in ("root", "pck_ca", "tcb_signer", "pck", "attestation")
        )
        sgx = sgx or SgxExtensionSpec()
        root = CertificateSpec(root_name, now, days=7300, authority=True, path_length=1).issue(
            root_key, issuer=root_name, issuer_key=root_key
        )
        pck_ca = CertificateSpec(pck_ca_name, now, authority=True, path_length=0).issue(
            pck_ca_key, issuer=root_name, issuer_key=root_key
        )
        tcb_signer = CertificateSpec(tcb_signer_name, now).issue(
            tcb_key, issuer=root_name, issuer_key=root_key
        )
        pck = CertificateSpec(pck_name, now, sgx=sgx).issue(
            pck_key, issuer=pck_ca_name, issuer_key=pck_ca_key
        )
        forge = cls(
            now=now,
            root_key=root_key,
            pck_ca_key=pck_ca_key,
            tcb_signer_key=tcb_key,
            pck_key=pck_key,
            attestation_key=attestation_key,
            root=root,
            pck_ca=pck_ca,
            tcb_signer=tcb_signer,
            pck=pck,
            root_crl=b"",
            pck_crl=b"",
            tcb_info={},
            qe_identity={},
            sgx=sgx,
            root_name=root_name,
            pck_ca_name=pck_ca_name,
        )
        forge.issue_collateral(issued=issued, validity=validity)
        return forge

    def issue_collateral(
        self, *, issued: datetime | None = None, validity: timedelta = timedelta(days=30)
    ) -> None:
        """Make fresh revocation lists and statements; CRL numbers are the issue time, so they only grow."""
        issued = (issued or self.now - timedelta(hours=1)).astimezone(UTC).replace(microsecond=0)
        until = issued + validity
        number = int(issued.timestamp())
        self.root_crl = self.make_crl(
            self.root_name, self.root_key, issued=issued, until=until, number=number
        )
        self.pck_crl = self.make_crl(
            self.pck_ca_name, self.pck_ca_key, issued=issued, until=until, number=number
        )
        dates = {"issueDate": _time(issued), "nextUpdate": _time(until)}
        self.tcb_info = {
            "id": "SGX",
            "version": 3,
            **dates,
            "fmspc": self.sgx.fmspc.hex().upper(),
            "pceId": self.sgx.pce_id.hex().upper(),
            "tcbType": 0,
            "tcbEvaluationDataNumber": 17,
            "tcbLevels": [tcb_level(self.sgx.cpu_svn, self.sgx.pce_svn)],
        }
        self.qe_identity = {
            "id": "QE",
            "version": 2,
            **dates,
            "tcbEvaluationDataNumber": 17,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": QE_SIGNER.hex().upper(),
            "isvprodid": 1,
            "tcbLevels": [{"tcb": {"isvsvn": 8}, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": "UpToDate"}],
        }

    def make_crl(
        self,
        issuer: str,
        key: _Key,
        *,
        revoked: Iterable[int] = (),
        issued: datetime | None = None,
        until: datetime | None = None,
        number: int = 1,
    ) -> bytes:
        """Return a DER revocation list of these serial numbers."""
        issued = (issued or self.now - timedelta(hours=1)).astimezone(UTC).replace(microsecond=0)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_x509_name(issuer))
            .last_update(issued)
            .next_update(until or issued + timedelta(days=30))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
            )
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(issued).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def collateral(self, **changes: Any) -> Collateral:
        """Return the collateral, signed; `changes` replace finished parts (after signing)."""
        tcb_info, qe_identity = _compact(self.tcb_info), _compact(self.qe_identity)
        chain = pem(self.tcb_signer, self.root).decode()
        collateral = Collateral(
            pck_crl_issuer_chain=pem(self.pck_ca, self.root).decode(),
            root_ca_crl=self.root_crl,
            pck_crl=self.pck_crl,
            tcb_info_issuer_chain=chain,
            tcb_info=tcb_info,
            tcb_info_signature=sign(self.tcb_signer_key, tcb_info.encode()),
            qe_identity_issuer_chain=chain,
            qe_identity=qe_identity,
            qe_identity_signature=sign(self.tcb_signer_key, qe_identity.encode()),
        )
        return replace(collateral, **changes)

    def quote(self, report: ReportSpec, spec: QuoteSpec | None = None) -> bytes:
        """Return a quote over `report`; `spec` changes any other part of it before signing."""
        spec = spec or QuoteSpec()
        key = spec.signing_key or self.attestation_key
        header = struct.pack(
            "<HHIHH16s20s", spec.version, spec.key_type, spec.tee_type, 10, 15, spec.vendor, bytes(20)
        )
        signed = header + report.to_bytes()
        public = public_point(key)
        binding = spec.qe_report_data
        if binding is None:
            binding = hashlib.sha256(public + spec.qe_auth_data).digest() + bytes(32)
        qe = replace(spec.qe, report_data=binding).to_bytes()
        chain = spec.chain if spec.chain is not None else pem(self.pck, self.pck_ca, self.root) + b"\0"
        auth = b"".join(
            (
                sign(key, signed),
                public,
                qe,
                sign(spec.pck_key or self.pck_key, qe),
                struct.pack("<H", len(spec.qe_auth_data)),
                spec.qe_auth_data,
                struct.pack("<HI", spec.certification_type, len(chain)),
                chain,
            )
        )
        return signed + struct.pack("<I", len(auth)) + auth + spec.trailing


def tcb_level(
    cpu_svn: bytes,
    pce_svn: int,
    *,
    status: str = "UpToDate",
    advisories: Iterable[str] = (),
    date: str = "2024-03-13T00:00:00Z",
) -> dict[str, Any]:
    """Return one level of a TCB info."""
    level: dict[str, Any] = {
        "tcb": {"sgxtcbcomponents": [{"svn": svn} for svn in cpu_svn], "pcesvn": pce_svn},
        "tcbDate": date,
        "tcbStatus": status,
    }
    if advisories := list(advisories):
        level["advisoryIDs"] = advisories
    return level


def new_key() -> _Key:
    """Return a fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def sign(key: _Key, data: bytes) -> bytes:
    """Return ECDSA-SHA-256 as r || s, 64 bytes, big endian."""
    r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public_point(key: _Key) -> bytes:
    """Return the public key as x || y, 64 bytes, big endian."""
    return key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )[1:]


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates in PEM, one after the other."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def _x509_name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, ORGANIZATION),
        ]
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=not authority,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _crl_distribution_point() -> x509.CRLDistributionPoints:
    return x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier(_CRL_URL)], None, None, None)]
    )


def _compact(statement: dict[str, Any]) -> str:
    return json.dumps(statement, separators=(",", ":"))


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
