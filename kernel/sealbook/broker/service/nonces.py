"""Challenges that a restart does not forget and that no two processes accept."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from sealbook.attestation.freshness import check_age
from sealbook.attestation.report_data import NONCE_BYTES
from sealbook.broker.service.database import Database

#: Outstanding nonces that are kept; beyond it the oldest are forgotten.
CAPACITY: Final = 4096


class StoredNonces:
    """:class:`~sealbook.attestation.Nonces` in the service's database.

    Only outstanding nonces are stored, so a nonce that is not there is refused, whatever became of it.

    Parameters
    ----------
    database
        Shared by all who issue and redeem.
    ttl
        Seconds for which a nonce can be redeemed here; whoever redeems decides.
    capacity
        Bounds what an attacker who only asks for challenges can take.
    """

    def __init__(self, database: Database, ttl: float, capacity: int = CAPACITY) -> None:
        self._database = database
        self._ttl = timedelta(seconds=ttl)
        self._capacity = capacity

    def issue(self, now: datetime) -> bytes:
        """Return 32 fresh random bytes, good for one :meth:`redeem`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        with self._database.transaction() as run:
            run.execute("INSERT INTO nonces VALUES (?, ?)", (nonce, now.timestamp()))
            run.execute(
                "DELETE FROM nonces WHERE nonce IN "
                "(SELECT nonce FROM nonces ORDER BY issued DESC LIMIT -1 OFFSET ?)",
                (self._capacity,),
            )
        return nonce

    def redeem(self, nonce: bytes, now: datetime) -> None:
        """Use up `nonce`; raises StaleNonceError. It is used up on the disk before this returns."""
        with self._database.transaction() as run:
            row = run.execute("DELETE FROM nonces WHERE nonce = ? RETURNING issued", (nonce,)).fetchone()
        check_age(None if row is None else datetime.fromtimestamp(row[0], UTC), now, self._ttl)
