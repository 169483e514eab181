"""Puts packages into an image: their Python code into archives, the rest as files."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path, PurePosixPath

from sealbook.image import archives
from sealbook.image.distributions import Package
from sealbook.image.interpreter import SITE_PACKAGES
from sealbook.image.tree import put

#: Where the C library, Python, Arrow and (with ``PYTZ_TZDATADIR``) pytz look for time zones.
ZONES = PurePosixPath("/usr/share/zoneinfo")

#: Two packages bring the same time zones, 600 files each. pytz reads only the older form of them, which its
#: own have, and everybody else both forms; so pytz's are taken where both are (they come first).
_ZONES_OF = (PurePosixPath("pytz/zoneinfo"), PurePosixPath("tzdata/zoneinfo"))


def install(root: Path, packages: Iterable[Package]) -> list[Path]:
    """Copy packages into the tree at `root`.

    Returns
    -------
    list of Path
        Where the extension modules and libraries lie on the host.
    """
    code: dict[PurePosixPath, Path] = {}
    binaries, binary_names = [], []
    for package in packages:
        for file in package.files:
            if file.target.suffix == ".py":
                code[file.target] = file.source
                continue
            place = _place(file.target)
            if place.is_relative_to(ZONES) and (root / place.relative_to("/")).exists():
                continue
            binary = ".so" in file.target.suffixes
            put(file.source, root, place, mode=0o755 if binary else 0o644)
            if binary:
                binaries.append(file.source)
                binary_names.append(str(file.target))
    # Where both are there, Python imports the extension module.
    compiled = {place.removesuffix(suffix) for place in binary_names for suffix in EXTENSION_SUFFIXES}
    code = {target: source for target, source in code.items() if str(target.with_suffix("")) not in compiled}
    archives.install(root, SITE_PACKAGES, code)
    return binaries


def _place(target: PurePosixPath) -> PurePosixPath:
    for zones in _ZONES_OF:
        if target.is_relative_to(zones):
            return ZONES / target.relative_to(zones)
    return SITE_PACKAGES / target
