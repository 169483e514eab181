"""The lint: refuses every manifest setting that is unsafe, or that nobody has judged, with its reason.

It looks at the manifest alone, as data: which files lie in the image, and whether they still have the hashes
it says, is checked elsewhere. An empty answer means that, under SGX, everything that runs is measured and
that the host can change nothing but the launch parameters and the notebook's own directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sealbook.errors import InputError
from sealbook.image.lint_files import read_files
from sealbook.image.lint_java import check_java
from sealbook.image.lint_programs import check_programs
from sealbook.image.lint_settings import check_settings
from sealbook.image.objection import Objection
from sealbook.image.reading import MANIFEST, SIGNED_MANIFEST, read_manifest

__all__ = ["Objection", "lint", "lint_path"]


def lint(manifest: Mapping[str, Any]) -> list[Objection]:
    """Judge a manifest.

    Parameters
    ----------
    manifest
        As TOML is parsed; made by anyone.

    Returns
    -------
    list
        One objection for each fault; empty if there is none.
    """
    objections = list(check_settings(manifest))
    files, against_files = read_files(manifest)
    objections += against_files
    objections += check_programs(manifest, files)
    objections += check_java(manifest, files)
    return objections


def lint_path(path: Path) -> dict[Path, list[Objection]]:
    """Judge an image's manifests, the signed one too if there is one, or one manifest.

    Raises
    ------
    InputError
        There is no manifest, or it cannot be read.
    """
    if not path.is_dir():
        return {path: lint(read_manifest(path))}
    plain, signed = path / MANIFEST, path / SIGNED_MANIFEST
    if not plain.exists():
        raise InputError(
            f"{path} is no kernel image, it has no {MANIFEST}: `sealbook image build` makes one."
        )
    # The signed one is what is measured; nothing else says that it is the same.
    return {each: lint(read_manifest(each)) for each in (plain, signed) if each.exists()}
