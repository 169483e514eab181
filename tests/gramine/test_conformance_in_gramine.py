"""The Jupyter protocol's own conformance suite, on a kernel in Gramine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jupyter"))
import test_conformance

pytestmark = pytest.mark.usefixtures("installed")


class TestSealbookKernelInGramine(test_conformance.TestSealbookKernel):
    kernel_name = "sealbook-gramine-direct"
