"""Rules for files: what is measured, what the host may change, and what is mounted where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sealbook.image.lint_java import is_node
from sealbook.image.lint_settings import unknown_keys
from sealbook.image.manifest import (
    DATA_PLACE,
    MEMORY_PLACE,
    REGISTRATION_PLACE,
    SCRATCH,
    SCRATCH_PLACE,
    WORK,
    WORK_PLACE,
)
from sealbook.image.mounts import (
    CHROOT,
    ENCRYPTED,
    OPEN_PLACES,
    TMPFS,
    Files,
    HostPaths,
    Mount,
    covers,
    host_path,
    is_plain,
    overlap,
    uri_problem,
)
from sealbook.image.objection import Objection, several, shortened, shown

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENTRY = {"uri", "sha256"}
_MOUNT_KEYS = {
    CHROOT: {"type", "path", "uri"},
    ENCRYPTED: {"type", "path", "uri", "key_name", "enable_recovery"},
    TMPFS: {"type", "path"},
}
#: Of mounts and allowed files. Each is compared with each, and an image has less than ten.
MOST_ENTRIES = 500
#: Gramine's own: what the kernel learns of itself and of its attestation comes from there.
_PSEUDO = ("/dev", "/proc", "/sys")
#: What a node keeps for itself, beside code; sealed tables are nowhere in it, nor it in them.
_KEPT_BY_NODES = (SCRATCH_PLACE, DATA_PLACE, "/run")


def read_files(manifest: Mapping[str, Any]) -> tuple[Files, list[Objection]]:
    """Judge everything that names a file, and return what is sound of it."""
    fs, sgx, loader = (_table(manifest, name) for name in ("fs", "sgx", "loader"))
    trusted, objections = _trusted(sgx.get("trusted_files"))
    mounts, against_mounts, readable = _mounts(fs)
    places = _open_places(manifest, mounts)
    allowed, against_allowed = _allowed(
        sgx.get("allowed_files", []), trusted or HostPaths(()), mounts if readable else None, places
    )
    files = Files(trusted or HostPaths(()), allowed, mounts, trusted is not None and readable, places)
    objections += against_mounts + against_allowed
    objections += _start_dir(fs)
    objections += _library_os(loader.get("entrypoint"))
    if readable:
        objections += _against_memory_place(mounts)
    if files.complete:
        mentioned = _mentioned(sgx.get("allowed_files", []))
        for number, mount in enumerate(mounts):
            objections += _hidden(mount, mounts[:number])
            objections += _backing(mount, files, mentioned)
    return files, objections


def _open_places(manifest: Mapping[str, Any], mounts: tuple[Mount, ...]) -> frozenset[str]:
    """Return what the host may change: of a node not /work, but wherever it has the sealed tables."""
    if not is_node(manifest):
        return OPEN_PLACES
    tables = next((mount.path for mount in mounts if mount.kind == CHROOT and mount.host == WORK), None)
    if tables is None or any(overlap(tables, place) for place in _KEPT_BY_NODES):
        return frozenset({REGISTRATION_PLACE})
    return frozenset({REGISTRATION_PLACE, tables})


def _table(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = manifest.get(name)
    return value if isinstance(value, Mapping) else {}


# -- sgx.trusted_files ---------------------------------------------------------------------------


def _trusted(entries: Any) -> tuple[HostPaths | None, list[Objection]]:
    """Judge the list; thousands of entries with one fault are one objection."""
    setting = "sgx.trusted_files"
    if not isinstance(entries, list):
        found = shown(entries)
        return None, [Objection(setting, found, "nothing would be measured", "list every file of the image")]
    paths: dict[str, None] = {}
    faults: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        fault = _fault_of_trusted(entry)
        if fault is None:
            path = host_path(entry["uri"])
            if path not in paths:
                paths[path] = None
                continue
            fault = "it is there twice, and only one of the hashes counts", "keep one"
        uri = entry.get("uri") if isinstance(entry, Mapping) else entry
        faults.setdefault(fault, []).append(uri if isinstance(uri, str) else shown(uri))
    objections = [Objection(setting, several(uris), *fault) for fault, uris in faults.items()]
    return HostPaths(paths), objections


def _fault_of_trusted(entry: Any) -> tuple[str, str] | None:
    if not isinstance(entry, Mapping):
        return (
            "an entry without sha256 measures nothing",
            "write { uri, sha256 }, as `gramine-manifest` does",
        )
    problem = uri_problem(entry.get("uri"))
    if problem:
        return problem
    if not _is_sha256(entry.get("sha256")):
        return "an entry without a sha256 of 64 lower-case digits measures nothing", "write its hash"
    unknown = next(unknown_keys(entry, _ENTRY, ""), None)
    return (unknown.reason, unknown.remedy) if unknown else None


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


# -- sgx.allowed_files ---------------------------------------------------------------------------


def _allowed(
    entries: Any, trusted: HostPaths, mounts: tuple[Mount, ...] | None, places: frozenset[str]
) -> tuple[tuple[str, ...], list[Objection]]:
    setting = "sgx.allowed_files"
    if not isinstance(entries, list):
        return (), [Objection(setting, shown(entries), "it is not a list", "write a list of URIs")]
    if len(entries) > MOST_ENTRIES:
        return (), [_too_many(setting, entries)]
    accepted, objections = [], []
    for number, uri in enumerate(entries):
        fault = _fault_of_allowed(uri, trusted, mounts, places)
        if fault is None:
            accepted.append(host_path(uri))
        else:
            objections.append(Objection(f"{setting}[{number}]", shown(uri), *fault))
    return tuple(accepted), objections


def _too_many(setting: str, entries: list[Any]) -> Objection:
    reason = f"so many cannot be judged; the most is {MOST_ENTRIES}"
    return Objection(setting, shown(entries), reason, "name the directories that hold them")


def _fault_of_allowed(
    uri: Any, trusted: HostPaths, mounts: tuple[Mount, ...] | None, places: frozenset[str]
) -> tuple[str, str] | None:
    problem = uri_problem(uri, directory=True)
    if problem:
        return problem
    path = host_path(uri)
    if trusted.overlaps(path):
        # Gramine looks into the allowed files first: a file in both lists is not checked.
        return "trusted files lie there, and what is allowed is not checked", "remove it"
    if mounts is None:
        # What is wrong with the mounts is said already, and this may be right when they are.
        return None
    paths = {mount.path for mount in mounts if mount.kind == CHROOT and mount.host == path}
    if REGISTRATION_PLACE in paths and uri.endswith("/"):
        return "the launch parameters are one file, not a directory", f"write file:{path}"
    if not paths & places:
        return (
            f"the host may change it, which only {' and '.join(sorted(places))} are made for",
            "remove it, or mount it encrypted",
        )
    return None


def _mentioned(entries: Any) -> tuple[str, ...]:
    """Return also the entries that were refused, so that their mounts are not objected to as well."""
    if not isinstance(entries, list) or len(entries) > MOST_ENTRIES:
        return ()
    return tuple(host_path(uri) for uri in entries if uri_problem(uri, directory=True) is None)


# -- fs.root and fs.mounts -----------------------------------------------------------------------


def _mounts(fs: Mapping[str, Any]) -> tuple[tuple[Mount, ...], list[Objection], bool]:
    """Return the sound mounts, the objections, and whether all of them were sound."""
    objections = list(_against_root(fs.get("root")))
    mounts = [] if objections else [Mount("fs.root", CHROOT, "/", host_path(fs["root"]["uri"]))]
    entries = fs.get("mounts")
    if not isinstance(entries, list):
        found = shown(entries)
        remedy = "write [[fs.mounts]], one for each"
        objections.append(Objection("fs.mounts", found, "Gramine asks for the list of mounts", remedy))
        entries = []
    elif len(entries) > MOST_ENTRIES:
        objections.append(_too_many("fs.mounts", entries))
        entries = []
    for number, entry in enumerate(entries):
        setting = f"fs.mounts[{number}]"
        against = list(_against_mount(setting, entry))
        objections += against
        if not against:
            kind = entry.get("type", CHROOT)
            host = host_path(entry["uri"]) if "uri" in entry else None
            mounts.append(Mount(setting, kind, entry["path"], host, entry.get("key_name")))
            objections += _against_shared_key(mounts[-1], mounts[:-1])
    return tuple(mounts), objections, not objections


def _against_root(root: Any) -> Iterator[Objection]:
    if not isinstance(root, Mapping):
        yield Objection(
            "fs.root",
            shown(root),
            "without it the directory from which the kernel is started is its root",
            'write fs.root = { type = "chroot", uri = "file:image/root" }',
        )
        return
    if root.get("type", CHROOT) != CHROOT:
        yield Objection(
            "fs.root.type", shown(root["type"]), "the root holds the measured files", f'write "{CHROOT}"'
        )
    yield from _against_uri("fs.root", root)
    yield from unknown_keys(root, {"type", "uri"}, "fs.root")


def _against_mount(setting: str, entry: Any) -> Iterator[Objection]:
    if not isinstance(entry, Mapping):
        yield Objection(setting, shown(entry), "it is not a table", "write [[fs.mounts]]")
        return
    kind = entry.get("type", CHROOT)
    if kind == "untrusted_shm":
        yield Objection(
            f"{setting}.type",
            shown(kind),
            "the host can read and change that memory while the kernel uses it",
            f"remove the mount, or use {TMPFS}",
        )
        return
    if not isinstance(kind, str) or kind not in _MOUNT_KEYS:
        yield Objection(
            f"{setting}.type", shown(kind), "no such kind is known", f"write {CHROOT}, {ENCRYPTED} or {TMPFS}"
        )
        return
    yield from unknown_keys(entry, _MOUNT_KEYS[kind], setting)
    yield from _against_path(f"{setting}.path", entry.get("path"))
    if kind != TMPFS:
        yield from _against_uri(setting, entry)
    if kind == ENCRYPTED:
        yield from _against_key(setting, entry)


def _against_path(setting: str, path: Any) -> Iterator[Objection]:
    found = shown(path)
    if not is_plain(path):
        yield Objection(
            setting, found, "it is not an absolute path without . and ..", 'write such as "/scratch"'
        )
    elif path == "/":
        yield Objection(setting, found, "the root is mounted by fs.root", "remove the mount")
    elif any(covers(pseudo, path) for pseudo in _PSEUDO):
        yield Objection(
            setting, found, "Gramine's own files are there, those of attestation too", "mount it elsewhere"
        )


def _against_uri(setting: str, entry: Mapping[str, Any]) -> Iterator[Objection]:
    problem = uri_problem(entry.get("uri"))
    if problem:
        yield Objection(f"{setting}.uri", shown(entry.get("uri")), *problem)


def _against_key(setting: str, entry: Mapping[str, Any]) -> Iterator[Objection]:
    name, recovery = entry.get("key_name"), entry.get("enable_recovery", False)
    found = shown(name)
    remedy = 'name a key of its own, such as "data"'
    setting_of_key = f"{setting}.key_name"
    if not isinstance(name, str) or not name:
        yield Objection(setting_of_key, found, 'without a name it gets the key "default"', remedy)
    elif name == "default":
        yield Objection(setting_of_key, found, "every mount without a name has this key too", remedy)
    elif name.startswith("_"):
        yield Objection(
            setting_of_key,
            found,
            "the processor gives such a key to every kernel of this image or signer, attested to you or not",
            remedy,
        )
    elif not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        yield Objection(
            setting_of_key, found, "it is a file's name under /dev/attestation/keys", "use letters and digits"
        )
    if not isinstance(recovery, bool):
        yield Objection(
            f"{setting}.enable_recovery",
            shown(recovery),
            "it is true or false",
            "write one of them, or nothing",
        )


def _against_shared_key(mount: Mount, before: list[Mount]) -> Iterator[Objection]:
    """Refuse a key of two mounts: whoever gets the one reads and writes the other."""
    if mount.kind != ENCRYPTED:
        return
    setting, found = f"{mount.setting}.key_name", shown(mount.key_name)
    other = next((other for other in before if other.key_name == mount.key_name), None)
    if other is not None:
        yield Objection(setting, found, f"{other.setting} has the same key", "name a key of its own")
    elif (mount.path == SCRATCH_PLACE) != (mount.key_name == SCRATCH):
        yield Objection(
            setting,
            found,
            f'"{SCRATCH}" is the key that the kernel makes for {SCRATCH_PLACE} and for nothing else',
            f'write "{SCRATCH}" there and nowhere else',
        )


def _hidden(mount: Mount, before: tuple[Mount, ...]) -> Iterator[Objection]:
    """Refuse an order in which a mount hides another: what a reader sees is then not what the kernel has."""
    for other in before:
        if covers(mount.path, other.path):
            yield Objection(
                mount.setting,
                shown(mount.path),
                f"it hides {other.setting}, which is mounted at {shortened(other.path)} before it",
                "mount the outer one first, and each path once",
            )
            return


def _against_memory_place(mounts: tuple[Mount, ...]) -> Iterator[Objection]:
    """Demand the memory that private keys pass through: on any other mount they would be files of the host.

    An encrypted mount is refused too: whoever has its key, even later, would have those keys.
    """
    memory = [mount for mount in mounts if mount.path == MEMORY_PLACE]
    remedy = f'write {{ type = "{TMPFS}", path = "{MEMORY_PLACE}" }}'
    if not memory:
        reason = "private keys pass through files there, and nothing says that they stay in memory"
        yield Objection("fs.mounts", f"no {MEMORY_PLACE}", reason, remedy)
    for mount in mounts:
        if mount.path == MEMORY_PLACE and mount.kind != TMPFS:
            reason = "private keys pass through files there, which would be files of the host"
            yield Objection(f"{mount.setting}.type", shown(mount.kind), reason, remedy)
        elif mount.path != MEMORY_PLACE and covers(MEMORY_PLACE, mount.path):
            yield Objection(
                mount.setting,
                shown(mount.path),
                f"it lies over a part of {MEMORY_PLACE}, where private keys pass through files in memory",
                "mount it elsewhere",
            )


def _backing(mount: Mount, files: Files, mentioned: tuple[str, ...]) -> Iterator[Objection]:
    """Judge what a mount has behind it on the host."""
    if mount.kind == ENCRYPTED:
        yield from _alone(mount, files)
    elif files.changeable(mount):
        if mount.path not in files.open_places:
            open_places = " and ".join(sorted(files.open_places))
            yield Objection(
                mount.setting,
                shown(mount.path),
                f"the host may change what is mounted there, which only {open_places} are made for",
                "mount measured files there, or mount it encrypted",
            )
    elif mount.kind == CHROOT and not _accounted_for(mount.host or "", files, mentioned):
        yield Objection(
            mount.setting,
            shown(mount.path),
            "its files are neither measured nor allowed, so none of them could be opened",
            "measure them (sgx.trusted_files), mount it encrypted, or remove it",
        )


def _accounted_for(host: str, files: Files, mentioned: tuple[str, ...]) -> bool:
    allowed = any(overlap(host, entry) for entry in mentioned)
    return allowed or files.trusted.first_below(host) is not None


def _alone(mount: Mount, files: Files) -> Iterator[Objection]:
    host = mount.host or ""
    for other in files.mounts:
        if other is not mount and other.host is not None and overlap(host, other.host):
            yield Objection(
                f"{mount.setting}.uri",
                shown(f"file:{host}"),
                f"{other.setting} has the same files, and Gramine may then lose changes or show ciphertext",
                "give it a directory of its own",
            )
            return
    if files.trusted.overlaps(host):
        yield Objection(
            f"{mount.setting}.uri",
            shown(f"file:{host}"),
            "measured files lie there, which are not encrypted",
            "give it a directory of its own",
        )


# -- the rest ------------------------------------------------------------------------------------


def _start_dir(fs: Mapping[str, Any]) -> Iterator[Objection]:
    if "start_dir" in fs and not is_plain(fs["start_dir"]):
        yield Objection(
            "fs.start_dir",
            shown(fs["start_dir"]),
            "it is not an absolute path without . and ..",
            f'write such as "{WORK_PLACE}", or nothing',
        )


def _library_os(entry: Any) -> Iterator[Objection]:
    """Judge the library OS itself, which Gramine compares with the hash that stands beside it."""
    setting = "loader.entrypoint"
    if not isinstance(entry, Mapping):
        yield Objection(
            setting,
            shown(entry),
            "which library OS runs would depend on where Gramine is installed",
            "write its uri and sha256",
        )
        return
    yield from _against_uri(setting, entry)
    if not _is_sha256(entry.get("sha256")):
        yield Objection(
            f"{setting}.sha256",
            shown(entry.get("sha256")),
            "without a sha256 of 64 lower-case digits any library OS would do",
            "write its hash",
        )
    yield from unknown_keys(entry, _ENTRY, setting)
