"""Which check of the verifier judges which link of the chain of trust.

Names of checks are the verifier's own (:attr:`sealbook.attestation.result.Refusal.check`); a test compares
this table with all that stand in the sources, so that a check without a place here cannot be added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

QUOTE: Final = "Quote"
QUOTING_ENCLAVE: Final = "Quoting enclave"
PCK: Final = "PCK certificate"
PCK_CA: Final = "PCK CA"
ROOT: Final = "Root"
TCB_INFO: Final = "TCB info"
QE_IDENTITY: Final = "QE identity"
TCB_SIGNER: Final = "TCB signer"
REVOCATION_LISTS: Final = "Revocation lists"
POLICY: Final = "Policy"

#: Every link with what it is. Up to the root they follow from each other; the others join from the side.
LINKS: Final[tuple[tuple[str, str], ...]] = (
    (QUOTE, "What the enclave is and what it wanted to say, as the processor reported it."),
    (QUOTING_ENCLAVE, "The maker's own enclave on that machine, which signed the report."),
    (PCK, "The certificate of this one machine, which vouches for its quoting enclave."),
    (PCK_CA, "The authority of the maker that certifies machines."),
    (ROOT, "The maker's root certificate, where the policy's trust begins."),
    (TCB_INFO, "The maker's list of how safe each state of such machines is."),
    (QE_IDENTITY, "The maker's description of its genuine quoting enclave."),
    (TCB_SIGNER, "The maker's certificate under which TCB info and QE identity are signed."),
    (REVOCATION_LISTS, "The certificates that the maker has withdrawn."),
    (POLICY, "What the reader of the evidence asks for."),
)
SIDE: Final = frozenset({TCB_INFO, QE_IDENTITY, TCB_SIGNER, REVOCATION_LISTS, POLICY})


@dataclass(frozen=True)
class Place:
    """A check on a link.

    Attributes
    ----------
    check
        The verifier's name of it.
    title
        What is checked, a sentence.
    needs
        What must have been reached for the check to have run: see
        :mod:`sealbook.attestation.chain_of_trust`.
    by
        The function of :mod:`sealbook.attestation.checks` it belongs to, where a failure of the whole
        function has a name of its own.
    words
        A pattern of the refusals that concern this link, where several links have a check of one name. A
        refusal that fits none of them counts against all.
    only_refused
        It says something only when it refuses, so it is not drawn otherwise.
    """

    link: str
    check: str
    title: str
    needs: frozenset[str]
    by: str = ""
    words: str = ""
    only_refused: bool = False


def _place(link: str, check: str, title: str, needs: str, by: str = "", words: str = "") -> Place:
    return Place(link, check, title, frozenset(needs.split()), by, words)


def _failed(link: str, check: str, title: str) -> Place:
    return Place(link, check, title, frozenset(), only_refused=True)


_IN_TIME = "The certificate is within its time."
_NOT_REVOKED = "The certificate is on no revocation list."

#: In the order in which they are drawn.
PLACES: Final[tuple[Place, ...]] = (
    _place(QUOTE, "quote-format", "It is exactly one SGX quote of version 3.", "parsed"),
    _failed(QUOTE, "evidence-format", "What was handed in can be read."),
    _failed(QUOTE, "internal", "The appraisal ran to its end."),
    _place(QUOTE, "signature", "The attestation key signed exactly these bytes.", "claims"),
    _place(QUOTE, "measurement", "The policy knows this code, by its measurement or its signer.", "judged"),
    _place(QUOTE, "identity", "Signer, product and version are as the policy asks.", "judged known"),
    _place(QUOTE, "attributes", "It is an initialised 64-bit production enclave.", "judged"),
    _place(QUOTE, "debug", "It does not run in debug mode, where the host reads its memory.", "judged"),
    _place(
        QUOTE, "report-data", "Its 64 bytes of report data bind this challenge and channel.", "judged bound"
    ),
    _failed(QUOTE, "verification", "Nothing else in the evidence is wrong."),
    _place(
        QUOTING_ENCLAVE,
        "qe-binding",
        "Its report binds the key that signed the quote.",
        "judged claims",
    ),
    _place(QUOTING_ENCLAVE, "qe-signature", "Its report is signed with the machine's PCK.", "claims"),
    _place(QUOTING_ENCLAVE, "quoting-enclave", "It is the one that the QE identity describes.", "claims"),
    _place(
        PCK,
        "pck-role",
        "It is a PCK certificate, which names a machine, and no other.",
        "certificates",
        "chains",
    ),
    _place(PCK, "certificate-time", _IN_TIME, "certificates", "chains", r"PCK Certificate'"),
    _place(PCK, "revoked", _NOT_REVOKED, "certificates claims", "chains", r"PCK Certificate'"),
    _place(PCK, "pck-copy", "The collateral's copy of it is the quote's own.", "certificates copy", "chains"),
    _place(PCK, "platform", "The machine is of a kind that the policy admits.", "claims"),
    _place(PCK, "platform-denied", "The machine is on no deny list of the policy.", "claims"),
    _place(
        PCK_CA,
        "pck-issuer",
        "It is a PCK certificate authority, and issued the PCK.",
        "certificates",
        "chains",
    ),
    _place(PCK_CA, "pck-chain", "PCK, authority and root follow from each other.", "certificates", "chains"),
    _place(PCK_CA, "chain", "Every signature from the PCK to the root is good.", "claims"),
    _place(PCK_CA, "certificate-time", _IN_TIME, "certificates", "chains", r"PCK (Processor|Platform) CA'"),
    _place(PCK_CA, "revoked", _NOT_REVOKED, "certificates claims", "chains", r"PCK (Processor|Platform) CA'"),
    _failed(PCK_CA, "chains", "The certificates can be examined."),
    _place(ROOT, "trust-root", "It is the root that the policy pins.", "certificates", "root"),
    _place(ROOT, "certificate-time", _IN_TIME, "certificates", "chains", r"Root CA'"),
    _place(ROOT, "revoked", _NOT_REVOKED, "certificates claims", "chains", r"Root CA'"),
    _failed(ROOT, "root", "The root can be examined."),
    _place(TCB_INFO, "collateral-format", "TCB info and QE identity are unambiguous JSON.", "evaluated"),
    _place(TCB_INFO, "collateral-signature", "It is as its maker signed it.", "claims", "", r"(?i)tcb_?info"),
    _place(TCB_INFO, "collateral-time", "It is in its time.", "claims", "chains", r"TCBInfo"),
    _place(TCB_INFO, "tcb-info", "It is a statement about SGX platforms.", "claims"),
    _place(TCB_INFO, "fmspc", "It is about this kind of processor.", "claims"),
    _place(
        TCB_INFO, "pce-id", "It is about this machine's provisioning certification enclave.", "judged", "pce"
    ),
    _failed(TCB_INFO, "pce", "The machine's provisioning certification enclave can be read."),
    _place(TCB_INFO, "tcb-level", "One of its levels fits the machine.", "claims"),
    _place(TCB_INFO, "revoked", "That level is not revoked.", "claims", "", r"TCB (status|level) is"),
    _place(
        TCB_INFO, "tcb-status", "The status of machine and quoting enclave is allowed.", "claims", "status"
    ),
    _place(TCB_INFO, "tcb-grace", "An allowed old status is within the grace period.", "claims", "status"),
    _failed(TCB_INFO, "status", "The status can be examined."),
    _place(TCB_INFO, "advisory", "Every advisory that applies is accepted by name.", "claims", "advisories"),
    _failed(TCB_INFO, "advisories", "The advisories can be examined."),
    _place(
        TCB_INFO,
        "tcb-evaluation",
        "It is of one evaluation with the QE identity, and new enough.",
        "claims",
        "evaluation",
    ),
    _failed(TCB_INFO, "evaluation", "The evaluation can be examined."),
    _place(TCB_INFO, "collateral-age", "It and the QE identity are as recent as asked.", "judged"),
    _place(
        TCB_INFO,
        "collateral-rollback",
        "It is not older than what was seen before.",
        "claims memory",
        "rollback",
    ),
    _failed(TCB_INFO, "rollback", "What was seen before is known."),
    _failed(TCB_INFO, "dcap-policy", "The platform meets the policy."),
    _place(
        QE_IDENTITY, "collateral-signature", "It is as its maker signed it.", "claims", "", r"(?i)identity"
    ),
    _place(QE_IDENTITY, "collateral-time", "It is in its time.", "claims", "chains", r"QE Identity"),
    _place(
        TCB_SIGNER, "tcb-signer", "It may sign such statements, and leads to the root.", "judged", "chains"
    ),
    _place(TCB_SIGNER, "certificate-time", _IN_TIME, "signers", "chains", r"TCB Signing'"),
    _place(TCB_SIGNER, "revoked", _NOT_REVOKED, "signers claims", "chains", r"TCB Signing'"),
    _place(
        REVOCATION_LISTS, "crl-issuer", "They are of the quote's own authority.", "certificates", "chains"
    ),
    _place(REVOCATION_LISTS, "revocation-list", "They are there, and signed.", "claims"),
    _place(
        REVOCATION_LISTS,
        "collateral-time",
        "They are in their time.",
        "claims",
        "chains",
        r"revocation list|C(rl|RL)",
    ),
    _place(POLICY, "policy", "It is in force.", "asked"),
    _failed(POLICY, "tee", "It admits evidence of this kind."),
    _failed(POLICY, "not-attested", "It admits a kernel that is not attested."),
)
