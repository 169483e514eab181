"""What a kernel hands in that cannot attest itself: a statement in place of a quote, which proves nothing.

Gramine without SGX (``gramine-direct``) runs the kernel as an ordinary process: no hardware measures it and
nothing can sign for it. So that it is never mistaken for more, it says so itself, in canonical JSON
(:mod:`sealbook.encoding`)::

    {"report_data": 64 bytes in hex, "tee": "gramine-direct", "type": "not attested"}

Whoever can reach the registration address can write such a statement. The report data is compared all the
same: it ties the statement to this start and its channel, so that two kernels are not mixed up by mistake.

No bytes are both: a statement begins with ``{``, a quote with its version 3 in two bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from sealbook.attestation.attester import check_report_data
from sealbook.attestation.policy import GRAMINE_DIRECT, UNATTESTED_TEES
from sealbook.attestation.quote import REPORT_DATA_BYTES
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, RefusedError

#: Longer input is refused unread; a statement has about 200 bytes.
MAX_STATEMENT_BYTES = 1024
#: What such a statement says of itself.
KIND = "not attested"


class MalformedStatementError(RefusedError):
    """The bytes are not exactly one statement of a kernel that is not attested."""


@dataclass(frozen=True)
class UnattestedStatement:
    """A kernel's word that it is not attested; make it from untrusted bytes with :meth:`parse`.

    Attributes
    ----------
    tee
        What runs the kernel, one of :data:`~sealbook.attestation.policy.UNATTESTED_TEES`.
    report_data
        The 64 bytes that a quote would carry.
    """

    tee: str
    report_data: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return the one encoding of this statement."""
        return canonical_json({"type": KIND, "tee": self.tee, "report_data": self.report_data.hex()})

    @property
    def identity(self) -> str:
        """SHA-256 of the encoding, hex: names it in results and in the audit log."""
        return hashlib.sha256(self.encode()).hexdigest()

    @classmethod
    def parse(cls, raw: bytes) -> UnattestedStatement:
        """Read a statement.

        Raises
        ------
        MalformedStatementError
            Not bytes, too long, not JSON, another field, kind or environment, report data of another
            length, or any encoding but the canonical one.
        """
        if not isinstance(raw, bytes):
            raise MalformedStatementError("A statement of a kernel that is not attested is a byte string.")
        try:
            fields: Any = parse_json(
                raw, what="The statement of the kernel that is not attested", max_bytes=MAX_STATEMENT_BYTES
            )
        except InputError as error:
            raise MalformedStatementError(str(error)) from None
        statement = _read(fields)
        # One statement has one encoding, and so one name in the audit log.
        if statement is None or statement.encode() != raw:
            raise MalformedStatementError(
                "The statement of the kernel that is not attested is not one that this version knows."
            )
        return statement


class UnattestedAttester:
    """The attester of a kernel that has none: states that the kernel is not attested.

    Parameters
    ----------
    tee
        What runs the kernel, one of :data:`~sealbook.attestation.policy.UNATTESTED_TEES`.
    """

    #: It imitates no hardware, it makes no evidence at all. Whether something was proven stands in the
    #: verifier's result (:attr:`~sealbook.attestation.result.AttestationResult.attested`), never here.
    simulated = False

    def __init__(self, tee: str = GRAMINE_DIRECT) -> None:
        if tee not in UNATTESTED_TEES:
            raise ValueError(f"{tee!r} is no environment without attestation")
        self.tee = tee

    def quote(self, report_data: bytes) -> bytes:
        """Return, in place of a quote, the statement that there is none.

        Raises
        ------
        ValueError
            `report_data` has another length than 64 bytes.
        """
        return UnattestedStatement(self.tee, check_report_data(report_data)).encode()


def is_statement(evidence: object) -> bool:
    """Tell whether bytes claim to be such a statement; nothing that does can be a quote."""
    return isinstance(evidence, bytes) and evidence[:1] == b"{"


def _read(fields: Any) -> UnattestedStatement | None:
    """Return what the fields amount to. Further fields and another type show when it is encoded again."""
    if not isinstance(fields, dict):
        return None
    tee, text = fields.get("tee"), fields.get("report_data")
    if tee not in UNATTESTED_TEES or not isinstance(text, str):
        return None
    try:
        report_data = bytes.fromhex(text)
    except ValueError:
        return None
    return UnattestedStatement(tee, report_data) if len(report_data) == REPORT_DATA_BYTES else None
