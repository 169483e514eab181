"""A SIMULATED platform: everything an SGX machine and its maker do, without any protection.

Own root certificate authority, PCK, quoting enclave, TCB signer and collateral; the quotes have
the very format and go through the very verifier of genuine ones. Only the root differs, every
name says SIMULATED, and a policy that names Intel's root can never admit such a quote.
"""

from __future__ import annotations

from sealbook.attestation.simulated.forge import (
    CertificateSpec,
    Forge,
    QuoteSpec,
    ReportSpec,
)
from sealbook.attestation.simulated.measurement import Measurement, measure, runtime_roots, settle_bytecode
from sealbook.attestation.simulated.platform import (
    ISV_PROD_ID,
    ISV_SVN,
    SimulatedAttester,
    SimulatedCollateralSource,
    SimulatedPlatform,
)
from sealbook.attestation.simulated.sgx_extension import SgxExtensionSpec

__all__ = [
    "ISV_PROD_ID",
    "ISV_SVN",
    "CertificateSpec",
    "Forge",
    "Measurement",
    "QuoteSpec",
    "ReportSpec",
    "SgxExtensionSpec",
    "SimulatedAttester",
    "SimulatedCollateralSource",
    "SimulatedPlatform",
    "measure",
    "runtime_roots",
    "settle_bytecode",
]
