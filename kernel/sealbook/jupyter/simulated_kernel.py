"""Entry point of the simulated enclave: have everything measured, then be the measured kernel.

That a host measures its own processes proves nothing to anyone who does not trust this host:
that is what *simulated* means, and every result says it.

Run as ``python -I -B -m sealbook.jupyter.simulated_kernel --registration=tcp://...``, with the flags
of :data:`sealbook.simulated_loader.ISOLATED`.
"""

from __future__ import annotations

from sealbook.simulated_loader import MeasuredAttester, Measuring, forget_host_settings


def main() -> None:
    """Start the kernel; returns when it ended."""
    forget_host_settings()
    measuring = Measuring()
    # Imported here so that the measuring runs beside the import, which takes as long.
    from sealbook.jupyter.kernelapp import AttestedKernelApp

    AttestedKernelApp.launch_instance(attester=MeasuredAttester(measuring))


if __name__ == "__main__":
    main()
