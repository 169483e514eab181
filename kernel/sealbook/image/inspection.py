"""What `sealbook image inspect` shows: what is measured, what the host can see and change, and why it may.

Made from the manifests and ``image.json`` alone. The signed manifest is what counts, for the measurement
covers it; where the other one or the record says something else, that is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sealbook.errors import InputError
from sealbook.image.image import FACTS_FILE, Facts
from sealbook.image.lint import lint
from sealbook.image.lint_files import read_files
from sealbook.image.manifest import REGISTRATION_PLACE, SCRATCH_PLACE, WORK_PLACE
from sealbook.image.mounts import CHROOT, ENCRYPTED, TMPFS, Files, Mount
from sealbook.image.objection import Objection, several
from sealbook.image.reading import MANIFEST, SIGNED_MANIFEST, read_manifest

_MAX_FACTS_BYTES = 1 << 20

#: What gramine-sgx-sign adds, as false, to a manifest in which all is written that the lint wants written.
_ADDED_BY_GRAMINE = (("sgx", "debug"), ("sgx", "enable_stats"), ("sgx", "use_exinfo"))
_NO_SIGNED_MANIFEST = (
    f"{FACTS_FILE} says that it is signed, and there is no {SIGNED_MANIFEST}: what is shown is {MANIFEST}, "
    "which SGX does not run."
)

_MEASURED = (
    "every file there is measured: Gramine compares what it reads with the SHA-256, and opens no other"
)
_IN_MEMORY = "it is in the enclave's memory, which the host can neither read nor change"
_SCRATCH = "Gramine encrypts it with a key that the kernel makes for itself and that ends with it"
_ENCRYPTED = (
    "Gramine encrypts it with the key '{key}', which the kernel gets after attestation; it opens no changed "
    "file (the host sees names and sizes, and can put back an older file)"
)
_LAUNCH = (
    "it holds the address to report to, nothing secret: the kernel takes it for untrusted input, and its "
    "quote covers what it was told"
)
#: What one of these settings breaks is not safe, whatever the mount itself says.
_BREAKS_ALL = ("sgx.debug",)
_BREAKS_MEASURED = ("sgx.file_check_policy", "sgx.trusted_files", "sgx.allowed_files")
_BREAKS_ENCRYPTED = ("fs.insecure__keys",)

_WORK = (
    "it is the notebook's own directory, and what the kernel writes there in the clear the host reads; the "
    "kernel looks for no program, library or module in it, and sealed files protect themselves"
)
_TABLES = (
    "it is the directory with the sealed tables, and nothing runs or starts there; a node takes no file "
    "in it for anything but data, and sealed files protect themselves"
)


@dataclass(frozen=True)
class MountView:
    """One mount, as a person asks about it.

    Attributes
    ----------
    path, kind
        Inside the kernel.
    backing
        What it is on the host.
    host_reads, host_changes
        Whether the host sees its content, and whether the kernel would read what the host puts there.
    why
        Why that is safe, or why it is not.
    safe
        Whether the lint has nothing against it.
    """

    path: str
    kind: str
    backing: str
    host_reads: bool
    host_changes: bool
    why: str
    safe: bool


@dataclass(frozen=True)
class Inspection:
    """An image, explained.

    Attributes
    ----------
    facts
        What ``image.json`` says, checked for form.
    trusted_files
        How many files the manifest has a hash of, the library OS included.
    objections
        What the lint has against the manifest.
    remarks
        Sentences: where the record and the manifest disagree, and what the image cannot do.
    """

    facts: Facts
    entrypoint: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    start_dir: str
    trusted_files: int
    mounts: tuple[MountView, ...]
    objections: tuple[Objection, ...]
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return asdict(self)


def inspect_image(image: Path) -> Inspection:
    """Explain the image in the directory `image`.

    Raises
    ------
    InputError
        It is none, or one of its files cannot be used.
    """
    if not image.is_dir():
        raise InputError(f"{image} is not a kernel image: it is no directory.")
    facts, plain = Facts.read(image), read_manifest(image / MANIFEST)
    if not (image / SIGNED_MANIFEST).exists():
        unsigned = (_NO_SIGNED_MANIFEST,) if facts.signed else ()
        return _with_remarks(inspect_manifest(plain, facts), unsigned)
    signed = read_manifest(image / SIGNED_MANIFEST)
    return _with_remarks(inspect_manifest(signed, facts), _differences(plain, signed))


def inspect_manifest(manifest: Mapping[str, Any], facts: Facts) -> Inspection:
    """Explain a manifest and what is on record of its image; either may be wrong, and is then shown so."""
    objections = tuple(lint(manifest))
    files, _ = read_files(manifest)
    fs, libos, loader, sgx = (_table(manifest.get(name)) for name in ("fs", "libos", "loader", "sgx"))
    argv = loader.get("argv")
    trusted = len(files.trusted) + (1 if "sha256" in _table(loader.get("entrypoint")) else 0)
    return Inspection(
        facts=facts,
        entrypoint=str(libos.get("entrypoint", "-")),
        argv=tuple(map(str, argv)) if isinstance(argv, list) else (),
        environment={name: _value(value) for name, value in _table(loader.get("env")).items()},
        start_dir=str(fs.get("start_dir", "/")),
        trusted_files=trusted,
        mounts=tuple(_view(mount, files, objections) for mount in files.mounts),
        objections=objections,
        remarks=tuple(_remarks(facts, files, sgx, trusted, objections)),
    )


def _with_remarks(inspection: Inspection, remarks: Iterable[str]) -> Inspection:
    return replace(inspection, remarks=(*inspection.remarks, *remarks))


def _differences(plain: Mapping[str, Any], signed: Mapping[str, Any]) -> Iterator[str]:
    """Say where the two manifests of an image differ, apart from what Gramine writes when it signs."""
    one, other = (dict(_settings(manifest)) for manifest in (plain, signed))
    for name in _ADDED_BY_GRAMINE:
        if name not in one and other.get(name) is False:
            del other[name]
    names = sorted(".".join(name) for name in {*one, *other} if not _same(one.get(name), other.get(name)))
    if names:
        yield (
            f"{SIGNED_MANIFEST}, which SGX runs and which is shown here, is not {MANIFEST}, which "
            f"gramine-direct runs: they differ in {several(names)}."
        )


def _settings(table: Mapping[str, Any], *outer: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _settings(value, *outer, name)
        else:
            yield (*outer, name), value


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False  # Python takes True for 1; TOML does not
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    return bool(one == other)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value["value"]) if set(value) == {"value"} else "(from the host)"
    return str(value)


def _view(mount: Mount, files: Files, objections: tuple[Objection, ...]) -> MountView:
    changeable = files.changeable(mount)
    against = next((each.reason for each in objections if _concerns(each, mount)), None)
    if against is None and changeable and mount.path not in files.open_places:
        against = "the host may change it"
    return MountView(
        path=mount.path,
        kind=mount.kind,
        backing="memory" if mount.host is None else f"file:{mount.host}",
        host_reads=mount.kind not in {TMPFS, ENCRYPTED},
        host_changes=changeable,
        why=f"not safe: {against}" if against else _why(mount, changeable=changeable),
        safe=against is None,
    )


def _concerns(objection: Objection, mount: Mount) -> bool:
    breaking: tuple[str, ...] = (mount.setting, *_BREAKS_ALL)
    if mount.kind == CHROOT:
        breaking += _BREAKS_MEASURED
    elif mount.kind == ENCRYPTED:
        breaking += _BREAKS_ENCRYPTED
    # Also what is said of a part of it: fs.mounts[1].key_name, sgx.allowed_files[0].
    return any(
        objection.setting == name or objection.setting.startswith((f"{name}.", f"{name}["))
        for name in breaking
    )


def _why(mount: Mount, *, changeable: bool) -> str:
    if mount.kind == TMPFS:
        return _IN_MEMORY
    if mount.kind == ENCRYPTED:
        return _SCRATCH if mount.path == SCRATCH_PLACE else _ENCRYPTED.format(key=mount.key_name)
    if not changeable:
        return _MEASURED
    return {REGISTRATION_PLACE: _LAUNCH, WORK_PLACE: _WORK}.get(mount.path, _TABLES)


def _remarks(
    facts: Facts, files: Files, sgx: Mapping[str, Any], trusted: int, objections: tuple[Objection, ...]
) -> list[str]:
    remarks = []
    if objections:
        remarks.append(f"{len(objections)} settings are unsafe: `sealbook image lint` says which and why.")
    if not facts.signed:
        remarks.append("It is not signed, so it starts with gramine-direct only, where nothing is attested.")
    for name, setting in (("isv_prod_id", "isvprodid"), ("isv_svn", "isvsvn")):
        recorded = getattr(facts, name)
        if setting in sgx and sgx[setting] != recorded:
            remarks.append(
                f"{FACTS_FILE} says {name} {recorded}, the manifest sgx.{setting} {sgx[setting]}: "
                "the manifest counts."
            )
    work = next((mount for mount in files.mounts if mount.path == WORK_PLACE), None)
    found = "encrypted" if work is not None and work.kind == ENCRYPTED else "host"
    if work is not None and found != facts.work:
        remarks.append(
            f"{FACTS_FILE} says that {WORK_PLACE} is {facts.work}, the manifest that it is {found}: "
            "the manifest counts."
        )
    grouped = sum(group["files"] for group in facts.groups.values())
    if grouped != trusted:
        remarks.append(
            f"{FACTS_FILE} counts {grouped} measured files, the manifest {trusted}: the manifest counts."
        )
    return remarks
