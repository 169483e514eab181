"""Directories as a tar stream, packed and unpacked with nothing but files and directories in it."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, ClassVar

from sealbook.errors import InputError
from sealbook.files import TEMPORARY_INFIX, sync_directory
from sealbook.sealing.codecs.base import Codec, ContentError, Payload

#: Members of one directory tree; each costs an inode when it is unpacked.
MAX_MEMBERS = 1_000_000


class DirectoryCodec(Codec):
    """A ``pathlib.Path`` that names a directory.

    Owner, group and times are not kept, of the permissions only whether a file is
    executable. Links, devices and sockets are refused: outside this directory they may
    mean something else.
    """

    name: ClassVar[str] = "directory"
    holds: ClassVar[str] = "directories (as pathlib.Path)"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102 - described in Codec
        return isinstance(obj, Path) and obj.is_dir()

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        entries = list(_walk(obj))
        if len(entries) > MAX_MEMBERS:
            raise InputError(f"{obj} has more than the {MAX_MEMBERS:,} files that one sealed file may hold.")

        def write(file: BinaryIO) -> None:
            # "w|": a stream, never seeked. PAX: names and sizes without limits, in UTF-8.
            with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                for name, path, is_directory in entries:
                    member = tarfile.TarInfo(name)
                    if is_directory:
                        member.type, member.mode = tarfile.DIRTYPE, 0o755
                        archive.addfile(member)
                        continue
                    with path.open("rb") as source:
                        found = os.fstat(source.fileno())
                        member.size = found.st_size
                        member.mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
                        archive.addfile(member, source)

        return Payload(write)

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: D102
        raise InputError("The sealed file holds a directory; say where to put it with `to`.")

    def read_to(self, file: BinaryIO, target: Path) -> Path:
        """Unpack into `target`, which appears only when everything is unpacked.

        Parameters
        ----------
        file
            A seekable file; see :meth:`Codec.read`.
        target
            Must not exist yet.

        Raises
        ------
        InputError
            `target` exists, or its parent does not.
        ContentError
            A member that this codec never writes: a link, a device, a name that is absolute or has
            ``..``, two of the same name, more than :data:`MAX_MEMBERS`.
        """
        if target.exists() or target.is_symlink():
            raise InputError(f"{target} exists already; name a directory that does not exist yet.")
        if not target.parent.is_dir():
            raise InputError(f"The directory {target.parent} does not exist; make it first.")
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:200]}{TEMPORARY_INFIX}"))
        try:
            with self.reading(), tarfile.open(fileobj=file, mode="r|") as archive:
                for member in _checked(archive):
                    archive.extract(member, scratch, filter="data")
            scratch.chmod(0o755)
            scratch.rename(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        sync_directory(target.parent)
        return target


def _walk(root: Path) -> Iterator[tuple[str, Path, bool]]:
    """Yield (name in the archive, path, whether a directory), parents first, in a fixed order."""
    for directory, directories, files in os.walk(root):
        directories.sort()
        here = Path(directory)
        for name in sorted([*directories, *files]):
            path = here / name
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise InputError(
                    f"{path} is a link or a device, which mean nothing elsewhere; "
                    "replace it by a file or move it out of the directory."
                )
            yield path.relative_to(root).as_posix(), path, stat.S_ISDIR(mode)


def _checked(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive, each one checked before it is unpacked.

    ``filter="data"`` checks names and links as well; this is stricter (it also refuses
    links that stay inside, sparse files, duplicates) and does not depend on the version of Python.
    """
    seen: set[str] = set()
    for member in archive:
        name = PurePosixPath(member.name)
        if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)) or member.issparse():
            raise ContentError("The sealed directory holds a link or a device; nothing was unpacked.")
        if name.is_absolute() or ".." in name.parts or not name.parts or "\0" in member.name:
            raise ContentError("The sealed directory holds a name that leads out; nothing was unpacked.")
        if name.as_posix() in seen:
            raise ContentError("The sealed directory holds one name twice; nothing was unpacked.")
        seen.add(name.as_posix())
        if len(seen) > MAX_MEMBERS:
            raise ContentError(f"The sealed directory holds more than {MAX_MEMBERS:,} names.")
        yield member
