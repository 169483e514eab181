"""Evidence and its appraisal: quotes, collateral, policies, results. Knows neither sealing nor Jupyter.

Start reading at :mod:`.verifier` (how a quote is judged) and :mod:`.policy` (by what).
"""

from __future__ import annotations

from sealbook.attestation.attester import Attester
from sealbook.attestation.collateral import Collateral, CollateralSource, MalformedCollateralError
from sealbook.attestation.collateral_memory import CollateralMemory, CollateralMemoryError
from sealbook.attestation.freshness import NonceLedger, Nonces, StaleNonceError
from sealbook.attestation.gramine import GramineAttester, mount_key, open_attester, set_mount_key
from sealbook.attestation.policy import GRAMINE_DIRECT, UNATTESTED_TEES, Policy, PolicyError
from sealbook.attestation.policy_text import policy_text
from sealbook.attestation.quote import EnclaveReport, MalformedQuoteError, Quote
from sealbook.attestation.report_data import ROLE_KERNEL, report_data
from sealbook.attestation.result import (
    AttestationRefusedError,
    AttestationResult,
    PlatformFacts,
    Refusal,
    TrustVector,
)
from sealbook.attestation.simulated.measurement import Measurement, measure, settle_bytecode
from sealbook.attestation.simulated.platform import SimulatedAttester, SimulatedPlatform
from sealbook.attestation.unattested import (
    MalformedStatementError,
    UnattestedAttester,
    UnattestedStatement,
    is_statement,
)
from sealbook.attestation.verifier import Verifier

__all__ = [
    "GRAMINE_DIRECT",
    "ROLE_KERNEL",
    "UNATTESTED_TEES",
    "AttestationRefusedError",
    "AttestationResult",
    "Attester",
    "Collateral",
    "CollateralMemory",
    "CollateralMemoryError",
    "CollateralSource",
    "EnclaveReport",
    "GramineAttester",
    "MalformedCollateralError",
    "MalformedQuoteError",
    "MalformedStatementError",
    "Measurement",
    "NonceLedger",
    "Nonces",
    "PlatformFacts",
    "Policy",
    "PolicyError",
    "Quote",
    "Refusal",
    "SimulatedAttester",
    "SimulatedPlatform",
    "StaleNonceError",
    "TrustVector",
    "UnattestedAttester",
    "UnattestedStatement",
    "Verifier",
    "is_statement",
    "measure",
    "mount_key",
    "open_attester",
    "policy_text",
    "report_data",
    "set_mount_key",
    "settle_bytecode",
]
