"""A genuine quote to learn from: made by a real SGX machine in 2025, with what Intel said of it then.

README.md says where it comes from and under which licence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files

from sealbook.attestation.collateral import Collateral


@dataclass(frozen=True)
class GenuineExample:
    """A quote of real hardware.

    Attributes
    ----------
    quote
        As the machine made it.
    collateral
        What Intel said of that machine, signed; it has expired.
    valid_at
        A moment at which all of it was valid; aware.
    """

    quote: bytes = field(repr=False)
    collateral: Collateral = field(repr=False)
    valid_at: datetime


def genuine_example() -> GenuineExample:
    """Return the genuine quote that comes with sealbook."""
    folder = files(__package__)
    return GenuineExample(
        quote=folder.joinpath("quote.bin").read_bytes(),
        collateral=Collateral.from_json(folder.joinpath("collateral.json").read_bytes()),
        valid_at=datetime(2025, 6, 20, tzinfo=UTC),
    )
