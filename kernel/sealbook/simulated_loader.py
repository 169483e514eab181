"""The loader of the simulated enclave: measures, in a process of its own, what a kernel will run.

On hardware the loader measures an enclave before its first instruction. Here a second interpreter,
started with the kernel's own flags so that it has the kernel's own ``sys.path``, measures the
files while the kernel imports them: on a second core this costs the start little. Whoever writes a
policy measures in the same way (:func:`measure_kernel`), so that both always mean the same files.

Importing this module is cheap on purpose: the kernel's entry point does it first.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sealbook.errors import RefusedError

if TYPE_CHECKING:
    from sealbook.attestation import Attester
    from sealbook.attestation.simulated import Measurement

#: ``-I``: no PYTHONPATH, no user site, no working directory on ``sys.path``, so that what is measured is all
#: there is to import. ``-B``: no bytecode written into what is measured.
ISOLATED = ("-I", "-B")

#: Run as a file and not with ``-m``, which would import the whole attestation package first.
_MEASURE = Path(__file__).parent / "attestation/simulated/measurement.py"


class Measuring:
    """A measurement under way."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *ISOLATED, str(_MEASURE)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> Measurement:
        """Wait for it.

        Raises
        ------
        RefusedError
            It failed; the sentence is the measuring process's own.
        """
        from sealbook.attestation.simulated import Measurement

        output, errors = self._process.communicate()
        if self._process.returncode != 0:
            cause = errors.strip().rpartition("\n")[2] or "no cause given"
            raise RefusedError(f"What the kernel runs could not be measured: {cause}")
        fields = json.loads(output)
        return Measurement(
            mrenclave=bytes.fromhex(fields["mrenclave"]),
            files=fields["files"],
            roots=tuple(fields["roots"]),
            seconds=fields["seconds"],
        )


class MeasuredAttester:
    """The simulated platform's attester for this process, once the measuring is done."""

    tee = "sgx"
    simulated = True

    def __init__(self, measuring: Measuring) -> None:
        self._measuring = measuring

    @functools.cached_property
    def measurement(self) -> Measurement:
        """What this process was measured as; waits for it."""
        return self._measuring.result()

    def wait(self) -> None:
        """Return once the measuring is done; a broker keeps no connection open for as long."""
        _ = self.measurement

    @functools.cached_property
    def _attester(self) -> Attester:
        from sealbook import paths
        from sealbook.attestation.simulated import SimulatedPlatform

        platform = SimulatedPlatform.load_or_create(paths.simulated_platform_dir())
        return platform.attester(self.measurement)

    def quote(self, report_data: bytes) -> bytes:
        """Return a quote over exactly 64 bytes."""
        return self._attester.quote(report_data)


def forget_host_settings() -> None:
    """Undo what the host's environment and files would choose in libraries that are loaded.

    OpenSSL's configuration file can name libraries to load, and fsspec's gives arguments (a target,
    a key) to file systems that the user's code opens.
    """
    for name in list(os.environ):
        if name.startswith(("OPENSSL_", "FSSPEC_")):
            del os.environ[name]
    os.environ["OPENSSL_CONF"] = os.devnull
    os.environ["FSSPEC_CONFIG_DIR"] = os.devnull


def measure_kernel() -> Measurement:
    """Measure what a simulated kernel of this installation runs."""
    return Measuring().result()
