"""Builds a kernel image: a directory with everything that runs, and the manifest that measures it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sealbook import spark_files
from sealbook.errors import InputError
from sealbook.files import read_bounded
from sealbook.image import (
    caches,
    distributions,
    gramine,
    interpreter,
    java,
    libraries,
    manifest,
    programs,
    site_packages,
)
from sealbook.image.approval import policy_of
from sealbook.image.archived_imports import CODE, SOURCE
from sealbook.image.image import BUILT_TIME, POLICY_FILES, PROGRAM, Facts, Image
from sealbook.image.measuring import measure
from sealbook.image.mounts import covers, is_plain
from sealbook.image.owned_directory import owned_directory
from sealbook.image.roles import role_named
from sealbook.image.sigstruct import Sigstruct
from sealbook.image.tree import put

ENVIRONMENT = {
    "PATH": f"{interpreter.PREFIX / 'bin'}:{programs.DIRECTORY}",
    "LD_LIBRARY_PATH": str(libraries.DIRECTORY),
    # Encrypted: what libraries put into temporary files and caches is not for the host.
    "HOME": manifest.SCRATCH_PLACE,
    "TMPDIR": manifest.SCRATCH_PLACE,
    "LANG": "C.UTF-8",
    "SHELL": "/bin/sh",
    # One arena: with more, glibc reserves 64 MiB for each thread, and a fork in Gramine makes one mapping on
    # the host for each of their pages, more than vm.max_map_count allows (facts of Gramine 1.9).
    "MALLOC_ARENA_MAX": "1",
    "PYTZ_TZDATADIR": str(site_packages.ZONES),
    "MPLCONFIGDIR": str(caches.MATPLOTLIB),
    # Gramine has no /dev/shm for joblib's semaphores; it warns at each import unless it is told.
    "JOBLIB_MULTIPROCESSING": "0",
    # For interpreters that a cell starts; the kernel's own ignores it and has -B.
    "PYTHONDONTWRITEBYTECODE": "1",
    # The same: without these they would import what the host puts beside the notebook.
    "PYTHONSAFEPATH": "1",
    "PYTHONNOUSERSITE": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


@dataclass(frozen=True)
class Recipe:
    """What to build.

    Attributes
    ----------
    layers
        Names of :data:`sealbook.image.distributions.LAYERS`; those that they build upon come with them.
    packages
        More distributions, with what they require.
    lock
        A requirements file that the installed versions must agree with, or None.
    key
        PEM file of an RSA key (3072 bits, exponent 3) that signs, or None.
    work
        ``"host"`` or ``"encrypted"``; see :mod:`sealbook.image.manifest`.
    owner
        Public key (32 bytes) of the one whose challenges its kernels answer; of a node, the SHA-256 of the
        public key of the broker's authority whose clusters it joins. None for anyone's.
    enclave_size
        Upper limit of the enclave's memory, as Gramine writes sizes.
    role
        A name of :data:`sealbook.image.roles.ROLES`.
    tables
        Of a node: the path at which it sees the host's directory with sealed tables; drivers use the same.
    """

    name: str = "kernel"
    layers: Sequence[str] = ("kernel",)
    packages: Sequence[str] = ()
    lock: Path | None = None
    key: Path | None = None
    work: str = "host"
    owner: bytes | None = None
    enclave_size: str = "64G"
    role: str = "kernel"
    tables: str = manifest.WORK_PLACE


def build(
    recipe: Recipe, output: Path, *, force: bool = False, say: Callable[[str], None] = lambda _: None
) -> Image:
    """Build an image; `output` appears when it is whole, or not at all.

    Parameters
    ----------
    output
        The directory to make.
    force
        Replace an image that is there.
    say
        Told what is being done.

    Raises
    ------
    MissingDependencyError
        Gramine is missing or too old.
    InputError, RefusedError
        The recipe cannot be followed.
    """
    _check(recipe)
    layers = _layers(recipe)
    if output.exists() and not (force and (output / "image.json").is_file()):
        raise InputError(f"{output} exists: say --force to replace an image, or name another directory.")
    found = gramine.Gramine.find()
    output.parent.mkdir(parents=True, exist_ok=True)
    with owned_directory(
        output.parent,
        f".sealbook-build-{output.name}-",
        keep=lambda place: (place / "old").exists() and not output.exists(),
    ) as directory:
        place = directory / "image"
        place.mkdir()
        _fill(place, recipe, layers, found, say)
        if output.exists():
            output.rename(directory / "old")
        try:
            place.rename(output)
        except BaseException:
            if (directory / "old").exists():
                (directory / "old").rename(output)
            raise
    return Image.open(output)


def _fill(
    place: Path, recipe: Recipe, layers: tuple[str, ...], found: gramine.Gramine, say: Callable[[str], None]
) -> None:
    say("Checking the installed packages")
    roots = [root for layer in layers for root in distributions.LAYERS[layer]]
    role = role_named(recipe.role)
    packages = distributions.collect([*roots, *role.packages, *recipe.packages])
    if recipe.lock is not None:
        distributions.check_lock(packages, recipe.lock)
    root = place / "root"
    say("Copying the interpreter")
    interpreter.install(root)
    say(f"Packing {len(packages)} packages")
    binaries = site_packages.install(root, packages)
    if any(package.name == "matplotlib" for package in packages):
        caches.install(root)
    say("Copying programs and libraries")
    tools = programs.install(root)
    if role.java:
        say("Copying Java")
        spark_files.jar()
        tools += java.install(root)
    modules = (root / interpreter.PREFIX.relative_to("/")).rglob("lib-dynload/*.so")
    libraries.install(root, [interpreter.binary(), *modules, *binaries, *tools], found.runtime)
    put(found.libos, place, PurePosixPath("/gramine", found.libos.name))
    (root / "etc").mkdir(exist_ok=True)
    (root / manifest.OWNER).write_text(recipe.owner.hex() if recipe.owner else manifest.ANYONE)
    for mount in ("scratch", "data", "work", "run/sealbook"):
        (root / mount).mkdir(parents=True, exist_ok=True)
    say("Measuring")
    _settle(place)
    trusted = manifest.hash_tree(place)
    text = manifest.render(
        manifest.Content(
            name=recipe.name,
            entrypoint=str(interpreter.EXECUTABLE),
            argv=role.argv,
            environment=ENVIRONMENT | role.environment,
            libos=f"gramine/{found.libos.name}",
            work=recipe.work,
            enclave_size=recipe.enclave_size,
            trusted=trusted,
            role=role,
            tables=recipe.tables,
        )
    )
    (place / f"{PROGRAM}.manifest").write_text(text, encoding="utf-8")
    sigstruct = _sign(place, recipe.key, say)
    facts = Facts(
        name=recipe.name,
        layers=list(layers),
        gramine=found.version,
        python=platform.python_version(),
        packages={package.name: package.version for package in packages},
        programs=sorted(path.name for path in (root / "bin").iterdir()),
        mrenclave=sigstruct.mrenclave.hex(),
        mrsigner=sigstruct.mrsigner.hex() if recipe.key else None,
        isv_prod_id=sigstruct.isv_prod_id,
        isv_svn=sigstruct.isv_svn,
        signed=recipe.key is not None,
        work=recipe.work,
        manifest=hashlib.sha256(text.encode()).hexdigest(),
        owner=recipe.owner.hex() if recipe.owner else None,
        role=role.name,
        tables=recipe.tables if role.node else None,
        groups=_groups(place, trusted),
    )
    facts.save(place)
    _write_policies(place, recipe.name, sigstruct, signed=recipe.key is not None)
    # A recipe cannot make an unsafe one; this is for whoever changes the template.
    Image.open(place).check_safe("gramine-direct")


def _check(recipe: Recipe) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}", recipe.name):
        raise InputError(f"'{recipe.name}' is not an image name: use letters, digits, '.', '_' and '-'.")
    role = role_named(recipe.role)
    if role.node and recipe.work != "host":
        raise InputError("A node has no directory of a notebook to encrypt: leave --work out.")
    if not role.node and recipe.tables != manifest.WORK_PLACE:
        raise InputError("--tables belongs to --role spark-worker: a kernel's notebook is in /work.")
    if not is_plain(recipe.tables) or recipe.tables == "/":
        raise InputError(f"'{recipe.tables}' is no place for tables: name it as an absolute path.")
    if covers(manifest.MEMORY_PLACE, recipe.tables):
        raise InputError(
            f"'{recipe.tables}' is no place for tables: {manifest.MEMORY_PLACE} is the enclave's own memory, "
            "so name another directory."
        )
    if recipe.work not in ("host", "encrypted"):
        raise InputError(f"'{recipe.work}' is not a kind of working directory: say host or encrypted.")
    if recipe.key is not None:
        _check_key(recipe.key)
    if not re.fullmatch(r"[1-9][0-9]{0,5}[KMG]", recipe.enclave_size):
        raise InputError(f"'{recipe.enclave_size}' is not a size: write it like 64G.")


def _check_key(path: Path) -> None:
    """Look at the signing key before anything is built."""
    if not path.is_file():
        raise InputError(f"There is no key {path}: `gramine-sgx-gen-private-key {path}` makes one.")
    try:
        key = serialization.load_pem_private_key(
            read_bounded(path, "The key", 1 << 16, regular=True), password=None
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey) or (key.key_size, key.public_key().public_numbers().e) != (
        3072,
        3,
    ):
        raise InputError(
            f"{path} is no key that SGX takes, RSA of 3072 bits with exponent 3 in a PEM file without a "
            "passphrase: `gramine-sgx-gen-private-key` makes one."
        )


def _layers(recipe: Recipe) -> tuple[str, ...]:
    known = tuple(distributions.LAYERS)
    for layer in recipe.layers:
        if layer not in known:
            raise InputError(f"There is no layer '{layer}'; there are: {', '.join(known)}.")
    last = max((known.index(layer) for layer in recipe.layers), default=0)
    return known[: last + 1]


def _settle(place: Path) -> None:
    """Give every file one time and one of two modes, so that nothing of this machine shows."""
    for path in [*place.rglob("*")]:
        if path.is_file():
            path.chmod(0o555 if path.stat().st_mode & 0o100 else 0o444)
            os.utime(path, (BUILT_TIME, BUILT_TIME))


def _sign(place: Path, key: Path | None, say: Callable[[str], None]) -> Sigstruct:
    """Sign, or without a key only find out the measurement."""
    if key is None:
        return measure((place / f"{PROGRAM}.manifest").read_bytes())
    say("Signing")
    gramine.sign(place, PROGRAM, key)
    return Sigstruct.parse((place / f"{PROGRAM}.sig").read_bytes())


def _write_policies(place: Path, name: str, sigstruct: Sigstruct, *, signed: bool) -> None:
    now = datetime.now(UTC)
    for tee, file in POLICY_FILES.items():
        enclave = sigstruct if tee == "gramine-sgx" else None
        (place / file).write_text(policy_of(name, tee, enclave, signed=signed, now=now))


def _groups(place: Path, trusted: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return how many files and bytes each part of the image has."""
    groups: dict[str, dict[str, int]] = {}
    for path in trusted:
        group = _group(path)
        found = groups.setdefault(group, {"files": 0, "bytes": 0})
        found["files"] += 1
        found["bytes"] += (place / path).stat().st_size
    return groups


def _group(path: str) -> str:
    within = f"/{path.removeprefix('root/')}"
    site = str(interpreter.SITE_PACKAGES)
    if path.startswith("gramine/"):
        return "library OS"
    if within.startswith((f"{site}/sealbook", f"{site}/{CODE}/sealbook.", f"{site}/{SOURCE}/sealbook.")):
        return "sealbook"
    if within.startswith(f"{site}/pyspark/jars/"):
        return "jars of Spark"
    if within.startswith(site):
        return "packages"
    if covers(str(java.PREFIX), within):
        return "Java"
    if within == str(interpreter.EXECUTABLE):
        return "interpreter"
    if within.startswith(str(interpreter.PREFIX)):
        return "standard library"
    if within.startswith(str(site_packages.ZONES)):
        return "time zones"
    if within.startswith("/etc/"):
        return "settings"
    return "libraries" if within.startswith(str(libraries.DIRECTORY)) else "programs"
