"""Collateral of genuine hardware, from a caching service (PCCS) or from Intel itself (PCS).

- `settings`: which service, and whose certificates it may show;
- `transport`: one bounded GET over TLS;
- `client`: the four documents of Intel's API, version 4, as one collateral;
- `genuine`: whether the maker of the platform signed it, and until when it holds;
- `cache`: what was fetched, so that attestation works without the service until that expires;
- `source`: when to ask and when not to.

Only the relying party's side uses this, never the kernel: :mod:`sealbook.attestation` itself does not import
it. Nothing here makes a quote good. The verifier checks every signature again, and
:class:`~sealbook.attestation.CollateralMemory` sees a service that goes back to older collateral.
"""

from __future__ import annotations

from sealbook.attestation.pccs.cache import CachedCollateral, CollateralCache
from sealbook.attestation.pccs.settings import INTEL_PCS, PccsService, configured_service
from sealbook.attestation.pccs.source import CollateralUnavailableError, PccsCollateral

__all__ = [
    "INTEL_PCS",
    "CachedCollateral",
    "CollateralCache",
    "CollateralUnavailableError",
    "PccsCollateral",
    "PccsService",
    "configured_service",
]
