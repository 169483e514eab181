"""Everything that a page shows about one kernel, as JSON.

The shapes are those that ``extension/src/api.ts`` declares.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sealbook.attestation import AttestationResult
from sealbook.attestation.chain_of_trust import Link
from sealbook.attestation.meanings import described_claims, meaning_of_advisory, meaning_of_status
from sealbook.broker import UNGUARDED
from sealbook.broker.session import AttestedSession
from sealbook.jupyter.magics.arguments import printable

Entry = Mapping[str, Any]

#: Entries of one kind in one answer, the newest: a kernel may report as much as it likes.
_MOST: Final = 200

#: What a page has no use for: the chain of hashes is checked by `sealbook audit verify`, and the status is
#: AR4SI's, for programs; it calls all that is simulated contraindicated.
_UNSEEN = frozenset({"previous", "hash", "channel", "session", "status"})


def identity(result: AttestationResult) -> dict[str, Any] | None:
    """Return what runs, and what admits it (empty where it was refused); None where nothing was measured."""
    if not result.mrenclave:
        return None
    return {
        "mrenclave": result.mrenclave,
        "mrsigner": result.mrsigner,
        "isv_prod_id": result.isv_prod_id,
        "isv_svn": result.isv_svn,
        "entry": result.identity,
        "policy": result.policy_id,
        "policy_digest": result.policy_digest,
        "root": result.root,
        "root_fingerprint": result.root_fingerprint,
    }


def platform(result: AttestationResult) -> dict[str, Any] | None:
    """Return what its maker says of the machine; None where nobody vouches for one."""
    if not result.tcb_status:
        return None
    facts = result.platform
    return {
        "tcb_status": result.tcb_status,
        "meaning": meaning_of_status(result.tcb_status),
        "advisories": [{"id": name, "meaning": meaning_of_advisory(name)} for name in result.advisories],
        "fmspc": facts.fmspc,
        "tcb_date": facts.tcb_date.isoformat() if facts.tcb_date else None,
        "collateral_expires_at": (
            result.collateral_expires_at.isoformat() if result.collateral_expires_at else None
        ),
    }


def chain(links: Iterable[Link]) -> list[dict[str, Any]]:
    """Return the chain of trust, from the quote to the root."""
    # Of evidence that was refused, the names in the certificates are anybody's.
    return [_plain(link.to_dict()) for link in links]


def channel(session: AttestedSession) -> dict[str, Any]:
    """Return what the evidence binds: which keys, and whose they are."""
    return {
        "role": session.role,
        "audience": session.audience,
        "bound": session.result.bound,
        "report_data": session.report_data.hex(),
        "claims": described_claims(session.claims),
    }


def keys(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the keys that the kernel asked for, and why it got them or did not."""
    return [
        {
            "time": entry["time"],
            "key": printable(entry.get("key", "")),
            "version": entry.get("version"),
            "purpose": entry.get("purpose", ""),
            "decision": entry["decision"],
            "why": _why(entry),
        }
        for entry in _newest(entry for entry in entries if entry["event"] == "release")
    ]


def artifacts(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the sealed files that the kernel says it read or wrote."""
    return [
        {
            "time": entry["time"],
            "action": entry["action"],
            "path": printable(entry["facts"].get("path", "")),
            "key": printable(entry["facts"].get("key", "")),
            "size": entry["facts"].get("size"),
        }
        for entry in _newest(
            entry for entry in entries if entry["event"] == "artifact" and entry["action"] != "scaled"
        )
    ]


def audit(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the audit log's entries as they are shown."""
    return [
        {name: _plain(value) for name, value in entry.items() if name not in _UNSEEN}
        for entry in _newest(entries)
    ]


def _plain(value: Any) -> Any:
    """Return `value` without characters that forge what a page shows: controls, changes of direction."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _newest(entries: Iterable[Entry]) -> Iterable[Entry]:
    return deque(entries, maxlen=_MOST)


def _why(entry: Entry) -> str:
    if entry["decision"] != "released":
        return printable(" ".join(entry.get("reasons", ()))) or "Refused."
    if entry.get("guard") == UNGUARDED:
        return "The key needs no attestation."
    guard = entry.get("guard", "")
    if not entry.get("attested"):
        return f"The policy '{guard}' gives the key to kernels that are not attested."
    kind = "simulated enclave" if entry.get("simulated") else "enclave"
    measured = str(entry.get("measurement", ""))[:16]
    return f"The policy '{guard}' admits this {kind} (measurement {measured}...)."
