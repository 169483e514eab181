"""Entry point of the simulated enclave: have everything measured, then be the measured kernel.

That a host measures its own processes proves nothing to anyone who does not trust this host:
that is what *simulated* means, and every result says it.

Run as ``python -I -B -m sealbook.jupyter.simulated_kernel --registration=tcp://...``, with the flags
of :data:`sealbook.simulated_loader.ISOLATED`.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from sealbook.simulated_loader import Measuring

if TYPE_CHECKING:
    from sealbook.attestation import Attester


class MeasuredAttester:
    """The simulated platform's attester for this process, once the measuring is done."""

    tee = "sgx"
    simulated = True

    def __init__(self, measuring: Measuring) -> None:
        self._measuring = measuring

    @functools.cached_property
    def _attester(self) -> Attester:
        from sealbook import paths
        from sealbook.attestation.simulated import SimulatedPlatform

        platform = SimulatedPlatform.load_or_create(paths.simulated_platform_dir())
        return platform.attester(self._measuring.result())

    def quote(self, report_data: bytes) -> bytes:
        """Return a quote over exactly 64 bytes."""
        return self._attester.quote(report_data)


def _forget_host_settings() -> None:
    """Undo what the host's environment and files would choose in libraries the kernel loads.

    OpenSSL's configuration file can name libraries to load, and fsspec's gives arguments (a target,
    a key) to file systems that the user's code opens.
    """
    for name in list(os.environ):
        if name.startswith(("OPENSSL_", "FSSPEC_")):
            del os.environ[name]
    os.environ["OPENSSL_CONF"] = os.devnull
    os.environ["FSSPEC_CONFIG_DIR"] = os.devnull


def main() -> None:
    """Start the kernel; returns when it ended."""
    _forget_host_settings()
    measuring = Measuring()
    # Imported here so that the measuring runs beside the import, which takes as long.
    from sealbook.jupyter.kernelapp import AttestedKernelApp

    AttestedKernelApp.launch_instance(attester=MeasuredAttester(measuring))


if __name__ == "__main__":
    main()
