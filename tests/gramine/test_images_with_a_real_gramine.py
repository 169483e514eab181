"""Building and signing with Gramine's own tools."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sealbook.image import Image
from sealbook.image.build import Recipe, build


@pytest.fixture(scope="module")
def key(gramine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key.pem"
    subprocess.run(["gramine-sgx-gen-private-key", path], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def signed(key: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(
        Recipe(layers=("kernel",), key=key, owner=bytes(range(32))),
        tmp_path_factory.mktemp("signed") / "image",
    )


def test_built_again_elsewhere_it_has_the_same_measurement(image: Image, tmp_path: Path) -> None:
    again = build(Recipe(layers=("kernel",)), tmp_path / "image")
    assert image.facts.mrenclave == again.facts.mrenclave
    manifests = [each.path.joinpath("kernel.manifest").read_bytes() for each in (image, again)]
    assert manifests[0] == manifests[1]


def test_with_all_layers_it_has_the_same_measurement_too(
    gramine: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = Recipe(layers=("data",))
    first, second = (build(recipe, each / "image") for each in (tmp_path, tmp_path_factory.mktemp("again")))
    assert first.facts.mrenclave == second.facts.mrenclave


def test_the_measurement_and_the_signer_are_what_gramine_says(signed: Image) -> None:
    done = subprocess.run(
        ["gramine-sgx-sigstruct-view", "--output-format", "json", signed.path / "kernel.sig"],
        check=True,
        capture_output=True,
        text=True,
    )
    seen = json.loads(done.stdout)
    assert (seen["mr_enclave"], seen["mr_signer"]) == (signed.facts.mrenclave, signed.facts.mrsigner)
    assert (seen["isv_prod_id"], seen["isv_svn"]) == (signed.facts.isv_prod_id, signed.facts.isv_svn)
    assert not seen["debug_enclave"]


def test_gramine_accepts_the_manifest(signed: Image) -> None:
    subprocess.run(
        ["gramine-manifest-check", signed.path / "kernel.manifest"], check=True, capture_output=True
    )


def test_the_signed_image_can_be_installed_and_says_that_there_is_no_device(signed: Image) -> None:
    from sealbook.cli.install_gramine import ensure_gramine

    if Path("/dev/sgx_enclave").exists():
        pytest.skip("this machine has an SGX device")
    done = ensure_gramine("gramine-sgx", image=signed.path)
    assert "/dev/sgx_enclave" in done["notes"][0]


def test_a_kernel_on_hardware_is_attested_under_intels_root(sgx: None, signed: Image) -> None:
    from helpers import kernel

    from sealbook.cli.install_gramine import ensure_gramine

    with kernel(str(ensure_gramine("gramine-sgx", image=signed.path)["kernel"])) as (manager, _):
        assert manager.provisioner.attestation.attested
        assert manager.provisioner.attestation.mrenclave == signed.facts.mrenclave
