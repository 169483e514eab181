"""Where the user's broker gets collateral: the service for genuine hardware, this machine for simulated one.

Which of the two is asked is a hint taken from unverified evidence, and decides nothing: the verifier judges
under the policy's own root, whatever collateral it is given.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sealbook import paths
from sealbook.attestation.collateral import Collateral, CollateralSource
from sealbook.attestation.intel import ROOT_CA_DER
from sealbook.attestation.pccs import PccsCollateral
from sealbook.attestation.quote import Quote
from sealbook.attestation.simulated.platform import SimulatedPlatform


class EndorsementRouter:
    """Sends quotes whose own chain names Intel's root to one source, and all others to another.

    Parameters
    ----------
    hardware
        May use the network.
    simulated
        Must not: nothing of a simulated platform leaves this machine.
    """

    def __init__(self, *, hardware: CollateralSource, simulated: CollateralSource) -> None:
        self._hardware = hardware
        self._simulated = simulated

    def collateral_for(self, quote: Quote) -> Collateral:
        """Return the collateral for the platform that made `quote`.

        Raises
        ------
        RefusedError
            The source has none.
        """
        source = self._hardware if names_intel(quote) else self._simulated
        return source.collateral_for(quote)


def names_intel(quote: Quote) -> bool:
    """Whether the last certificate of a quote has the key of Intel's root (unverified)."""
    return _public_key(quote.certificates[-1]) == _INTEL


def user_endorsements() -> EndorsementRouter:
    """Return the collateral that this user's verifier has: configured service, cache, simulated platform."""
    platform = SimulatedPlatform.load_or_create(paths.simulated_platform_dir())
    return EndorsementRouter(
        hardware=PccsCollateral(paths.collateral_cache_dir()), simulated=platform.source()
    )


def _public_key(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


_INTEL = _public_key(x509.load_der_x509_certificate(ROOT_CA_DER))
