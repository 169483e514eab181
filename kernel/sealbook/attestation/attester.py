"""The one thing the rest of sealbook asks of what runs a kernel: evidence over 64 bytes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from sealbook.attestation.quote import REPORT_DATA_BYTES


@runtime_checkable
class Attester(Protocol):
    """Makes evidence about the process it runs in.

    Attributes
    ----------
    tee
        What runs the process: ``"sgx"``, or a name of :data:`~sealbook.attestation.policy.UNATTESTED_TEES`.
    simulated
        True when the evidence is a simulated platform's. False does not mean hardware: a process that cannot
        attest itself is not simulated either.
    """

    @property
    def tee(self) -> str:
        """Return the kind of environment."""
        ...

    @property
    def simulated(self) -> bool:
        """Return whether it is simulated."""
        ...

    def quote(self, report_data: bytes) -> bytes:
        """Return a quote that carries exactly these 64 bytes.

        Where nothing can make one, return a statement that says so
        (:class:`~sealbook.attestation.unattested.UnattestedStatement`); never something like a quote.

        Raises
        ------
        ValueError
            `report_data` has another length. (Gramine would pad or cut it silently.)
        """
        ...


def check_report_data(report_data: bytes) -> bytes:
    """Return `report_data` if it has 64 bytes; every attester calls this first."""
    if len(report_data) != REPORT_DATA_BYTES:
        raise ValueError(f"report data has {REPORT_DATA_BYTES} bytes, not {len(report_data)}")
    return bytes(report_data)
