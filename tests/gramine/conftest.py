"""Kernels in a real Gramine, for the tests that need one; where there is none they are skipped by name.

Gramine is in no package registry. It is installed from its own packages (https://gramine.readthedocs.io), and
these tests run wherever ``gramine-direct`` is on the PATH.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

sys.path.insert(0, str(Path(__file__).parents[1] / "jupyter"))
sys.path.insert(0, str(Path(__file__).parent))
from helpers import kernel

from sealbook.image import Image

KERNEL = "sealbook-gramine-direct"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # In one worker: an image is built once, and a second kernel in Gramine would only wait for the cores.
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("gramine"))


@pytest.fixture(scope="session")
def gramine() -> None:
    if shutil.which("gramine-direct") is None:
        pytest.skip("needs Gramine: gramine-direct is not on the PATH (its own packages bring it)")


@pytest.fixture(scope="session")
def sgx(gramine: None) -> None:
    if not Path("/dev/sgx_enclave").exists():
        pytest.skip("needs SGX hardware: there is no /dev/sgx_enclave")


@pytest.fixture(scope="session")
def image(gramine: None, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A kernel image of the smallest layer."""
    from sealbook.image.build import Recipe, build

    return build(Recipe(layers=("kernel",)), tmp_path_factory.mktemp("images") / "kernel")


@pytest.fixture(scope="session")
def full_image(gramine: None, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """An image with everything that the notebooks use."""
    from sealbook.image.build import Recipe, build

    return build(Recipe(layers=("tensorflow",)), tmp_path_factory.mktemp("images") / "full")


@pytest.fixture(scope="session")
def installed(image: Image) -> str:
    """The kernel of `image`."""
    from sealbook.cli.install_gramine import ensure_gramine

    return str(ensure_gramine("gramine-direct", image=image.path)["kernel"])


@pytest.fixture(scope="session")
def full_kernel(full_image: Image) -> str:
    """The kernel of `full_image`."""
    from sealbook.cli.install_gramine import ensure_gramine

    return str(ensure_gramine("gramine-direct", image=full_image.path, name="gramine-full")["kernel"])


@pytest.fixture(scope="module")
def running(
    installed: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel for the tests of a module that do not harm it."""
    with kernel(installed, cwd=str(tmp_path_factory.mktemp("notebooks"))) as (manager, client):
        yield manager, client


@pytest.fixture
def manager(running: tuple[KernelManager, BlockingKernelClient]) -> KernelManager:
    return running[0]


@pytest.fixture
def client(running: tuple[KernelManager, BlockingKernelClient]) -> BlockingKernelClient:
    return running[1]
