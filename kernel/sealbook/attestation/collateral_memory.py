"""Remembers how new the collateral was, so that nobody can go back to an older one.

Collateral is valid for a month. Within it, an attacker who controls the network could serve
the one from before a vulnerability was published or a machine was revoked; every signature
in it is good. So for each root, certificate authority and FMSPC the highest issue dates and numbers
seen are kept, and anything older is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, RefusedError
from sealbook.files import write_bytes

_MAX_BYTES = 4 * 1024 * 1024
_VERSION = 1


class CollateralMemoryError(RefusedError):
    """The memory cannot be read or written, so a rollback could not be seen."""


@dataclass(frozen=True)
class CollateralAge:
    """How new one collateral is; each number only grows in what the platform's maker issues.

    Attributes
    ----------
    tcb_info_issued, qe_identity_issued
        Seconds since 1970.
    """

    tcb_info_issued: int
    qe_identity_issued: int
    tcb_eval_data_number: int
    qe_eval_data_number: int
    pck_crl_number: int
    root_crl_number: int


_WORDS = {
    "tcb_info_issued": "TCB info",
    "qe_identity_issued": "QE identity",
    "tcb_eval_data_number": "TCB evaluation data number",
    "qe_eval_data_number": "QE evaluation data number",
    "pck_crl_number": "PCK revocation list",
    "root_crl_number": "root revocation list",
}


class CollateralMemory:
    """The highest ages seen, in one small JSON file.

    Parameters
    ----------
    path
        The file; made on first use. A lock file of the same name lies beside it, and any number of
        processes may use it at once.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def witness(self, key: str, age: CollateralAge) -> tuple[str, ...]:
        """Compare `age` with what was seen for `key` and remember the newer of each number.

        Returns
        -------
        tuple of str
            The names of the parts that are older than before; empty when it is no rollback.

        Raises
        ------
        CollateralMemoryError
            The file cannot be read, written or understood. It is not replaced by an empty one:
            that would be the rollback.
        """
        try:
            with self._locked():
                seen = self._read()
                before = seen.get(key)
                if before is None:
                    older: tuple[str, ...] = ()
                    highest = age
                else:
                    older = tuple(
                        _WORDS[part.name]
                        for part in fields(age)
                        if getattr(age, part.name) < getattr(before, part.name)
                    )
                    highest = CollateralAge(
                        **{
                            part.name: max(getattr(age, part.name), getattr(before, part.name))
                            for part in fields(age)
                        }
                    )
                if highest != before:
                    seen[key] = highest
                    self._write(seen)
                return older
        except OSError as error:
            raise CollateralMemoryError(
                f"The memory of collateral {self._path} cannot be used ({error.strerror}); "
                "make it readable and writable."
            ) from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(
            self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, CollateralAge]:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            document = parse_json(raw, what="The memory of collateral", max_bytes=_MAX_BYTES)
            if document["version"] != _VERSION:
                raise ValueError("unknown version")
            seen = {key: CollateralAge(**value) for key, value in document["seen"].items()}
            if not all(isinstance(n, int) for age in seen.values() for n in asdict(age).values()):
                raise TypeError("not a number")
        except (InputError, KeyError, TypeError, ValueError, AttributeError):
            raise CollateralMemoryError(
                f"The memory of collateral {self._path} is damaged; if you know why, delete it and "
                "attest again."
            ) from None
        return seen

    def _write(self, seen: dict[str, CollateralAge]) -> None:
        document = {"version": _VERSION, "seen": {key: asdict(age) for key, age in seen.items()}}
        write_bytes(self._path, canonical_json(document), mode=0o600)
