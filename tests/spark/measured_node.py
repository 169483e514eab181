"""The agent with a measurement that is given, not made: measuring takes long, and other tests do it.

``python -I -B measured_node.py together PLAN...``
"""

from __future__ import annotations

import sys

from sealbook.attestation.simulated import Measurement
from sealbook.simulated_loader import MeasuredAttester
from sealbook.spark import node


class Measured:
    """Stands for :class:`~sealbook.simulated_loader.Measuring`."""

    def result(self) -> Measurement:
        return Measurement(mrenclave=b"\x31" * 32)


if __name__ == "__main__":
    node._attester = lambda: MeasuredAttester(Measured())
    node.main(sys.argv[1:])
