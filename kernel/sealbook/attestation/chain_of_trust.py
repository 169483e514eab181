"""The chain of trust of one piece of evidence, drawn for a person: links from the quote to the root.

It judges nothing. What is said to have passed follows from the verifier's result: a check passed if the
verifier got as far as running it and did not refuse by its name. Where it did not get there, or where the
result does not tell, `passed` is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sealbook.attestation.chain_facts import facts_of
from sealbook.attestation.chain_places import LINKS, PLACES, QUOTE, SIDE, Place
from sealbook.attestation.collateral import Collateral
from sealbook.attestation.policy import Policy
from sealbook.attestation.quote import Quote
from sealbook.attestation.result import AttestationResult, Refusal
from sealbook.attestation.unattested import is_statement
from sealbook.errors import RefusedError

#: Why a check was not reached, by what is missing; the first that is missing counts.
_NOT_REACHED = {
    "result": "The result is about other evidence, or another policy.",
    "parsed": "The evidence could not be read.",
    "evaluated": "The collateral could not be read, or the appraisal ended before.",
    "asked": "The appraisal ended before.",
    "judged": "The appraisal ended before.",
    "known": "The policy does not know the code.",
    "certificates": "The quote's certificates could not be read.",
    "signers": "The signer's certificates could not be read.",
    "claims": "The verification of the signatures ended before, at what was refused.",
    "bound": "There was no report data to compare it with.",
    "memory": "Not told here: it depends on what the verifier had seen before.",
    "function": "It could not be examined.",
}
#: Longest reason shown.
_MAX_REASON = 600


@dataclass(frozen=True)
class LinkCheck:
    """One check on one link.

    Attributes
    ----------
    name
        The verifier's name of the check.
    title
        What is checked, a sentence.
    passed
        None where the verifier did not get there.
    reason
        Why not; empty where it passed.
    """

    name: str
    title: str
    passed: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Link:
    """One link of the chain.

    Attributes
    ----------
    facts
        (name, value) pairs, read from the evidence: untrusted text, at most 200 characters a value.
    side
        Whether it joins the chain from the side, as TCB info does.
    """

    name: str
    title: str
    facts: tuple[tuple[str, str], ...]
    checks: tuple[LinkCheck, ...]
    side: bool = False

    @property
    def passed(self) -> bool | None:
        """False where a check refused; None where one was not reached; else True."""
        found = {check.passed for check in self.checks}
        return False if False in found else None if None in found or not found else True

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe form."""
        return {
            "name": self.name,
            "title": self.title,
            "facts": [list(fact) for fact in self.facts],
            "checks": [
                {"name": each.name, "title": each.title, "passed": each.passed, "reason": each.reason}
                for each in self.checks
            ],
            "side": self.side,
        }


def chain_of_trust(
    evidence: bytes,
    collateral: Collateral | None,
    policy: Policy,
    result: AttestationResult,
    *,
    memory: bool = False,
) -> tuple[Link, ...]:
    """Return the links from the quote to the root, then those that join from the side.

    Parameters
    ----------
    evidence, collateral, policy
        What was verified, untrusted; never raises because of it.
    result
        What the verifier said of exactly that. Where it visibly belongs to other evidence or another policy,
        no check counts as passed.
    memory
        Whether the verifier had a :class:`~sealbook.attestation.collateral_memory.CollateralMemory`.

    Returns
    -------
    tuple of Link
        Empty for the statement of a kernel that is not attested: there is nothing to draw.
    """
    if is_statement(evidence):
        return ()
    quote = _parsed(evidence)
    given = _by_name(result.refusals)
    reached = _reached(quote, collateral, policy, result, memory=memory)
    facts = facts_of(quote, collateral, policy)
    return tuple(
        Link(
            name,
            title,
            tuple(facts.get(name, ())),
            tuple(_checks(name, given, reached, collateral)),
            side=name in SIDE,
        )
        for name, title in LINKS
    )


def _checks(
    link: str, given: Mapping[str, list[Refusal]], reached: frozenset[str], collateral: Collateral | None
) -> Iterable[LinkCheck]:
    for place in PLACES:
        if place.link != link:
            continue
        against = _against(place, given.get(place.check, []))
        if against:
            reason = " ".join(refusal.reason for refusal in against)
            yield LinkCheck(place.check, place.title, False, reason[:_MAX_REASON])
            continue
        if place.only_refused or ("copy" in place.needs and not _has_copy(collateral)):
            continue
        yield _not_refused(place, given, reached)
    if link == QUOTE:
        known = {place.check for place in PLACES}
        for name, refusals in given.items():
            if name not in known:  # nothing that was refused is left out of the drawing
                reason = " ".join(refusal.reason for refusal in refusals)
                yield LinkCheck(name, "The verifier found nothing else wrong.", False, reason[:_MAX_REASON])


def _not_refused(place: Place, given: Mapping[str, list[Refusal]], reached: frozenset[str]) -> LinkCheck:
    missing = (place.needs - {"copy"}) - reached
    if "result" not in reached:
        missing = frozenset({"result"})
    elif place.by and place.by in given:
        # The function that makes this check ended in an error of its own name, perhaps before this one.
        missing |= {"function"}
    if not missing:
        return LinkCheck(place.check, place.title, True)
    why = next(sentence for need, sentence in _NOT_REACHED.items() if need in missing)
    return LinkCheck(place.check, place.title, None, why)


def _against(place: Place, refusals: list[Refusal]) -> list[Refusal]:
    """Return the refusals of this name that concern this link."""
    rivals = [
        other.words
        for other in PLACES
        if other.check == place.check and other.words and other.words != place.words
    ]
    found = []
    for refusal in refusals:
        mine = bool(place.words) and re.search(place.words, refusal.reason) is not None
        theirs = any(re.search(words, refusal.reason) for words in rivals)
        # What no link recognises counts against all of them: a failure is never left out.
        if mine or not theirs:
            found.append(refusal)
    return found


def _reached(
    quote: Quote | None,
    collateral: Collateral | None,
    policy: Policy,
    result: AttestationResult,
    *,
    memory: bool,
) -> frozenset[str]:
    """Return how far the verifier got; see its ``verify`` for the steps."""
    names = {refusal.check for refusal in result.refusals}
    # Under a policy that wants no quote, the result does not name one either.
    identity = quote.identity if quote is not None and policy.attested else ""
    if result.policy_digest != policy.digest or result.evidence_id != identity:
        return frozenset()
    reached = {"result"}
    if quote is None:
        return frozenset(reached)
    reached.add("parsed")
    if names & {"internal", "evidence-format", "quote-format"}:
        return frozenset(reached)
    if not policy.attested:
        return frozenset(reached | {"asked"})
    if "collateral-format" in names or collateral is None:
        return frozenset(reached)
    reached |= {"evaluated", "judged", "asked"}
    if "measurement" not in names:
        reached.add("known")
    if _readable(lambda: quote.certificates):
        reached.add("certificates")
    if _readable(lambda: (collateral.issuer_chain("tcb_info"), collateral.issuer_chain("qe_identity"))):
        reached.add("signers")
    if result.tcb_status:
        reached.add("claims")
    if result.bound:
        reached.add("bound")
    if memory and policy.collateral.monotonic:
        reached.add("memory")
    return frozenset(reached)


def _readable(read: Any) -> bool:
    try:
        read()
    except Exception:  # whatever libraries make of forged input
        return False
    return True


def _parsed(evidence: bytes) -> Quote | None:
    try:
        return Quote.parse(evidence)
    except RefusedError:
        return None


def _has_copy(collateral: Collateral | None) -> bool:
    return collateral is not None and collateral.pck_certificate_chain is not None


def _by_name(refusals: Iterable[Refusal]) -> dict[str, list[Refusal]]:
    found: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        found.setdefault(refusal.check, []).append(refusal)
    return found
