"""MRENCLAVE of a simulated enclave: one digest over every file the kernel can load code from.

What is measured (:func:`runtime_roots`): the interpreter and its shared library, everything on this
interpreter's own ``sys.path`` (directories, zip files, and also that an entry is absent, because whatever
appears there would be loaded), what setuptools' editable finders lead to, and sealbook's own package. An
import hook that is not known might load from anywhere: with one, nothing is measured and the sentence
says how to do without.

Each directory has a digest: SHA-256 over one line ``name NUL kind NUL size NUL digest LF`` for each file or
link in it, sorted by name; the digest is SHA-256 of the content, or of a link's target. MRENCLAVE is SHA-256
over a header and one line ``label NUL relative path NUL digest LF`` for each directory, sorted. (No name has
a NUL in it and digests have one length, so no two trees give the same bytes.) Labels say what a root is and
not where it lies, so equal trees have equal measurements. What a link leads to outside the roots is
measured as a root of its own, ``linked/0`` and so on.

Byte code: files in ``__pycache__`` that this interpreter loads (its cache tag) are what runs, so they
are measured; those of other interpreters and of pytest's assertion rewriting are never
loaded and are not. Byte code written later would change the measurement, so kernels run with
``sys.dont_write_bytecode`` and :func:`settle_bytecode` compiles everything before a policy is made.

Speed: a cache remembers each directory's digest under a fingerprint of the (name, device, inode, size,
ctime) of all its entries, so that measuring again costs one walk with stat. Whatever changes a file
(content, mode, mtime, name) sets its ctime to the present, and no program can set it otherwise; files that
changed within the last two seconds are not trusted to the cache, as one more change might carry the same
time. The cache is a speed aid of the *simulated* platform: whoever can write it can run anything here.
"""

from __future__ import annotations

import compileall
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import re
import site
import stat
import sys
import sysconfig
import time
import warnings
import zipimport
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sealbook import paths
from sealbook.encoding import canonical_json
from sealbook.errors import InputError
from sealbook.files import write_bytes

_VERSION = 1
_CACHE_NAME = "measurement-cache.json"
_MAX_CACHE_BYTES = 256 * 1024 * 1024
#: Import hooks that only find what lies on ``sys.path`` or in modules that are loaded, by module and name.
_KNOWN_FINDERS = frozenset(
    {
        ("_distutils_hack", "DistutilsMetaFinder"),
        ("sealbook.pandas_urls", "_Finder"),
        ("six", "_SixMetaPathImporter"),
    }
)
_OWN_FINDERS = (
    importlib.machinery.BuiltinImporter,
    importlib.machinery.FrozenImporter,
    importlib.machinery.PathFinder,
)
#: A file changed more recently than this could change again within the same clock tick.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes
    ----------
    mrenclave
        32 bytes.
    files
        How many files the digest covers.
    roots
        Their labels and places, ``"site-packages/0 = /path"``.
    seconds
        How long it took.
    """

    mrenclave: bytes
    files: int = 0
    roots: tuple[str, ...] = ()
    seconds: float = 0.0


def measure(
    *,
    roots: Mapping[str, str | os.PathLike[str]] | None = None,
    extra_roots: Mapping[str, str | os.PathLike[str]] | None = None,
    cache: str | os.PathLike[str] | None = None,
    use_cache: bool = True,
) -> Measurement:
    """Measure what this interpreter runs.

    Parameters
    ----------
    roots
        Label to file or directory; by default :func:`runtime_roots`, some of which may be absent.
    extra_roots
        Measured besides.
    cache
        The cache file; by default one in the simulated platform's directory. Absent, damaged or
        unwritable, it is done without.
    use_cache
        False to read every byte again.

    Raises
    ------
    InputError
        A root that was given does not exist, one cannot be read, or an import hook is not known: a
        measurement that left something out would be wrong.
    """
    started = time.perf_counter()
    places = {**(runtime_roots() if roots is None else roots), **(extra_roots or {})}
    store = _Cache(_cache_file(cache) if use_cache else None)
    walk = _Walk(store)
    try:
        for label, place in sorted(places.items()):
            known = roots is None and label not in (extra_roots or {})
            walk.add(label, Path(place).absolute(), may_be_absent=known)
        walk.follow_links()
        mrenclave = walk.digest()
    except OSError as error:
        raise InputError(
            f"{error.filename or 'A file'} cannot be measured ({error.strerror}); make it readable and do "
            "not change the installation meanwhile."
        ) from None
    store.save()
    return Measurement(
        mrenclave=mrenclave,
        files=walk.files,
        roots=tuple(f"{label} = {place}" for label, place in walk.roots),
        seconds=time.perf_counter() - started,
    )


def runtime_roots() -> dict[str, Path]:
    """Return what this interpreter loads code from, by label; what is absent might appear.

    Raises
    ------
    InputError
        Something that is not known takes part in finding modules.
    """
    _refuse_unknown_finders()
    for entry in sys.path:
        if not Path(entry).is_absolute():
            raise InputError(
                f"The entry {entry!r} of sys.path depends on the working directory, so what it leads to "
                "cannot be measured; start Python with -I, and install packages non-editable."
            )
    return _roots(sys.path)


def _roots(path: Sequence[str]) -> dict[str, Path]:
    roots: dict[str, Path] = {"python": Path(sys.executable).resolve()}
    library = sysconfig.get_config_var("LDLIBRARY")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and library:
        shared = Path(sysconfig.get_config_var("LIBDIR") or "") / library
        if shared.exists():
            roots["libpython"] = shared.resolve()
    settings = Path(sys.prefix) / "pyvenv.cfg"
    if settings.exists():
        roots["pyvenv"] = settings
    stdlib = Path(sysconfig.get_path("stdlib"))
    groups: dict[str, list[Path]] = {"stdlib": [stdlib, Path(os.__file__).parent]}
    for entry in path:
        groups.setdefault(_kind(entry, stdlib), []).append(_container(Path(entry)))
    groups["editable"] = [place for mapping in _editable_mappings() for place in _mapped(mapping)]
    groups["sealbook"] = [Path(__file__).parents[2]]
    taken: list[Path] = []
    for label, places in groups.items():
        number = 0
        for place in places:
            resolved = place.resolve()
            if any(_covers(root, resolved) for root in taken):
                continue
            taken.append(resolved)
            roots[f"{label}/{number}"] = resolved
            number += 1
    return roots


def settle_bytecode(roots: Mapping[str, str | os.PathLike[str]] | None = None) -> None:
    """Compile every stale or missing byte code file, so that nothing is written lazily later.

    Files that do not compile (templates, other Pythons' syntax), directories that cannot be written
    and the standard library's own tests, which nobody imports, are left as they are.
    """
    if roots is None:
        # Without -I or -P the first entry is where the program lies, or the working directory.
        roots = _roots([entry for entry in sys.path[not sys.flags.safe_path :] if Path(entry).is_absolute()])
    for label, place in roots.items():
        directory = Path(place)
        if not directory.is_dir() or not os.access(directory, os.W_OK):
            continue
        # A standard library often holds the site-packages of another environment: not ours to touch.
        foreign = "|".join(re.escape(str(directory / name)) for name in _OTHER_PACKAGES)
        tests = "|.*/(?:tests?|idle_test)" if label.startswith("stdlib") else ""
        with contextlib.suppress(OSError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's code; the workers inherit the filter
            compileall.compile_dir(
                directory,
                maxlevels=64,
                quiet=2,
                workers=os.cpu_count() or 1,
                rx=re.compile(f"^(?:{foreign}{tests})/"),
            )


def _kind(entry: str, stdlib: Path) -> str:
    """Return what an entry of sys.path is called in labels."""
    place = Path(entry)
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    if place == stdlib or place.name in ("lib-dynload", archive):
        return "stdlib"
    known = {*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])}
    return "site-packages" if entry in known or place.name in _OTHER_PACKAGES else "path"


def _container(entry: Path) -> Path:
    """Return the zip file that an entry such as ``/lib/packages.zip/inner`` leads into, or the entry."""
    if not entry.exists():
        for parent in entry.parents:
            if parent.exists():
                return entry if parent.is_dir() else parent
    return entry


def _refuse_unknown_finders() -> None:
    for hook in sys.path_hooks:
        own = hook is zipimport.zipimporter or getattr(hook, "__module__", "") == "_frozen_importlib_external"
        if not own:
            raise _unknown(getattr(hook, "__module__", ""), getattr(hook, "__qualname__", repr(type(hook))))
    for finder in sys.meta_path:
        if finder in _OWN_FINDERS or _is_editable(finder):
            continue
        kind = _class_of(finder)
        if (kind.__module__, kind.__name__) not in _KNOWN_FINDERS:
            raise _unknown(kind.__module__, kind.__name__)
    list(_editable_mappings())


def _unknown(module: str, name: str) -> InputError:
    return InputError(
        f"What Python loads cannot be measured, because the import hook {module}.{name} may load from "
        "anywhere; install the package it belongs to non-editable (pip install without -e), or remove it."
    )


def _class_of(finder: object) -> type:
    return finder if isinstance(finder, type) else type(finder)


def _is_editable(finder: object) -> bool:
    """Whether it is the finder that setuptools generates for an editable install."""
    kind = _class_of(finder)
    return kind.__name__ == "_EditableFinder" and kind.__module__.startswith("__editable___")


def _editable_mappings() -> Iterator[dict[str, str]]:
    """Yield ``MAPPING`` (module name to place) of each editable finder, the one that it uses."""
    for finder in sys.meta_path:
        if _is_editable(finder):
            kind = _class_of(finder)
            mapping = getattr(sys.modules.get(kind.__module__), "MAPPING", None)
            if not isinstance(mapping, dict) or not all(
                isinstance(place, str) and Path(place).is_absolute() for place in mapping.values()
            ):
                raise _unknown(kind.__module__, kind.__name__)
            yield mapping


def _mapped(mapping: Mapping[str, str]) -> Iterator[Path]:
    """Yield what a finder's mapping leads to: packages are directories, modules lack their suffix."""
    for _, place in sorted(mapping.items()):
        target = Path(place)
        yield target
        if not target.name or (target / "__init__.py").exists():
            continue  # otherwise the finder tries each suffix
        for suffix in importlib.machinery.all_suffixes():
            module = target.with_suffix(suffix)
            yield module
            if suffix in importlib.machinery.SOURCE_SUFFIXES:
                yield Path(importlib.util.cache_from_source(module))


def _covers(root: Path, place: Path) -> bool:
    """Whether measuring `root` measures `place` too."""
    if not place.is_relative_to(root):
        return False
    below = place.relative_to(root).parts
    return not below or below[0] not in _OTHER_PACKAGES


#: Directly below a root these are left out: they are roots of their own where they are on the path.
_OTHER_PACKAGES = ("dist-packages", "site-packages")


def _cache_file(cache: str | os.PathLike[str] | None) -> Path:
    return Path(cache) if cache is not None else paths.simulated_platform_dir() / _CACHE_NAME


class _Cache:
    """Digests by directory: ``{place: [fingerprint, digest, files, outward links]}`` in a JSON file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.old = self._load()
        self.new: dict[str, list[Any]] = {}

    def save(self) -> None:
        """Write what changed; without success measuring is only slower."""
        if self._path is None or self.new == self.old:
            return
        document = {"version": _VERSION, "entries": self.new}  # a TypeError: some path is not UTF-8
        with contextlib.suppress(OSError, TypeError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(self._path, canonical_json(document), mode=0o600)

    def _load(self) -> dict[str, list[Any]]:
        if self._path is None:
            return {}
        try:
            if self._path.stat().st_size > _MAX_CACHE_BYTES:
                return {}
            document = json.loads(self._path.read_bytes())
            entries = document["entries"] if document["version"] == _VERSION else {}
            if not all(
                len(entry) == 4
                and len(entry[1]) == 64
                and isinstance(entry[2], int)
                and isinstance(entry[3], list)
                for entry in entries.values()
            ):
                return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
        return dict(entries)


@dataclass
class _Directory:
    """The loose files of one directory: hashed already (from the cache), or to be hashed."""

    label: str
    relative: str
    place: str
    fingerprint: str
    names: list[str]
    settled: bool
    entry: list[Any] | None


_EMPTY = hashlib.sha256(b"").hexdigest().encode()
#: As of a file root, with another kind; see :func:`_describe`.
_ABSENT: list[Any] = ["", hashlib.sha256(b"\0absent\0%d\0%b\n" % (0, _EMPTY)).hexdigest(), 0, []]


class _Walk:
    """One pass over the roots."""

    def __init__(self, cache: _Cache) -> None:
        self._cache = cache
        self._suffix = f".{sys.implementation.cache_tag}."
        self._newest_settled = time.time_ns() - _SETTLED_NS
        self._directories: list[_Directory] = []
        self.roots: list[tuple[str, Path]] = []
        self.files = 0

    def add(self, label: str, place: Path, *, may_be_absent: bool = False) -> None:
        """Walk one root."""
        self.roots.append((label, place))
        try:
            status = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            if not may_be_absent:
                raise
            self._directories.append(_Directory(label, "", str(place), "", [], settled=False, entry=_ABSENT))
            return
        if not stat.S_ISDIR(status.st_mode):
            numbers = array("q", (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns))
            self._record(label, "", str(place), [""], numbers, status.st_ctime_ns)
            return
        pending = [""]
        while pending:
            relative = pending.pop()
            self._scan(label, str(place), relative, pending)

    def follow_links(self) -> None:
        """Hash what is new, and walk whatever links lead to outside the roots, until nothing is left."""
        done = 0
        linked = 0
        while done < len(self._directories):
            fresh = self._directories[done:]
            done = len(self._directories)
            self._hash([directory for directory in fresh if directory.entry is None])
            targets = sorted(
                {target for each in fresh if each.entry and each.entry[3] for target in each.entry[3]}
            )
            for target in targets:
                place = Path(target)
                if place.exists() and not any(_covers(root.resolve(), place) for _, root in self.roots):
                    self.add(f"linked/{linked}", place)
                    linked += 1

    def digest(self) -> bytes:
        """Return MRENCLAVE; everything has been hashed."""
        lines = []
        for directory in self._directories:
            entry = directory.entry
            if entry is None:  # pragma: no cover - follow_links hashes all
                raise AssertionError("a directory was not hashed")
            lines.append(
                b"%b\0%b\0%b\n"
                % (directory.label.encode(), os.fsencode(directory.relative), entry[1].encode())
            )
            self.files += entry[2]
            if directory.settled:
                self._cache.new[directory.place] = entry
        result = hashlib.sha256(b"sealbook measurement %d\n" % _VERSION)
        for line in sorted(lines):
            result.update(line)
        return result.digest()

    def _scan(self, label: str, root: str, relative: str, pending: list[str]) -> None:
        place = f"{root}/{relative}" if relative else root
        compiled = place.endswith("/__pycache__")
        names: list[str] = []
        numbers = array("q")  # of the entries, packed: formatting them would take as long as the stat calls
        newest = 0
        with os.scandir(place) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    if relative or name not in _OTHER_PACKAGES:
                        pending.append(f"{relative}/{name}" if relative else name)
                    continue
                if compiled and not self._loaded(name):
                    continue
                status = entry.stat(follow_symlinks=False)
                changed = status.st_ctime_ns
                if changed > newest:
                    newest = changed
                names.append(name)
                numbers.extend((status.st_dev, status.st_ino, status.st_size, changed))
        self._record(label, relative, place, names, numbers, newest)

    def _record(
        self, label: str, relative: str, place: str, names: list[str], numbers: array[int], newest: int
    ) -> None:
        packed = "\0".join(names).encode("utf-8", "surrogateescape") + b"\0" + numbers.tobytes()
        fingerprint = hashlib.sha256(packed).hexdigest()
        known = self._cache.old.get(place)
        self._directories.append(
            _Directory(
                label=label,
                relative=relative,
                place=place,
                fingerprint=fingerprint,
                names=names,
                settled=newest < self._newest_settled,
                entry=known if known is not None and known[0] == fingerprint else None,
            )
        )

    def _loaded(self, name: str) -> bool:
        """Whether this interpreter would load a file in __pycache__ (or it is no byte code at all)."""
        if not name.endswith(".pyc"):
            return True
        return self._suffix in name  # not pytest's, whose tag goes on with a dash

    def _hash(self, directories: list[_Directory]) -> None:
        if not directories:
            return
        files = [
            (f"{directory.place}/{name}" if name else directory.place)
            for directory in directories
            for name in directory.names
        ]
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            described = iter(list(pool.map(_describe, files, chunksize=1)))
        for directory in directories:
            lines, outward = [], []
            for name in directory.names:
                line, target = next(described)
                lines.append(os.fsencode(name) + b"\0" + line)
                if target is not None:
                    outward.append(target)
            digest = hashlib.sha256(b"".join(sorted(lines))).hexdigest()
            directory.entry = [directory.fingerprint, digest, len(directory.names), sorted(outward)]


def _describe(path: str) -> tuple[bytes, str | None]:
    """Return the listing's line for a file or link without its name, and where a link leads."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        target = os.readlink(path)  # noqa: PTH115 - 50,000 Path objects cost time
        raw = os.fsencode(target)
        return b"link\0%d\0%b\n" % (len(raw), hashlib.sha256(raw).hexdigest().encode()), os.path.realpath(
            path
        )
    if not stat.S_ISREG(mode):
        return b"other\0%d\0%b\n" % (0, _EMPTY), None
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return b"file\0%d\0%b\n" % (size, digest.encode()), None


def main() -> None:
    """Print as JSON the measurement of what this interpreter loads; `sealbook.simulated_loader` runs this."""
    try:
        measured = measure()
    except InputError as error:
        sys.exit(str(error))  # the last line on stderr, which the loader passes on
    print(json.dumps(asdict(measured) | {"mrenclave": measured.mrenclave.hex()}))


if __name__ == "__main__":
    main()
