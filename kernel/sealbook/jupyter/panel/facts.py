"""What the panel shows: the verdict of the side that verified, and until when it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sealbook.attestation import AttestationResult
from sealbook.errors import SealbookError
from sealbook.session import HOW_TO_ATTEST, Session


@dataclass(frozen=True)
class PanelFacts:
    """All that a panel says, at one moment.

    Attributes
    ----------
    written_at
        That moment; aware.
    result
        The verdict; None where nothing was ever verified.
    fresh_until
        When the verdict ends by itself; None where nobody said.
    chain, channel
        As in :class:`sealbook.broker.Appraisal`.
    failure
        Why the last attempt to attest anew failed; empty where it did not.
    note
        A sentence about what could not be found out.
    """

    written_at: datetime
    result: AttestationResult | None = None
    fresh_until: datetime | None = None
    chain: tuple[Mapping[str, Any], ...] = ()
    channel: Mapping[str, Any] | None = None
    failure: str = ""
    note: str = ""

    @classmethod
    def ask(cls, session: Session) -> PanelFacts:
        """Ask the side that verified; never raises. An expired session attests anew."""
        facts = cls(datetime.now(UTC), session.result)
        if facts.result is None:
            return replace(facts, note=f"Nothing vouches for what this kernel runs; {HOW_TO_ATTEST}.")
        return facts._asked(session, renew=True) if facts.result.accepted else facts

    def after(self, session: Session, failure: str) -> PanelFacts:
        """Return the facts after an attempt to attest anew, which failed if there is a `failure`.

        What was known before stays where there is nothing newer: also that it has expired.
        """
        facts = replace(self, written_at=datetime.now(UTC), failure=failure, note="")
        if not failure:
            facts = replace(facts, result=session.result)
        return facts if facts.result is None else facts._asked(session, renew=False)

    def _asked(self, session: Session, *, renew: bool) -> PanelFacts:
        try:
            appraisal = session.appraisal(renew=renew)
        except SealbookError as error:
            return replace(self, note=f"What is said here was not verified again just now: {error}")
        if appraisal is None:
            return self
        return replace(
            self,
            # Not the time of asking: the verdict may be of a later one.
            written_at=datetime.now(UTC),
            result=appraisal.result,
            fresh_until=appraisal.expires,
            chain=appraisal.chain,
            channel=appraisal.channel,
        )

    @property
    def state(self) -> str:
        """``attested``, ``simulated``, ``not attested`` or ``refused``."""
        if self.result is None:
            return "not attested"
        # An attempt that was refused outweighs the verdict before it.
        return "refused" if self.failure else self.result.label

    @property
    def stale(self) -> str:
        """Why the verdict does not count any more, a sentence; empty while it does."""
        if self.fresh_until is None or self.written_at < self.fresh_until:
            return ""
        return (
            f"The verdict ended at {self.fresh_until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, and nothing "
            "after that is known. Attest again."
        )

    def now(self) -> PanelFacts:
        """Return the same facts, written now: what has expired since is stale."""
        return replace(self, written_at=datetime.now(UTC))
