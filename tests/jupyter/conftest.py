"""A started kernel for the tests that do not harm it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

sys.path.insert(0, str(Path(__file__).parent))
from helpers import kernel
from jupyter_server_process import JupyterServer, jupyterlab


@pytest.fixture(scope="module")
def running(kernel_name: str) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    with kernel(kernel_name) as (manager, client):
        yield manager, client


@pytest.fixture
def manager(running: tuple[KernelManager, BlockingKernelClient]) -> KernelManager:
    return running[0]


@pytest.fixture
def client(running: tuple[KernelManager, BlockingKernelClient]) -> BlockingKernelClient:
    return running[1]


@pytest.fixture(scope="module")
def lab(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """JupyterLab with the installed kernel."""
    root = tmp_path_factory.mktemp("lab") / "root"
    root.mkdir()
    with jupyterlab(root) as server:
        yield server
