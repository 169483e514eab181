"""Which installed packages go into an image, and which of their files.

What is copied is what the wheel held: every file is compared with the hash in its distribution's
RECORD (https://packaging.python.org/specifications/recording-installed-packages), so that edits by hand
make no image. Who controls the whole environment can change RECORD, too: that shows in the measurement, when
somebody else builds from the same lock.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

import sealbook
from sealbook.errors import InputError, RefusedError
from sealbook.image import java

#: Layers of an image, one for each purpose, in the order in which they build upon each other.
LAYERS: dict[str, tuple[str, ...]] = {
    "kernel": ("sealbook",),
    "data": ("numpy", "pandas", "pyarrow", "matplotlib", "jinja2"),
    "learn": ("scikit-learn", "skops", "xgboost-cpu"),
    "tensorflow": ("tensorflow-cpu", "keras"),
}

#: Required by something above and of no use in an enclave: a debugger that listens on a port, the completer
#: that keeps pickles, what talks to a desktop's keyring, what builds packages or plots in a browser, and the
#: browser's half of widgets, which the Jupyter server serves.
LEFT_OUT = frozenset(
    {"jupyterlab-widgets", "widgetsnbextension"}
    | {"debugpy", "jedi", "parso", "secretstorage", "jeepney", "setuptools", "wheel", "pip"}
    | {"tensorboard", "tensorboard-data-server", "libclang"}
)

#: Directories that no program imports. Those called "test" are needed where they belong to an interface
#: (tensorflow), so they are named one by one.
_PRUNED_DIRECTORIES = frozenset({"tests", "__pycache__", "include", "benchmarks"})
_PRUNED_PLACES = (
    *("joblib/test", "tornado/test", "tensorflow/python/compiler/tensorrt/test"),
    "matplotlib/mpl-data/sample_data",
)

#: What compilers and type checkers read.
_PRUNED_SUFFIXES = frozenset(
    {
        ".pyi",
        ".h",
        ".hpp",
        ".c",
        ".cc",
        ".cpp",
        ".cuh",
        ".inc",
        ".pyx",
        ".pxd",
        ".pxi",
        ".a",
        ".lib",
        ".pyc",
        ".proto",
    }
)

#: Of a distribution's metadata: what importlib.metadata reads, and nothing that names the machine.
_METADATA_FILES = frozenset({"METADATA", "entry_points.txt", "top_level.txt"})


@dataclass(frozen=True)
class PackageFile:
    """One file of a distribution.

    Attributes
    ----------
    source
        Where it lies now.
    target
        Where it goes, relative to site-packages.
    """

    source: Path
    target: PurePosixPath


@dataclass(frozen=True)
class Package:
    """One distribution of an image."""

    name: NormalizedName
    version: str
    files: tuple[PackageFile, ...]


def collect(roots: Iterable[str]) -> list[Package]:
    """Return `roots` and all that they require, in the versions installed here.

    Raises
    ------
    InputError
        A package is not installed.
    RefusedError
        A file is not the one that was installed.
    """
    found: dict[NormalizedName, metadata.Distribution] = {}
    seen: set[tuple[NormalizedName, str]] = set()
    pending = [(canonicalize_name(root), "") for root in roots]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen or name in LEFT_OUT:
            continue
        seen.add((name, extra))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise InputError(
                f"The package {name} is needed and not installed: install it, or choose other layers."
            ) from None
        pending += _required(found[name], extra)
    return [
        Package(name, distribution.version, tuple(_files(name, distribution)))
        for name, distribution in sorted(found.items())
    ]


def installed_layers() -> tuple[str, ...]:
    """Return the layers whose packages are installed here."""

    def installed(name: str) -> bool:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return False
        return True

    return tuple(layer for layer, roots in LAYERS.items() if all(map(installed, roots)))


def check_lock(packages: Iterable[Package], lock: Path) -> None:
    """Compare the packages with a lock file in the format of requirements.txt.

    Raises
    ------
    InputError
        The file cannot be read.
    RefusedError
        A package is not locked, or locked to another version.
    """
    try:
        text = lock.read_text()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"The lock file {lock} cannot be read.") from None
    # A package may have several lines, one for each version of Python: the lock allows any of them.
    locked: dict[NormalizedName, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE):
        locked.setdefault(canonicalize_name(name), set()).add(version)
    for package in packages:
        allowed = locked.get(package.name, set())
        if package.name != "sealbook" and package.version not in allowed:
            raise RefusedError(
                f"{package.name} {package.version} is installed and {lock} locks "
                f"{' or '.join(sorted(allowed)) or 'no version of it'}: install from the lock first "
                f"(`pip install --require-hashes -r {lock}`)."
            )


def _required(distribution: metadata.Distribution, extra: str = "") -> Iterator[tuple[NormalizedName, str]]:
    """Yield what a distribution with an extra (or none) requires here: name and extra."""
    environment = {key: str(value) for key, value in default_environment().items()} | {"extra": extra}
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            for each in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), each


def _files(name: NormalizedName, distribution: metadata.Distribution) -> Iterator[PackageFile]:
    if name == "sealbook":
        yield from _own_files()
    keeps_stubs = ("lazy-loader", "") in set(_required(distribution))
    for path, digest in _recorded(name, distribution):
        target = PurePosixPath(path)
        if not _kept(target, keeps_stubs) or not digest:
            continue  # without a hash: made at the installation, and not what the wheel held
        source = Path(str(distribution.locate_file(path)))
        if not hmac.compare_digest(f"sha256={_digest(source)}".encode(), digest.encode()):
            raise RefusedError(
                f"{source} is not the file that {name} {distribution.version} was installed with: "
                f"install it again (`pip install --force-reinstall {name}=={distribution.version}`)."
            )
        yield PackageFile(source, target)


def _recorded(name: NormalizedName, distribution: metadata.Distribution) -> Iterator[tuple[str, str]]:
    """Yield path and hash of each file in RECORD.

    Not ``distribution.files``, which from Python 3.12 on, and in the importlib_metadata that keyring brings,
    does not have the files that are missing.
    """
    record = distribution.read_text("RECORD")
    if not record:
        raise RefusedError(
            f"{name} {distribution.version} was installed without a record of its files: install it with pip."
        )
    for row in csv.reader(record.splitlines()):
        yield row[0], row[1] if len(row) > 1 else ""


def _own_files() -> Iterator[PackageFile]:
    """Yield sealbook itself, from where it is imported: in a checkout RECORD names only a link to it."""
    place = Path(sealbook.__file__).parent
    for source in sorted(place.rglob("*")):
        target = PurePosixPath("sealbook", source.relative_to(place))
        if source.is_file() and _kept(target, keeps_stubs=False):
            yield PackageFile(source, target)


def _kept(target: PurePosixPath, keeps_stubs: bool) -> bool:
    if target.is_absolute() or ".." in target.parts:
        return False  # scripts and man pages
    if target.parts[0].endswith(".dist-info"):
        return len(target.parts) == 2 and target.name in _METADATA_FILES
    if target.parts[0] == "sealbook" and len(target.parts) == 1:
        return False
    if len(target.parts) == 1 and target.suffix == ".pth":
        return False  # code that would run at every start, for installations of developers
    if target.suffix == ".pyi" and keeps_stubs:
        return True
    pruned = any(target.is_relative_to(place) for place in _PRUNED_PLACES) or java.is_left_out(target)
    return (
        not pruned
        and target.suffix not in _PRUNED_SUFFIXES
        and not _PRUNED_DIRECTORIES & set(target.parts[:-1])
    )


def _digest(path: Path) -> str:
    """Return a file's SHA-256 as RECORD writes it."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return ""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
