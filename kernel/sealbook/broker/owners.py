"""Other data owners in the same job: each has a broker, and keys there that are named ``owner/...``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from sealbook.broker.authorities import check_authority, check_url
from sealbook.broker.keyring import SESSION_PREFIX
from sealbook.broker.names import check_name
from sealbook.errors import InputError

#: A cluster has at most so many other owners.
MAX_OWNERS: Final = 16


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
        check_name(self.name, "a data owner")
        if f"{self.name}/" == SESSION_PREFIX:
            raise InputError(
                f"No data owner is called '{self.name}': keys of that name belong to the user's own side."
            )
        check_url(self.broker)
        check_authority(self.ca)

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Owner:
        """Return what :meth:`to_dict` made; raises InputError, KeyError or TypeError for anything else."""
        if set(found) != {"name", "broker", "ca"} or not all(isinstance(v, str) for v in found.values()):
            raise TypeError
        return cls(**found)
