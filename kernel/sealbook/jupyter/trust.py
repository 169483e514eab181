"""What is known of a kernel's trustworthiness, by the side that judged its evidence, at this moment.

Made for pages: one word, one sentence, and since when and until when they hold. A kernel has no say in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sealbook import session as sessions
from sealbook.attestation import AttestationRefusedError, Policy
from sealbook.attestation.result import Refusal
from sealbook.errors import SealbookError

if TYPE_CHECKING:
    from sealbook.broker import BrokerEndpoint
    from sealbook.broker.session import AttestedSession
    from sealbook.jupyter.provisioner import AttestedProvisioner

#: Beside AttestationResult.label: a kernel that has not been judged yet, and no kernel at all.
STARTING: Final = "starting"
NONE: Final = "none"

_ATTEST_AGAIN = "Attest again, or restart the kernel."


@dataclass(frozen=True)
class Staleness:
    """Why what was found does not count any more; two sentences."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class Trust:
    """What is known of one kernel.

    Attributes
    ----------
    state
        AttestationResult.label, :data:`STARTING` or :data:`NONE`.
    summary
        One line for a person.
    stale
        Why the state does not count any more; None while it does.
    evidence
        Id of the evidence; another one after each attestation. Empty where there is none.
    verified_at, fresh_until
        Aware times, or None: when it was judged, and until when that can count at most.
    refusals
        Every reason against the evidence.
    """

    state: str
    summary: str
    stale: Staleness | None = None
    evidence: str = ""
    verified_at: datetime | None = None
    fresh_until: datetime | None = None
    refusals: tuple[Refusal, ...] = ()

    def to_dict(self, kernel: str = "") -> dict[str, Any]:
        """Return a JSON-safe form.

        Parameters
        ----------
        kernel
            The id by which the server knows the kernel.
        """
        return {
            "state": self.state,
            "stale": None if self.stale is None else asdict(self.stale),
            "summary": self.summary,
            "kernel": kernel,
            "evidence": self.evidence,
            "verified_at": _iso(self.verified_at),
            "fresh_until": _iso(self.fresh_until),
            "refusals": [asdict(refusal) for refusal in self.refusals],
        }


NO_KERNEL: Final = Trust(NONE, "No kernel runs here.")

#: A kernel of another kind than ours, of which nobody has asked anything.
ORDINARY_KERNEL: Final = Trust(
    "not attested",
    f"This kernel is not attested: nothing vouches for what it runs; {sessions.HOW_TO_ATTEST}.",
)

_STARTING: Final = Trust(STARTING, "The kernel has not proved yet what it runs.")


def trust_in(provisioner: AttestedProvisioner, now: datetime) -> Trust:
    """Return what is known of the kernel that this provisioner runs; `now` is aware."""
    endpoint = provisioner.endpoint
    if endpoint is not None:
        return trust_of(endpoint, Path(provisioner.policy).expanduser(), now)
    return _STARTING if provisioner.refused is None else refused(provisioner.refused.error)


def trust_of(endpoint: BrokerEndpoint, policy_file: Path, now: datetime) -> Trust:
    """Return what is known of the kernel at the other end of a verified channel.

    Parameters
    ----------
    policy_file
        Where the policy was read that admitted the kernel: if it says something else now, what was found
        under it does not count.
    now
        Aware.
    """
    failed = endpoint.refusal
    if isinstance(failed, AttestationRefusedError):
        return refused(failed)
    session = endpoint.session
    stale = _staleness(session, policy_file, now)
    if failed is not None:  # not judged at all: what was found before is all there is, and may be over
        stale = Staleness(f"Attesting again did not succeed: {failed.one_line}", _ATTEST_AGAIN)
    return Trust(
        session.result.label,
        session.result.summary(),
        stale=stale,
        evidence=session.result.evidence_id,
        verified_at=session.result.verified_at,
        fresh_until=_fresh_until(session),
    )


def refused(error: SealbookError) -> Trust:
    """Return what is known of a kernel that was refused, or could not be started at all."""
    sentence = error.one_line
    if not isinstance(error, AttestationRefusedError):
        return Trust("refused", sentence)
    return Trust(
        "refused",
        sentence,
        evidence=error.result.evidence_id,
        verified_at=error.result.verified_at,
        refusals=error.result.refusals,
    )


def _fresh_until(session: AttestedSession) -> datetime:
    # The session's end is the collateral's, if that comes first.
    return min(session.expires_at, session.policy.expires)


def _staleness(session: AttestedSession, policy_file: Path, now: datetime) -> Staleness | None:
    expires = session.result.collateral_expires_at
    if expires is not None and now >= expires:
        return Staleness(
            f"What the platform's maker said of it was good until {_day(expires)}.", _ATTEST_AGAIN
        )
    if now >= session.expires_at:
        return Staleness(
            f"The policy '{session.policy.id}' lets one attestation count until {_day(session.expires_at)}.",
            _ATTEST_AGAIN,
        )
    try:
        session.policy.check_valid(now)
        present = Policy.load(policy_file)
    except SealbookError as error:
        return Staleness(str(error), "Mend the policy, then restart the kernel.")
    if present.digest != session.policy.digest:
        return Staleness(
            f"The policy '{session.policy.id}' was changed since this kernel was judged by it.",
            "Restart the kernel: it is judged by the present one then.",
        )
    return None


def _day(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()
