"""Measuring an image anew; `sealbook install` is tested with it in tests/cli/test_install_gramine.py."""

from __future__ import annotations

import pytest

from gramine_stand_in import small_image
from sealbook.errors import RefusedError
from sealbook.image import approval
from sealbook.image.approval import measured


def test_an_image_is_what_its_builder_measured(tmp_path, stand_in, signing_key):
    image = small_image(tmp_path / "image", key=signing_key)
    found = measured(image)
    assert found.mrenclave.hex() == image.facts.mrenclave
    assert found.mrsigner.hex() == image.facts.mrsigner


def test_an_unsafe_manifest_is_not_given_to_gramine(tmp_path, stand_in, signing_key, monkeypatch):
    """Gramine would read every file of this machine that it names without a hash."""
    image = small_image(tmp_path / "image", key=signing_key)
    path = image.path / "kernel.manifest.sgx"
    path.write_text(path.read_text().replace("debug = false", "debug = true"))
    monkeypatch.setattr(approval, "measure", lambda manifest: pytest.fail("it was"))
    with pytest.raises(RefusedError, match=r"is unsafe: sgx\.debug"):
        measured(image)
