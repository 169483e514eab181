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
