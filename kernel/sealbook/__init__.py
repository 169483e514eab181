"""Jupyter for data that nobody but the verified code may see.

Everything public is loaded when it is first used: `import sealbook` alone costs nothing, and
a program that only verifies quotes never imports Jupyter.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sealbook.pandas_urls import accept_sealed_urls

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sealbook.artifacts import open, seal, unseal
    from sealbook.jupyter.magics import load_ipython_extension
    from sealbook.jupyter.panel import AttestationPanel

__all__ = ["AttestationPanel", "__version__", "load_ipython_extension", "open", "seal", "unseal"]

# So that pd.read_parquet("sealed::path") works wherever sealbook was imported; nothing is loaded for it.
accept_sealed_urls()

_HOMES = {
    "seal": "sealbook.artifacts",
    "unseal": "sealbook.artifacts",
    "open": "sealbook.artifacts",
    "load_ipython_extension": "sealbook.jupyter.magics",
    "AttestationPanel": "sealbook.jupyter.panel",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sealbook' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
