"""Challenges that a restart does not forget, that no two processes accept, and that nobody can use up."""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from sealbook.attestation.freshness import check_age
from sealbook.attestation.report_data import NONCE_BYTES
from sealbook.broker.service.database import Database

#: Longest time for which a nonce can count, in seconds: what policies may say at most.
LONGEST: Final = 3600

_CONTEXT: Final = b"sealbook challenge 1"
_TIME_BYTES: Final = 8
_TAG_BYTES: Final = 16
_TAGGED: Final = NONCE_BYTES - _TAG_BYTES


class StoredNonces:
    """:class:`~sealbook.attestation.Nonces` of a service.

    A nonce says itself when it was made (milliseconds since 1970, 8 bytes), with 8 random bytes and a tag
    over both (HMAC-SHA-256, 16 bytes), so that nothing is kept of one that is outstanding: otherwise whoever
    asks for many would push out those of others. Kept are those that were used, as long as they would count.

    Parameters
    ----------
    database
        Shared by all who redeem.
    key
        Makes the tags, 32 bytes; shared by all who issue and redeem.
    ttl
        Seconds for which a nonce can be redeemed here; whoever redeems decides.
    """

    def __init__(self, database: Database, key: bytes, ttl: float) -> None:
        if not 0 < ttl <= LONGEST:
            raise ValueError(f"nonces count for at most {LONGEST} seconds")
        self._database = database
        self._key = key
        self._ttl = timedelta(seconds=ttl)

    def issue(self, now: datetime) -> bytes:
        """Return 32 fresh bytes that nobody else can make, good for one :meth:`redeem`."""
        begin = int(now.timestamp() * 1000).to_bytes(_TIME_BYTES, "big")
        tagged = begin + secrets.token_bytes(_TAGGED - _TIME_BYTES)
        return tagged + self._tag(tagged)

    def redeem(self, nonce: bytes, now: datetime) -> None:
        """Use up `nonce`; raises StaleNonceError. It is used up on the disk before this returns."""
        issued = self._issued(nonce)
        if issued is not None:
            with self._database.transaction() as run:
                run.execute("DELETE FROM nonces WHERE issued < ?", (now.timestamp() - LONGEST,))
                used = run.execute(
                    "INSERT OR IGNORE INTO nonces VALUES (?, ?)", (nonce, issued.timestamp())
                ).rowcount
            if not used:
                issued = None
        check_age(issued, now, self._ttl)

    def _issued(self, nonce: bytes) -> datetime | None:
        """Return when a nonce was made here; None for one that was not."""
        if len(nonce) != NONCE_BYTES or not hmac.compare_digest(self._tag(nonce[:_TAGGED]), nonce[_TAGGED:]):
            return None
        return datetime.fromtimestamp(int.from_bytes(nonce[:_TIME_BYTES], "big") / 1000, UTC)

    def _tag(self, tagged: bytes) -> bytes:
        return hmac.digest(self._key, _CONTEXT + tagged, "sha256")[:_TAG_BYTES]
