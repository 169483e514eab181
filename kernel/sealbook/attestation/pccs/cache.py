"""Fetched collateral on disk, one small file for each service and kind of processor.

The files are public data and untrusted: what cannot be read, is for something else or is not signed by the
platform's maker counts as not there. Whoever puts an older one there meets the verifier's memory.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sealbook.attestation.collateral import MAX_COLLATERAL_BYTES, Collateral
from sealbook.attestation.pccs.genuine import expires_at
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import SealbookError
from sealbook.files import write_bytes

_VERSION = 1
_MAX_BYTES = MAX_COLLATERAL_BYTES + 64 * 1024
_FIELDS = {"version", "url", "fmspc", "authority", "fetched", "collateral"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedCollateral:
    """What was fetched, from where, and when."""

    url: str
    fmspc: str
    authority: str
    fetched: datetime
    collateral: Collateral

    @property
    def expires(self) -> datetime:
        """Until when all of it is valid.

        Raises
        ------
        MalformedCollateralError
            A part does not say.
        """
        return expires_at(self.collateral)


class CollateralCache:
    """A directory of such files; made with mode 0700 when something is put there.

    Any number of processes may use it: files are replaced as a whole.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, url: str, fmspc: str, authority: str) -> Path:
        """Return where the collateral for this service and kind of processor lies, if anywhere."""
        service = hashlib.sha256(url.encode()).hexdigest()[:16]
        return self._directory / f"{fmspc}-{authority}-{service}.json"

    def read(self, url: str, fmspc: str, authority: str) -> CachedCollateral | None:
        """Return what was kept; None when that is nothing, damaged or something else."""
        found = _load(self.path(url, fmspc, authority))
        if found is None or (found.url, found.fmspc, found.authority) != (url, fmspc, authority):
            return None
        return found

    def write(self, entry: CachedCollateral) -> None:
        """Keep `entry`. A cache that cannot be written is no reason to refuse what was fetched."""
        document = {
            "version": _VERSION,
            "url": entry.url,
            "fmspc": entry.fmspc,
            "authority": entry.authority,
            "fetched": entry.fetched.astimezone(UTC).isoformat(timespec="seconds"),
            "collateral": entry.collateral.to_json().decode(),
        }
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(
                self.path(entry.url, entry.fmspc, entry.authority), canonical_json(document), mode=0o600
            )
        except OSError as error:
            _log.warning(
                "The cache of collateral %s cannot be written (%s); without it, attestation needs the "
                "collateral service each time.",
                self._directory,
                error.strerror,
            )

    def entries(self) -> Iterator[CachedCollateral]:
        """Yield all that can be read, for a person to look at."""
        for path in sorted(self._directory.glob("*.json")):
            found = _load(path)
            if found is not None:
                yield found


def _load(path: Path) -> CachedCollateral | None:
    try:
        with open(path, "rb") as file:
            document: Any = parse_json(file.read(_MAX_BYTES + 1), what="", max_bytes=_MAX_BYTES)
        if not isinstance(document, dict) or set(document) != _FIELDS or document["version"] != _VERSION:
            return None
        fetched = datetime.fromisoformat(document["fetched"])
        if fetched.tzinfo is None:
            return None
        found = CachedCollateral(
            url=str(document["url"]),
            fmspc=str(document["fmspc"]),
            authority=str(document["authority"]),
            fetched=fetched,
            collateral=Collateral.from_json(document["collateral"]),
        )
        _ = found.expires
        return found
    except (OSError, SealbookError, ValueError, TypeError, AttributeError):
        return None
