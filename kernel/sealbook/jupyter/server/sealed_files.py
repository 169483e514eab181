"""Sealed files where the file browser shows them: the same as `sealbook inspect|seal|unseal|rekey`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from jupyter_core.paths import is_hidden
from jupyter_server.services.contents.fileio import FileManagerMixin
from jupyter_server.services.contents.manager import ContentsManager
from tornado import web

from sealbook import sealing
from sealbook.broker import Broker
from sealbook.broker.owner import OwnerKeys
from sealbook.errors import InputError, RefusedError
from sealbook.jupyter.server.base import ExistsError, NotFoundError

SUFFIX: Final = ".sealed"

_NOTE: Final = "Read from the header without a key: not authenticated."


class SealedFiles:
    """The files below a server's root, by their paths in the contents API.

    Methods block; call them in a thread.

    Parameters
    ----------
    contents
        Says which files there are, and keeps paths within its root.
    broker
        Has the user's keys, and records each use of one.
    """

    def __init__(self, contents: ContentsManager, broker: Broker) -> None:
        self._contents = contents
        self._broker = broker

    def inspect(self, path: str) -> dict[str, Any]:
        """Return what a sealed file says of itself; opens nothing.

        Raises
        ------
        NotFoundError
            There is no such file here.
        InputError
            It is not a sealed file.
        """
        info = sealing.inspect(self._existing(path))
        return {
            "path": path,
            "size": info.size,
            "codec": info.codec,
            "algorithm": info.algorithm,
            "keys": [{"name": name, "version": version} for name, version in info.keys],
            "sealed_at": info.sealed_at.isoformat(),
            "sealer": dict(info.sealer) or None,
            "context": dict(info.context) or None,
            "file_id": info.file_id,
            "note": _NOTE,
        }

    def seal(self, path: str, target: str, key: str, *, force: bool) -> dict[str, Any]:
        """Seal a file with any key of the user's; `target` is `path` with ``.sealed`` where it is empty."""
        sealing.check_key_name(key)
        target = target or path + SUFFIX
        source, to = self._existing(path), self._free(target, path, force=force)
        info = sealing.seal_file(source, to, key=key, keys=self._keys(), sealer={"attested": False})
        return {"path": target, "message": f"Sealed with the key {_named(info)}."}

    def unseal(self, path: str, target: str, *, force: bool) -> dict[str, Any]:
        """Open a file whose key has no guard; every other opens in an attested kernel alone.

        Raises
        ------
        KeyUnavailableError
            The key demands attestation.
        """
        source, to = self._existing(path), self._free(target, path, force=force)
        sealing.unseal_file(source, to, keys=self._keys())
        return {"path": target, "message": "Unsealed."}

    def rekey(self, path: str, to: str) -> dict[str, Any]:
        """Move a sealed file to the current version of key `to`; only its header is rewritten."""
        sealing.check_key_name(to)
        info = sealing.rekey(self._existing(path), keys=self._keys(rewrap_for=to), to=to)
        return {"path": path, "message": f"It opens with the key {_named(info)} now."}

    def _keys(self, *, rewrap_for: str | None = None) -> OwnerKeys:
        return OwnerKeys(self._broker.keyring, self._broker.audit, rewrap_for=rewrap_for)

    def _existing(self, path: str) -> Path:
        place = self._place(path)
        if not place.is_file():
            raise NotFoundError(f"There is no file {path}.")
        return place

    def _free(self, target: str, source: str, *, force: bool) -> Path:
        place = self._place(target)
        if place.is_dir():
            raise InputError(f"{target} is a directory: name a file in it.")
        if place.exists() and place.samefile(self._place(source)):
            raise InputError(f"{target} is the source itself: name another file.")
        if place.exists() and not force:
            raise ExistsError(f"{target} exists: name another file, or replace it.")
        if not place.parent.is_dir():
            raise InputError(f"There is no directory for {target}: make it first.")
        return place

    def _place(self, path: str) -> Path:
        """Return where a path of the contents API lies, as the contents API itself decides."""
        manager = self._contents
        if not isinstance(manager, FileManagerMixin):
            raise RefusedError("The files of this server are not on its disk: seal them in a kernel.")
        if not path.strip("/"):
            raise InputError("Name a file.")
        try:
            place = manager._get_os_path(path.strip("/"))
            hidden = not manager.allow_hidden and is_hidden(place, manager.root_dir)
        except (web.HTTPError, OSError, ValueError):  # outside, or no path at all
            hidden = True
        if hidden:
            raise NotFoundError("There is no such place on this server.")
        return Path(place)


def _named(info: sealing.SealedInfo) -> str:
    return ", ".join(f"'{name}' (version {version})" for name, version in info.keys)
