"""What a path inside Gramine stands for on the host, as a manifest says it.

Gramine compares normalised URIs as text, and takes every allowed entry for a prefix, with and without a
slash at its end. The same is done here, so that what the lint calls covered is what Gramine calls covered.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from sealbook.image.manifest import REGISTRATION_PLACE, WORK_PLACE

CHROOT, ENCRYPTED, TMPFS = "chroot", "encrypted", "tmpfs"

#: What the host can change inside the kernel, and nothing else: the one file with the address to report to,
#: and the notebook's own directory.
OPEN_PLACES = frozenset({REGISTRATION_PLACE, WORK_PLACE})

#: Gramine's own limit for URIs, and Linux's for paths.
LONGEST_PATH = 4096

_FILE = "file:"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOMES = ("/home/", "/root/", "/Users/")


@dataclass(frozen=True)
class Mount:
    """One sound entry of ``fs.mounts``, or ``fs.root``.

    Attributes
    ----------
    setting
        Where the manifest has it.
    kind
        :data:`CHROOT`, :data:`ENCRYPTED` or :data:`TMPFS`.
    path
        Inside Gramine.
    host
        Below the launch directory; None for memory.
    key_name
        Of an encrypted mount.
    """

    setting: str
    kind: str
    path: str
    host: str | None = None
    key_name: str | None = None

    def on_host(self, path: str) -> str | None:
        """Return what `path`, at or below the mount, is on the host."""
        if self.host is None:
            return None
        rest = path[len(self.path.rstrip("/")) :].strip("/")
        return f"{self.host}/{rest}" if rest else self.host


class HostPaths:
    """A set of files on the host that knows what lies below a directory."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._known = frozenset(paths)
        self._sorted = sorted(self._known)

    def __contains__(self, path: object) -> bool:
        return path in self._known

    def __len__(self) -> int:
        return len(self._known)

    def first_below(self, path: str) -> str | None:
        """Return a file at or below `path`."""
        if path in self._known:
            return path
        start = bisect_left(self._sorted, f"{path}/")
        found = self._sorted[start] if start < len(self._sorted) else ""
        return found if covers(path, found) else None

    def any_ends(self, ending: str) -> bool:
        """Tell whether the path of a file ends so."""
        return any(path.endswith(ending) for path in self._sorted)

    def overlaps(self, path: str) -> bool:
        """Tell whether a file lies at or below `path`, or `path` below a file."""
        return self.first_below(path) is not None or any(parent in self._known for parent in _parents(path))


@dataclass(frozen=True)
class Files:
    """All that a manifest says of files, as far as it is sound.

    Attributes
    ----------
    trusted
        Host paths with a hash.
    allowed
        Host paths that the host may change, each a file or a directory.
    mounts
        In the order in which Gramine mounts them, ``fs.root`` first.
    complete
        False where something of it was refused before it could be understood. What depends on it is then
        not judged: that objection comes first.
    open_places
        Inside Gramine, where the host may change something.
    """

    trusted: HostPaths
    allowed: tuple[str, ...]
    mounts: tuple[Mount, ...]
    complete: bool
    open_places: frozenset[str] = OPEN_PLACES

    def mount_of(self, path: str) -> Mount | None:
        """Return the mount that `path` inside Gramine lies on: the last one at or above it."""
        return next((mount for mount in reversed(self.mounts) if covers(mount.path, path)), None)

    def changeable(self, mount: Mount) -> bool:
        """Tell whether the host can put something into `mount` that the kernel reads as it is."""
        return mount.kind == CHROOT and any(overlap(mount.host or "", entry) for entry in self.allowed)

    def is_code(self, mount: Mount) -> bool:
        """Tell whether nothing but measured files can be opened in `mount`."""
        return mount.kind == CHROOT and not self.changeable(mount)


def covers(outer: str, inner: str) -> bool:
    """Tell whether `inner` is `outer` or lies below it."""
    return inner == outer or inner.startswith(outer if outer.endswith("/") else f"{outer}/")


def overlap(one: str, other: str) -> bool:
    """Tell whether one of two paths contains the other."""
    return covers(one, other) or covers(other, one)


def is_plain(path: object) -> bool:
    """Tell whether `path` is absolute and already what Gramine would make of it."""
    return (
        isinstance(path, str)
        and len(path) <= LONGEST_PATH
        and path.startswith("/")
        and not path.startswith("//")
        and not _CONTROL.search(path)
        and path == posixpath.normpath(path)
    )


def host_path(uri: str) -> str:
    """Return the path of a URI that has no :func:`uri_problem`."""
    return uri.removeprefix(_FILE).rstrip("/")


def uri_problem(uri: object, *, directory: bool = False) -> tuple[str, str] | None:
    """Tell what is wrong with the URI of something on the host.

    Parameters
    ----------
    directory
        Whether a slash at the end is fine.

    Returns
    -------
    tuple or None
        Reason and remedy.
    """
    relative = "name it relative to the launch directory, as file:image/..., file:launch/... or file:work"
    if not isinstance(uri, str):
        return "a URI is a text", relative
    if not uri.startswith(_FILE):
        return "only files are mounted; a device passes everything through to the host", relative
    if len(uri) > LONGEST_PATH:
        return f"it is longer than the {LONGEST_PATH} bytes that Gramine takes", "shorten it"
    path = uri[len(_FILE) :]
    if path.startswith(("~", *_HOMES)) or path in {home.rstrip("/") for home in _HOMES}:
        return "it is in somebody's home folder, which is another one elsewhere", relative
    if path.startswith("/"):
        return "an absolute path makes the measurement depend on where the image lies", relative
    if _CONTROL.search(path):
        return "it has a control character", relative
    trimmed = path[:-1] if directory and path.endswith("/") else path
    normal = posixpath.normpath(trimmed)
    if normal == ".." or normal.startswith("../"):
        return "it leaves the launch directory", relative
    if normal == ".":
        return "it names the launch directory itself, and with it everything in it", relative
    if path.endswith("/") and not directory:
        return "a directory has no hash and a mount needs no slash", "name the file or directory without it"
    if trimmed != normal:
        return "Gramine compares normalised paths, so this one hides what it names", f"write {_FILE}{normal}"
    return None


def _parents(path: str) -> Iterable[str]:
    while path := path.rpartition("/")[0]:
        yield path
