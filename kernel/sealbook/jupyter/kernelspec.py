"""The kernelspecs that make sealbook kernels appear in JupyterLab, nbclient and papermill."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager

from sealbook.simulated_loader import ISOLATED

SIMULATED = "sealbook-simulated"

#: Kind of Gramine kernel -> what JupyterLab shows.
GRAMINE = {
    "gramine-sgx": "Python 3 (sealbook, SGX enclave)",
    "gramine-direct": "Python 3 (sealbook, Gramine without SGX, not attested)",
}


def kernel_json(policy: Path) -> dict[str, Any]:
    """Return the content of kernel.json for the simulated kernel under `policy`."""
    argv = [sys.executable, *ISOLATED, "-m", "sealbook.jupyter.simulated_kernel"]
    return _kernel_json("Python 3 (sealbook, simulated enclave)", argv, {"policy": str(policy)})


def gramine_kernel_json(
    tee: str,
    *,
    policy: Path,
    image: Path,
    data: Path | None = None,
    data_key: str | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Return the content of kernel.json for a kernel in Gramine.

    Parameters
    ----------
    tee
        A key of :data:`GRAMINE`.
    image
        The image's directory.
    data, data_key
        Where the encrypted mount ``/data`` keeps its files, and the name of the key that opens it.
    name
        Of the kernel, where there are several of a kind.
    """
    argv = [sys.executable, *ISOLATED, "-m", "sealbook.jupyter.gramine_launcher"]
    argv += ["--tee", tee, "--image", str(image)]
    argv += ["--data", str(data)] if data else []
    config = {"policy": str(policy), "image": str(image), "tee": tee, "data_key": data_key or ""}
    return _kernel_json(GRAMINE[tee] if name is None else f"{GRAMINE[tee]}: {name}", argv, config)


def _kernel_json(display_name: str, argv: list[str], config: dict[str, str]) -> dict[str, Any]:
    return {
        "argv": argv,
        "display_name": display_name,
        "language": "python",
        # As on hardware, where a host signal cannot reach into the enclave.
        "interrupt_mode": "message",
        "metadata": {
            "debugger": False,
            # True, with keys of the kernel's own: jupyter_client's transport_encryption=required passes.
            "supported_encryption": ["curve"],
            "kernel_provisioner": {"provisioner_name": "sealbook-provisioner", "config": config},
        },
    }


def install(
    content: dict[str, Any], *, user: bool = True, prefix: str | None = None, name: str = SIMULATED
) -> Path:
    """Install a kernelspec and return its directory.

    Parameters
    ----------
    content
        What :func:`kernel_json` or :func:`gramine_kernel_json` returned.
    user
        Into the user's Jupyter directory; otherwise into `prefix`, or the system's.
    prefix
        An environment, such as ``sys.prefix``.
    name
        The name that ``papermill -k`` takes.
    """
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "kernel.json").write_text(json.dumps(content, indent=2) + "\n")
        return Path(
            KernelSpecManager().install_kernel_spec(
                directory, kernel_name=name, user=user and prefix is None, prefix=prefix
            )
        )
