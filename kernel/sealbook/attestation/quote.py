"""The SGX DCAP quote, version 3: its fields and nothing accepted but exactly such a quote.

Layout (Intel, "SGX ECDSA Quote Library Reference DCAP API", appendix A.4; all integers little
endian)::

    header              48   version, attestation key type, TEE type, QE SVN, PCE SVN, vendor, user data
    enclave report     384   what the enclave is, and the 64 bytes it wanted to say (REPORTDATA)
    length               4   of everything that follows
    signature           64   by the attestation key, over header and enclave report
    attestation key     64   P-256 point x || y
    QE report          384   report of the quoting enclave; its REPORTDATA binds the attestation key
    QE signature        64   by the PCK, over the QE report
    QE auth data     2 + n   n is 32 in every quote of Intel's quoting enclave
    certification    6 + m   type 5: the PCK certificate chain in PEM

Nothing here is verified: :mod:`sealbook.attestation.verifier` does that.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography import x509

from sealbook.attestation.pem import is_chain, read_chain, write_chain
from sealbook.errors import RefusedError

if TYPE_CHECKING:
    import dcap_qvl


#: Longer input is refused unread. Real quotes have about 4,700 bytes.
MAX_QUOTE_BYTES = 16 * 1024
#: Header and enclave report: what the attestation key signs.
SIGNED_BYTES = 432
REPORT_BYTES = 384
REPORT_DATA_BYTES = 64
#: Intel's quoting enclave vendor id (same document, A.4, "QE Vendor ID").
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

_HEADER = struct.Struct("<HHIHH16s20s")
_FIXED_AUTH = struct.Struct("<64s64s384s64s")
_QE_AUTH_BYTES = 32
_CERTIFICATES_IN_CHAIN = 3


class MalformedQuoteError(RefusedError):
    """The bytes are not exactly one SGX quote of version 3."""


@dataclass(frozen=True)
class EnclaveReport:
    """The body of an SGX REPORT (Intel SDM vol. 3D, table 35-21).

    Attributes
    ----------
    cpu_svn
        16 bytes.
    attributes
        16 bytes: flags (8, little endian) and XFRM (8).
    mrenclave, mrsigner
        32 bytes each.
    config_id
        64 bytes; chosen by whoever starts an enclave with key separation and sharing (KSS).
    report_data
        64 bytes; chosen by the enclave.
    """

    cpu_svn: bytes
    misc_select: int
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    report_data: bytes

    _LAYOUT = struct.Struct("<16sI28s16s32s32s32s32s64sHHH58s64s")

    @classmethod
    def parse(cls, raw: bytes) -> EnclaveReport:
        """Split the 384 bytes of a report body."""
        if len(raw) != REPORT_BYTES:
            raise MalformedQuoteError(f"An enclave report has {REPORT_BYTES} bytes, this one has {len(raw)}.")
        (
            cpu_svn,
            misc_select,
            _,
            attributes,
            mrenclave,
            _,
            mrsigner,
            _,
            config_id,
            isv_prod_id,
            isv_svn,
            config_svn,
            _,
            report_data,
        ) = cls._LAYOUT.unpack(raw)
        return cls(
            cpu_svn=cpu_svn,
            misc_select=misc_select,
            attributes=attributes,
            mrenclave=mrenclave,
            mrsigner=mrsigner,
            config_id=config_id,
            isv_prod_id=isv_prod_id,
            isv_svn=isv_svn,
            config_svn=config_svn,
            report_data=report_data,
        )

    @property
    def initialized(self) -> bool:
        """ATTRIBUTES.INIT: EINIT has run, so MRENCLAVE is final."""
        return bool(self.attributes[0] & 0x01)

    @property
    def debug(self) -> bool:
        """ATTRIBUTES.DEBUG: the host can read and write the enclave's memory."""
        return bool(self.attributes[0] & 0x02)

    @property
    def mode64(self) -> bool:
        """ATTRIBUTES.MODE64BIT."""
        return bool(self.attributes[0] & 0x04)


@dataclass(frozen=True)
class Quote:
    """One SGX quote, split into its fields; make it with :meth:`parse`."""

    raw: bytes = field(repr=False)
    qe_svn: int
    pce_svn: int
    user_data: bytes
    report: EnclaveReport
    signature: bytes = field(repr=False)
    attestation_key: bytes = field(repr=False)
    qe_report: EnclaveReport
    qe_report_signature: bytes = field(repr=False)
    qe_auth_data: bytes = field(repr=False)
    certification_chain: bytes = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes) -> Quote:
        """Split `raw` into fields.

        Raises
        ------
        MalformedQuoteError
            Not bytes, too long, too short, anything after the end, another version, TEE,
            attestation key type, vendor or certification type, or a chain that is not
            exactly three PEM certificates.
        """
        if not isinstance(raw, bytes):
            raise MalformedQuoteError("A quote is a byte string.")
        if len(raw) > MAX_QUOTE_BYTES:
            raise MalformedQuoteError(
                f"The quote has {len(raw)} bytes, more than the {MAX_QUOTE_BYTES} that are accepted."
            )
        if len(raw) < SIGNED_BYTES + 4:
            raise MalformedQuoteError(f"The quote is cut off: it has only {len(raw)} bytes.")
        version, key_type, tee, qe_svn, pce_svn, vendor, user_data = _HEADER.unpack_from(raw)
        if version != 3:
            raise MalformedQuoteError(
                f"The quote has version {version}; SGX quotes of version 3 are accepted."
            )
        if key_type != 2:
            raise MalformedQuoteError(
                f"The quote's attestation key has type {key_type}; type 2 (ECDSA P-256) is accepted."
            )
        if tee != 0:
            raise MalformedQuoteError(f"The quote is of TEE type 0x{tee:x}; only SGX (0) is accepted.")
        if vendor != INTEL_QE_VENDOR:
            raise MalformedQuoteError("The quote was made by a quoting enclave of a vendor other than Intel.")
        report = EnclaveReport.parse(raw[_HEADER.size : SIGNED_BYTES])
        auth = _auth_data(raw)
        signature, attestation_key, qe_report, qe_signature = _FIXED_AUTH.unpack_from(auth)
        qe_auth, chain = _certification(auth)
        return cls(
            raw=raw,
            qe_svn=qe_svn,
            pce_svn=pce_svn,
            user_data=user_data,
            report=report,
            signature=signature,
            attestation_key=attestation_key,
            qe_report=EnclaveReport.parse(qe_report),
            qe_report_signature=qe_signature,
            qe_auth_data=qe_auth,
            certification_chain=chain,
        )

    @property
    def identity(self) -> str:
        """SHA-256 of the signed part, hex.

        The whole quote has no usable hash: white space in the PEM chain and the copy of the
        root certificate are not signed, so one piece of evidence has many encodings.
        """
        return hashlib.sha256(self.raw[:SIGNED_BYTES]).hexdigest()

    @cached_property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """PCK certificate, its CA and a root certificate, as the quote carries them (unverified).

        Raises
        ------
        MalformedQuoteError
            One of them is not an X.509 certificate.
        """
        try:
            return read_chain(self.certification_chain, _CERTIFICATES_IN_CHAIN)
        except ValueError:
            raise MalformedQuoteError("The quote's certificate chain cannot be read.") from None

    @cached_property
    def pck(self) -> dcap_qvl.PckExtension:
        """Intel's SGX extension of the PCK certificate: PPID, FMSPC, PCE id (unverified).

        Raises
        ------
        MalformedQuoteError
            The chain cannot be read, or the certificate has no such extension.
        """
        # Here and not at the top: only who verifies needs it, and a kernel's start would wait for it.
        import dcap_qvl

        try:
            return dcap_qvl.parse_pck_extension_from_pem(write_chain(self.certificates))
        except ValueError:
            raise MalformedQuoteError(
                "The quote's PCK certificate has no SGX extension, so it names no platform."
            ) from None

    def for_dcap_qvl(self) -> bytes:
        """Return the quote with its chain written anew from :attr:`certificates`.

        So dcap-qvl verifies the certificates that our checks look at. The chain is not signed.

        Raises
        ------
        MalformedQuoteError
            The chain cannot be read.
        """
        chain = write_chain(self.certificates)
        auth = self.raw[SIGNED_BYTES + 4 : -(len(self.certification_chain) + 4)]
        auth += struct.pack("<I", len(chain)) + chain
        return self.raw[:SIGNED_BYTES] + struct.pack("<I", len(auth)) + auth

    @property
    def fmspc(self) -> str:
        """Family-model-stepping-platform-custom SKU, 12 lower-case hex digits: names the collateral."""
        return bytes(self.pck.fmspc).hex()


def _auth_data(raw: bytes) -> bytes:
    (declared,) = struct.unpack_from("<I", raw, SIGNED_BYTES)
    auth = raw[SIGNED_BYTES + 4 :]
    if len(auth) < declared:
        raise MalformedQuoteError(
            f"The quote is cut off: {declared - len(auth)} bytes are missing at its end."
        )
    if len(auth) > declared:
        raise MalformedQuoteError(f"The quote has {len(auth) - declared} bytes after its end.")
    if len(auth) < _FIXED_AUTH.size + 2 + _QE_AUTH_BYTES + 6:
        raise MalformedQuoteError("The quote's signature section is too short.")
    return auth


def _certification(auth: bytes) -> tuple[bytes, bytes]:
    offset = _FIXED_AUTH.size
    (qe_auth_length,) = struct.unpack_from("<H", auth, offset)
    if qe_auth_length != _QE_AUTH_BYTES:
        raise MalformedQuoteError(
            f"The quoting enclave's authentication data has {qe_auth_length} bytes, not {_QE_AUTH_BYTES}."
        )
    offset += 2
    qe_auth = auth[offset : offset + qe_auth_length]
    offset += qe_auth_length
    kind, length = struct.unpack_from("<HI", auth, offset)
    chain = auth[offset + 6 :]
    if kind != 5:
        raise MalformedQuoteError(
            f"The quote's certification data has type {kind}; type 5 (PCK certificate chain) is accepted."
        )
    if length != len(chain):
        raise MalformedQuoteError("The length of the quote's certificate chain does not match its content.")
    if not is_chain(chain, _CERTIFICATES_IN_CHAIN):
        raise MalformedQuoteError("The quote's certificate chain is not exactly three PEM certificates.")
    return qe_auth, chain
