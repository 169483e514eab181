"""The kernelspecs that make sealbook kernels appear in JupyterLab, nbclient and papermill."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager

from sealbook.simulated_loader import ISOLATED

#: The kernel of this release; `sealbook-gramine-*` will stand beside it.
SIMULATED = "sealbook-simulated"


def kernel_json(policy: Path) -> dict[str, Any]:
    """Return the content of kernel.json for the simulated kernel under `policy`."""
    return {
        "argv": [sys.executable, *ISOLATED, "-m", "sealbook.jupyter.simulated_kernel"],
        "display_name": "Python 3 (sealbook, simulated enclave)",
        "language": "python",
        # As on hardware, where a host signal cannot reach into the enclave.
        "interrupt_mode": "message",
        "metadata": {
            "debugger": False,
            # True, with keys of the kernel's own: jupyter_client's transport_encryption=required passes.
            "supported_encryption": ["curve"],
            "kernel_provisioner": {
                "provisioner_name": "sealbook-provisioner",
                "config": {"policy": str(policy)},
            },
        },
    }


def install(*, policy: Path, user: bool = True, prefix: str | None = None, name: str = SIMULATED) -> Path:
    """Install the kernelspec and return its directory.

    Parameters
    ----------
    policy
        The policy file this kernel's evidence must pass.
    user
        Into the user's Jupyter directory; otherwise into `prefix`, or the system's.
    prefix
        An environment, such as ``sys.prefix``.
    name
        The name that ``papermill -k`` takes.
    """
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "kernel.json").write_text(json.dumps(kernel_json(policy), indent=2) + "\n")
        return Path(
            KernelSpecManager().install_kernel_spec(
                directory, kernel_name=name, user=user and prefix is None, prefix=prefix
            )
        )
