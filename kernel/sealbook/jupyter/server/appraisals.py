"""The verdicts on running kernels' evidence that were made again, for pages and for exports."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealbook.attestation import AttestationResult, Collateral
from sealbook.attestation.chain_of_trust import Link, chain_of_trust
from sealbook.broker.session import AttestedSession

if TYPE_CHECKING:
    from sealbook.broker import Broker


@dataclass(frozen=True)
class Appraisal:
    """What judging a session's evidence once more gave.

    Attributes
    ----------
    collateral
        What the platform's maker says of it; None where no evidence is asked for.
    chain
        From the quote to the root.
    """

    result: AttestationResult
    collateral: Collateral | None
    chain: tuple[Link, ...]


class Appraisals:
    """Remembers the last appraisal of each session for as long as there is the session."""

    def __init__(self) -> None:
        self._last: weakref.WeakKeyDictionary[AttestedSession, Appraisal] = weakref.WeakKeyDictionary()

    def make(self, broker: Broker, session: AttestedSession) -> Appraisal:
        """Judge the evidence of `session` now; takes milliseconds, or as long as the collateral's service.

        Raises
        ------
        RefusedError
            The session has ended, or there is no collateral to be had.
        """
        result, collateral = broker.appraise(session)
        chain = chain_of_trust(
            session.evidence, collateral, session.policy, result, memory=broker.remembers_collateral
        )
        self._last[session] = appraisal = Appraisal(result, collateral, chain)
        return appraisal

    def last(self, session: AttestedSession) -> Appraisal | None:
        """Return what was found last, if anything was."""
        return self._last.get(session)
