"""One file with all that a verdict rests on, so that somebody else can reach it again, offline.

Canonical JSON (:mod:`sealbook.encoding`), nothing in it secret::

    {"format": "sealbook-evidence/1",
     "evidence": base64, "collateral": {...} or null,      a quote, or the statement that there is none
     "policy": TOML text,
     "role", "audience", "nonce": hex, "claims": {name: base64}, "report_data": hex,
     "result": {...},                                       AttestationResult.to_dict
     "digest": SHA-256 of the canonical JSON of all other fields, hex}

What such a file proves is what its signatures prove. The digest shows damage, and no more: whoever makes the
file writes it, as he writes the policy and the time. So the reader must know the policy's root and admit its
measurements, or judge by a policy of his own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from sealbook.attestation.collateral import MAX_COLLATERAL_BYTES, Collateral, MalformedCollateralError
from sealbook.attestation.policy import MAX_POLICY_BYTES, Policy
from sealbook.attestation.policy_writer import write_policy
from sealbook.attestation.quote import MAX_QUOTE_BYTES
from sealbook.attestation.report_data import report_data
from sealbook.attestation.result import AttestationResult
from sealbook.attestation.unattested import is_statement
from sealbook.attestation.verifier import Verifier
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError

#: Names the format and its version.
FORMAT: Final = "sealbook-evidence/1"
#: The type under which a server hands it out.
MEDIA_TYPE: Final = "application/vnd.sealbook.evidence+json"
#: Longer input is refused unread; one of genuine hardware has about 40 KiB.
MAX_EVIDENCE_FILE_BYTES: Final = MAX_COLLATERAL_BYTES + MAX_POLICY_BYTES + 512 * 1024

_FIELDS: Final = frozenset(
    {
        "format",
        "evidence",
        "collateral",
        "policy",
        "role",
        "audience",
        "nonce",
        "claims",
        "report_data",
        "result",
        "digest",
    }
)
_MAX_TEXT: Final = 1024
_MAX_CLAIMS: Final = 64
_MAX_CLAIM_BYTES: Final = 64 * 1024
_WHAT: Final = "The evidence file"


@dataclass(frozen=True)
class EvidenceVerdict:
    """What became of an evidence file that was verified again.

    Attributes
    ----------
    result
        The verdict now.
    binds
        Whether role, audience, nonce and claims give the report data that the file states.
    same_result
        Whether the result in the file is the one that its own policy gives at the time it states.
    problems
        A sentence for everything that speaks against the file beside the refusals in `result`.
    """

    result: AttestationResult
    binds: bool
    same_result: bool
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether the policy admits the evidence and the file is right about it."""
        return self.result.accepted and not self.problems


@dataclass(frozen=True)
class EvidenceFile:
    """Evidence with all that it was judged by.

    Attributes
    ----------
    evidence
        A quote, or the statement of a kernel that is not attested.
    collateral
        What its platform was judged by; None where there is no quote.
    policy
        What it was judged by.
    report_data, role, audience, nonce, claims
        What the evidence had to bind, and of what that was made.
    result
        The verdict.
    """

    evidence: bytes = field(repr=False)
    collateral: Collateral | None = field(repr=False)
    policy: Policy = field(repr=False)
    report_data: bytes = field(repr=False)
    role: str
    audience: str
    nonce: bytes = field(repr=False)
    claims: Mapping[str, bytes] = field(repr=False)
    result: AttestationResult

    def to_json(self) -> bytes:
        """Return the file's content.

        Raises
        ------
        InputError
            A part is longer than a reader accepts, or the policy has no text.
        """
        content = {
            "format": FORMAT,
            "evidence": base64.b64encode(self.evidence).decode(),
            "collateral": None if self.collateral is None else _collateral_fields(self.collateral),
            "policy": write_policy(self.policy),
            "role": self.role,
            "audience": self.audience,
            "nonce": self.nonce.hex(),
            "claims": {name: base64.b64encode(value).decode() for name, value in self.claims.items()},
            "report_data": self.report_data.hex(),
            "result": self.result.to_dict(),
        }
        data = canonical_json(content | {"digest": _digest(content)})
        # What cannot be read again is no evidence.
        self.from_json(data)
        return data

    @classmethod
    def from_json(cls, data: bytes) -> EvidenceFile:
        """Read :meth:`to_json`'s form; verifies nothing but the digest.

        Raises
        ------
        InputError
            Too long, not canonical JSON, an unknown or missing field, a value of the wrong kind, or another
            digest: it was damaged or edited.
        """
        content = parse_json(data, what=_WHAT, max_bytes=MAX_EVIDENCE_FILE_BYTES)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{_WHAT} is not of the format {FORMAT}, the one that this version reads.")
        if odd := sorted(set(content) ^ _FIELDS):
            raise InputError(f"{_WHAT} lacks the field {odd[0][:40]!r}, or has it and should not.")
        digest = _text(content, "digest")
        try:
            right = _digest({name: value for name, value in content.items() if name != "digest"})
            canonical = canonical_json(content) == data
        except TypeError:  # a float
            raise InputError(f"{_WHAT} is not canonical JSON.") from None
        if not canonical or not hmac.compare_digest(digest.encode(), right.encode()):
            raise InputError(f"{_WHAT} was damaged or edited after it was made; ask for it again.")
        claims = content["claims"]
        if not isinstance(claims, dict) or len(claims) > _MAX_CLAIMS:
            raise InputError(f"{_WHAT} has no table of claims, or more than {_MAX_CLAIMS}.")
        if not isinstance(content["result"], dict):
            raise InputError(f"{_WHAT} has no result.")
        return cls(
            evidence=_base64(content["evidence"], "evidence", MAX_QUOTE_BYTES),
            collateral=_collateral(content["collateral"]),
            policy=Policy.parse(_text(content, "policy", MAX_POLICY_BYTES), source="the policy in the file"),
            report_data=_hex(content, "report_data", 64),
            role=_text(content, "role"),
            audience=_text(content, "audience"),
            nonce=_hex(content, "nonce", 32),
            claims=MappingProxyType(
                {name: _base64(value, "claims", _MAX_CLAIM_BYTES) for name, value in claims.items()}
            ),
            result=AttestationResult.from_dict(content["result"]),
        )

    def verify(self, *, policy: Policy | None = None, at: datetime | None = None) -> EvidenceVerdict:
        """Reach the verdict again, from the file alone.

        Parameters
        ----------
        policy
            Default: the one in the file, whose author is whoever made the file.
        at
            Aware. Default: the time that the file states, which is its word too.
        """
        expected = self._expected()
        repeated = self._judge(self.policy, self.result.verified_at, expected)
        judged = repeated
        if policy is not None or at is not None:
            judged = self._judge(policy or self.policy, at or self.result.verified_at, expected)
        binds = hmac.compare_digest(expected, self.report_data)
        same = repeated == self.result
        return EvidenceVerdict(judged, binds, same, tuple(self._problems(binds=binds, same=same)))

    def _expected(self) -> bytes:
        try:
            return report_data(role=self.role, audience=self.audience, nonce=self.nonce, claims=self.claims)
        except ValueError as error:
            raise InputError(f"{_WHAT} states what no evidence can bind ({error}).") from None

    def _judge(self, policy: Policy, now: datetime, expected: bytes) -> AttestationResult:
        if self.collateral is None and policy.attested and not is_statement(self.evidence):
            raise InputError(f"{_WHAT} has a quote and no collateral to judge its platform by.")
        return Verifier(policy).verify(self.evidence, self.collateral, now=now, expected_report_data=expected)

    def _problems(self, *, binds: bool, same: bool) -> list[str]:
        problems = []
        if not binds:
            problems.append(
                "Role, audience, nonce and claims of the file do not give the report data it states."
            )
        if not same:
            problems.append("The result in the file is not the one that its evidence, policy and time give.")
        if self.result.verified_at > datetime.now(UTC):
            problems.append("The file states a verdict of a time that has not come yet.")
        return problems


def is_evidence_file(data: bytes) -> bool:
    """Tell whether bytes are meant to be an evidence file, whatever their version."""
    return data[:1] == b"{" and re.search(rb'"format"\s*:\s*"sealbook-evidence/', data) is not None


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(dict(content))).hexdigest()


def _collateral_fields(collateral: Collateral) -> dict[str, Any]:
    fields: dict[str, Any] = parse_json(
        collateral.to_json(), what="The collateral", max_bytes=MAX_COLLATERAL_BYTES
    )
    return fields


def _collateral(fields: Any) -> Collateral | None:
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise InputError(f"{_WHAT} has no collateral.")
    try:
        return Collateral.from_json(canonical_json(fields))
    except MalformedCollateralError as error:
        raise InputError(str(error)) from None


def _text(content: Mapping[str, Any], name: str, limit: int = _MAX_TEXT) -> str:
    value = content[name]
    if not isinstance(value, str) or len(value) > limit:
        raise InputError(f"The evidence file's {name} is not text of at most {limit} characters.")
    return value


def _hex(content: Mapping[str, Any], name: str, size: int) -> bytes:
    value = content[name]
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", value):
        raise InputError(f"The evidence file's {name} is not {2 * size} hexadecimal digits.")
    return bytes.fromhex(value)


def _base64(value: Any, name: str, limit: int) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * limit:
        raise InputError(f"The evidence file's {name} is not base64 of at most {limit} bytes.")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"The evidence file's {name} is not base64.") from None
    if len(data) > limit or base64.b64encode(data).decode() != value:
        raise InputError(f"The evidence file's {name} is not base64 of at most {limit} bytes.")
    return data
