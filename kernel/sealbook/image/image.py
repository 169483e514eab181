"""A built image: what it says of itself, and whether it is still what was built."""

from __future__ import annotations

import hashlib
import hmac
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sealbook import files
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, MissingDependencyError, RefusedError, SealbookError
from sealbook.image import gramine
from sealbook.image.lint import lint
from sealbook.image.manifest import IMAGE
from sealbook.image.reading import check_facts, read_manifest
from sealbook.image.sigstruct import SIGSTRUCT_BYTES, Sigstruct

#: Gramine appends its endings to this name.
PROGRAM = "kernel"

FACTS_FILE = "image.json"
POLICY_FILES = {"gramine-sgx": "policy-sgx.toml", "gramine-direct": "policy-direct.toml"}

#: The modification time of every file of an image, in seconds: any other and the file is read again.
BUILT_TIME = 315532800  # 1980-01-01, the oldest that zip files and others can hold

_FORMAT = 1
_MAX_FACTS_BYTES = 1 << 20


@dataclass(frozen=True)
class Facts:
    """What ``image.json`` says. For people: what counts is the manifest, and what was measured of it.

    Attributes
    ----------
    layers
        For which purposes packages were put in.
    gramine, python
        Versions.
    packages
        Name and version.
    programs
        Names of the programs in ``/bin``.
    mrenclave, mrsigner
        Hex, or None while not known.
    work
        ``"host"`` or ``"encrypted"``; see :mod:`sealbook.image.manifest`.
    manifest
        SHA-256 of ``kernel.manifest`` in hex.
    owner
        Whose challenges its kernels answer (an Ed25519 public key in hex), or whose clusters its nodes join
        (SHA-256 of the public key of the broker's authority); None for anyone's.
    role
        A name of :data:`sealbook.image.roles.ROLES`.
    tables
        Of a node: where it sees sealed tables; else None.
    groups
        What is measured: number of files and bytes of each group.
    """

    name: str
    layers: list[str]
    gramine: str
    python: str
    packages: dict[str, str]
    programs: list[str]
    mrenclave: str | None
    mrsigner: str | None
    isv_prod_id: int
    isv_svn: int
    signed: bool
    work: str
    manifest: str
    owner: str | None = None
    role: str = "kernel"
    tables: str | None = None
    groups: dict[str, dict[str, int]] = field(default_factory=dict)
    format: int = _FORMAT

    def save(self, image: Path) -> None:
        """Write it into an image."""
        files.write_bytes(image / FACTS_FILE, canonical_json(asdict(self)))

    @classmethod
    def load(cls, image: Path) -> Facts:
        """Read it.

        Raises
        ------
        InputError
            There is none, or it is not one of this version of sealbook.
        """
        if not (image / FACTS_FILE).is_file():
            raise InputError(f"There is no kernel image {image}: build one with `sealbook image build`.")
        return cls.read(image)

    @classmethod
    def read(cls, image: Path) -> Facts:
        """Read it where it is known that there should be one; raises InputError as :meth:`load`."""
        path = image / FACTS_FILE
        data = files.read_bounded(path, "The image's record", _MAX_FACTS_BYTES, regular=True)
        parsed = parse_json(data, what=str(path), max_bytes=_MAX_FACTS_BYTES)
        check_facts(parsed, str(path))
        return cls(**parsed)


@dataclass(frozen=True)
class Image:
    """An image directory."""

    path: Path
    facts: Facts

    @classmethod
    def open(cls, path: Path) -> Image:
        """Open an image.

        Raises
        ------
        InputError
            There is no image at `path`.
        """
        return cls(path, Facts.load(path))

    def policy(self, tee: str) -> Path:
        """Return the policy that was written for this image and that kind of kernel."""
        return self.path / POLICY_FILES[tee]

    def problems(self, tee: str = "gramine-direct") -> list[str]:
        """Return what keeps a kernel of that kind from being started from this image, as sentences."""
        found = []
        for check in (self.check_signed, self.check_owned, self.check_safe, self.check_unchanged):
            try:
                check(tee)
            except SealbookError as error:
                found.append(str(error))
                if check == self.check_signed:
                    break  # without a signed manifest there is nothing to compare
        return found

    def check_runnable(self, tee: str) -> None:
        """Refuse to start what could not run, in a sentence that says what to do.

        Raises
        ------
        MissingDependencyError
            No Gramine, an old one, or no SGX device.
        RefusedError
            The image is not signed, was changed, or was built for another Gramine.
        """
        self.check_machine(tee)
        self.check_signed(tee)
        self.check_owned(tee)
        self.check_unchanged(tee)

    def check_machine(self, tee: str) -> None:
        """Refuse to start on a machine that lacks what this image needs.

        Raises
        ------
        MissingDependencyError
            No Gramine, an old one, or no SGX device.
        RefusedError
            The image was built for another Gramine.
        """
        found = gramine.check_version(tee)
        if tee == "gramine-sgx" and not Path("/dev/sgx_enclave").exists():
            raise MissingDependencyError(
                "This machine has no /dev/sgx_enclave, so no hardware enclave can start: `sealbook doctor` "
                "says what is missing; the kernels sealbook-gramine-direct and sealbook-simulated need none."
            )
        if found != self.facts.gramine:
            raise RefusedError(
                f"The image {self.path} was built with Gramine {self.facts.gramine} and this is {found}: "
                "build it again with `sealbook image build --force`."
            )

    def check_signed(self, tee: str) -> None:
        """Refuse to run an unsigned image on hardware.

        Raises
        ------
        RefusedError
            The sentence names the command that signs.
        """
        if tee != "gramine-sgx":
            return
        again = "build it again with `sealbook image build --force --key KEY`"
        parts = (self._path_of(".manifest.sgx"), self._path_of(".sig"))
        if not self.facts.signed or not all(path.is_file() for path in parts):
            raise RefusedError(
                f"The image {self.path} is not signed, and SGX runs only signed enclaves: {again} "
                "(`gramine-sgx-gen-private-key KEY` makes a key)."
            )
        signed = Sigstruct.parse(
            files.read_bounded(parts[1], "The signature", 2 * SIGSTRUCT_BYTES, regular=True)
        )
        if (signed.mrenclave.hex(), signed.mrsigner.hex()) != (self.facts.mrenclave, self.facts.mrsigner):
            raise RefusedError(f"{parts[1]} signs another image than {self.path / FACTS_FILE} says: {again}.")

    def check_owned(self, tee: str) -> None:
        """Refuse to run an image on hardware that would make quotes for its host.

        Raises
        ------
        RefusedError
            The image answers anyone; see :mod:`sealbook.broker.ownership`.
        """
        if tee == "gramine-sgx" and self.facts.owner is None:
            raise RefusedError(
                f"The image {self.path} answers anyone, so that its host could have it make quotes: build it "
                "again with `sealbook image build --force --key KEY --owner me`."
            )

    def check_safe(self, tee: str) -> None:
        """Refuse an image whose manifest has an unsafe setting; see :mod:`sealbook.image.lint`.

        Raises
        ------
        RefusedError
            The sentence names the first one.
        """
        objections = lint(self.manifest(tee))
        if objections:
            raise RefusedError(
                f"The image {self.path} is unsafe: {objections[0]} (`sealbook image lint {self.path}` lists "
                f"all {len(objections)})."
            )

    def check_unchanged(self, tee: str) -> None:
        """Compare the files with the manifest.

        Gramine does this too, when a file is opened, and then stops without saying which. This is for
        people, not for security: files whose time stamp is the built one are not read again.

        Raises
        ------
        RefusedError
            The sentence names the first file.
        InputError
            The manifest cannot be read.
        """
        manifest = self.manifest(tee)
        try:
            entries = [manifest["loader"]["entrypoint"], *manifest["sgx"]["trusted_files"]]
            hashes = [(str(entry["uri"]), str(entry["sha256"])) for entry in entries]
        except (KeyError, TypeError):
            raise InputError(
                f"The manifest of {self.path} does not say what is measured: build it again."
            ) from None
        for uri, digest in hashes:
            self._check_file(uri, digest)
        # For gramine-direct, which takes any manifest; SGX compares the signed one with its signature.
        with self._path_of(".manifest").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not hmac.compare_digest(found, self.facts.manifest):
            raise RefusedError(_changed(self._path_of(".manifest"), "has another content"))

    def manifest(self, tee: str = "gramine-direct") -> dict[str, Any]:
        """Return the manifest that Gramine would read.

        Raises
        ------
        InputError
            It is missing, too large or not TOML.
        """
        return read_manifest(self._path_of(".manifest.sgx" if tee == "gramine-sgx" else ".manifest"))

    def _path_of(self, ending: str) -> Path:
        return self.path / f"{PROGRAM}{ending}"

    def _check_file(self, uri: str, digest: str) -> None:
        relative = PurePosixPath(uri.removeprefix("file:"))
        path = self.path.joinpath(*relative.parts[1:])
        if relative.parts[:1] != (IMAGE,) or ".." in relative.parts:
            raise RefusedError(f"The manifest of {self.path} names {uri}, which is outside of the image.")
        try:
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_mtime == BUILT_TIME:
                return
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            cause = getattr(error, "strerror", None) or "cannot be read"
            raise RefusedError(_changed(path, cause)) from None
        if not hmac.compare_digest(found.encode(), digest.encode()):
            raise RefusedError(_changed(path, "has another content"))


def _changed(path: Path, how: str) -> str:
    return (
        f"{path} {how} since the image was built: find out who changed it, and build the image again with "
        "`sealbook image build --force`."
    )
