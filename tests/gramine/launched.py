"""How the tests find what belongs to one start."""

from __future__ import annotations

from pathlib import Path

import psutil
from jupyter_client.manager import KernelManager


def launch_directory(manager: KernelManager) -> Path:
    """Return the directory that a running kernel's Gramine was started in."""
    (gramine,) = psutil.Process(manager.provisioner.pid).children()
    return Path(gramine.cwd())
