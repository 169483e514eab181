"""Evidence and its appraisal: quotes, collateral, policies, results. Knows neither sealing nor Jupyter.

Start reading at :mod:`.verifier` (how a quote is judged) and :mod:`.policy` (by what).
"""

from __future__ import annotations

from sealbook.attestation.attester import Attester
from sealbook.attestation.collateral import Collateral, CollateralSource, MalformedCollateralError
from sealbook.attestation.collateral_memory import CollateralMemory, CollateralMemoryError
from sealbook.attestation.freshness import NonceLedger, StaleNonceError
from sealbook.attestation.policy import Policy, PolicyError
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
from sealbook.attestation.verifier import Verifier

__all__ = [
    "ROLE_KERNEL",
    "AttestationRefusedError",
    "AttestationResult",
    "Attester",
    "Collateral",
    "CollateralMemory",
    "CollateralMemoryError",
    "CollateralSource",
    "EnclaveReport",
    "MalformedCollateralError",
    "MalformedQuoteError",
    "Measurement",
    "NonceLedger",
    "PlatformFacts",
    "Policy",
    "PolicyError",
    "Quote",
    "Refusal",
    "SimulatedAttester",
    "SimulatedPlatform",
    "StaleNonceError",
    "TrustVector",
    "Verifier",
    "measure",
    "policy_text",
    "report_data",
    "settle_bytecode",
]
