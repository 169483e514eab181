"""Other data owners in the same job: each has a broker, and keys there that are named ``owner/...``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from sealbook.attestation.pem import read_chain
from sealbook.broker.keyring import SESSION_PREFIX
from sealbook.errors import InputError

#: A cluster has at most so many other owners.
MAX_OWNERS: Final = 16

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_MAX_PEM_BYTES: Final = 16 * 1024


@dataclass(frozen=True)
class Owner:
    """Where the keys of another data owner are.

    Attributes
    ----------
    name
        What their keys' names begin with.
    broker
        ``https://host:port``.
    ca
        Certificate of that broker's authority, PEM.

    Raises
    ------
    InputError
        One of them is none.
    """

    name: str
    broker: str
    ca: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or f"{self.name}/" == SESSION_PREFIX:
            # Keys of a session belong to the user's own side, and to nobody who could be named so.
            raise InputError(
                f"'{self.name[:60]}' cannot be a data owner's name: take 1 to 40 of a-z, 0-9 and '-', and "
                f"not '{SESSION_PREFIX.removesuffix('/')}'."
            )
        try:
            parts = urlsplit(self.broker)
            complete = parts.scheme == "https" and parts.hostname and parts.port
        except ValueError:
            complete = False
        if not complete or parts.path not in ("", "/") or parts.query:
            raise InputError(
                f"'{self.broker[:100]}' is not the address of a broker: write it like https://host:8440."
            )
        if len(self.ca) > _MAX_PEM_BYTES:
            raise InputError(
                f"The authority of the owner '{self.name}' is longer than {_MAX_PEM_BYTES} bytes."
            )
        try:
            read_chain(self.ca, 1)
        except ValueError:
            raise InputError(
                f"The authority of the owner '{self.name}' is not one certificate in PEM: take broker/ca.pem "
                "of the sealbook directory on their machine."
            ) from None

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Owner:
        """Return what :meth:`to_dict` made; raises InputError, KeyError or TypeError for anything else."""
        if set(found) != {"name", "broker", "ca"} or not all(isinstance(v, str) for v in found.values()):
            raise TypeError
        return cls(**found)
