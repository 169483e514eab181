"""A kernel in Gramine that cannot start: its one sentence comes before anything is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from gramine_stand_in import GramineStandIn, small_image
from sealbook.errors import SealbookError
from sealbook.image import Image
from sealbook.jupyter import kernelspec


@pytest.fixture
def image(tmp_path: Path, stand_in: GramineStandIn, signing_key: Path) -> Image:
    return small_image(tmp_path / "image", key=signing_key, owner=None)


@pytest.fixture
def start(tmp_path: Path, image: Image) -> Callable[..., str]:
    """Try to start the kernel; returns the sentence and sees that nothing ran."""

    def try_to_start(tee: str = "gramine-direct") -> str:
        content = kernelspec.gramine_kernel_json(tee, policy=image.policy(tee), image=image.path)
        content["argv"] = [sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]
        place = tmp_path / "kernels" / "mine"
        place.mkdir(parents=True, exist_ok=True)
        (place / "kernel.json").write_text(json.dumps(content))
        specs = KernelSpecManager(kernel_dirs=[str(place.parent)], ensure_native_kernel=False)
        manager = KernelManager(kernel_name="mine", kernel_spec_manager=specs)
        with pytest.raises(SealbookError) as caught:
            manager.start_kernel()
        ran = (tmp_path / "ran").exists()
        (tmp_path / "ran").unlink(missing_ok=True)
        assert ran == ("ended" in str(caught.value))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return try_to_start


def test_an_image_that_can_run_is_started(start):
    """The control: the program is started, and then refused because it registers nothing."""
    assert "ended" in start()


def test_an_image_that_is_gone_is_said(start, image):
    image.path.rename(image.path.with_name("elsewhere"))
    with pytest.MonkeyPatch.context() as patch:
        # The policy lies in the image here; a person's lies elsewhere.
        moved = image.path.with_name("elsewhere")
        patch.setattr(Image, "policy", lambda self, tee: moved / "policy-direct.toml")
        assert "There is no kernel image" in start()


def test_a_changed_image_is_said(start, image):
    changed = image.path / "root/bin/sh"
    changed.chmod(0o755)
    changed.write_text("changed")
    assert start().startswith(f"{changed} has another content")


def test_a_missing_gramine_is_said(start, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "There is no gramine-direct on the PATH" in start()


def test_an_old_gramine_is_said(start, stand_in):
    stand_in.say_version("1.8")
    assert "Gramine 1.8 is too old" in start()


def test_another_gramine_than_the_images_is_said(start, stand_in):
    stand_in.say_version("1.10")
    assert "was built with Gramine 1.9 and this is 1.10" in start()


@pytest.mark.skipif(Path("/dev/sgx_enclave").exists(), reason="this machine has an SGX device")
def test_a_machine_without_sgx_is_said(start):
    assert "no /dev/sgx_enclave" in start("gramine-sgx")


def test_an_unsigned_image_is_said(start, image, monkeypatch):
    (image.path / "kernel.sig").unlink()
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/dev/sgx_enclave" or exists(self))
    assert "is not signed" in start("gramine-sgx")
