"""Nonces that prove evidence was made now: each is accepted once, and not for long."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Protocol

from sealbook.attestation.report_data import NONCE_BYTES
from sealbook.errors import RefusedError


class StaleNonceError(RefusedError):
    """A nonce that was not issued here, has been used, or has expired."""


class Nonces(Protocol):
    """Issues nonces and takes each back at most once."""

    def issue(self, now: datetime) -> bytes:
        """Return 32 fresh random bytes."""

    def redeem(self, nonce: bytes, now: datetime) -> None:
        """Use up `nonce`; raises StaleNonceError where it was not issued here, was used or is too old."""


class NonceLedger:
    """Issues nonces and takes each back at most once.

    Only *outstanding* nonces are remembered. An unknown nonce is refused, so a restart, an
    eviction or a second instance can only refuse too much, never accept a replay.

    Parameters
    ----------
    ttl
        Seconds for which a nonce can be redeemed.
    capacity
        Outstanding nonces that are kept; beyond it the oldest are forgotten, which bounds the
        memory an attacker who only asks for challenges can take.
    """

    def __init__(self, ttl: float = 60.0, capacity: int = 4096) -> None:
        if ttl <= 0 or capacity < 1:
            raise ValueError("ttl and capacity must be positive")
        self._ttl = timedelta(seconds=ttl)
        self._capacity = capacity
        self._outstanding: OrderedDict[bytes, datetime] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._outstanding)

    def issue(self, now: datetime) -> bytes:
        """Return 32 fresh random bytes, good for one :meth:`redeem` until `ttl` has passed."""
        _require_aware(now)
        nonce = secrets.token_bytes(NONCE_BYTES)
        with self._lock:
            self._forget_expired(now)
            while len(self._outstanding) >= self._capacity:
                self._outstanding.popitem(last=False)
            self._outstanding[nonce] = now
        return nonce

    def redeem(self, nonce: bytes, now: datetime) -> None:
        """Use up `nonce`.

        Raises
        ------
        StaleNonceError
            It was never issued here, was used before, is older than `ttl`, or was issued
            after `now` (the clock went back).
        """
        _require_aware(now)
        with self._lock:
            issued = self._outstanding.pop(bytes(nonce), None)
        check_age(issued, now, self._ttl)

    def _forget_expired(self, now: datetime) -> None:
        while self._outstanding:
            nonce, issued = next(iter(self._outstanding.items()))
            if now - issued <= self._ttl:
                return
            del self._outstanding[nonce]


def check_age(issued: datetime | None, now: datetime, ttl: timedelta) -> None:
    """Raise StaleNonceError unless a nonce that was just taken back was outstanding and is not too old.

    Parameters
    ----------
    issued
        When it was issued; None for one that was not outstanding.
    """
    if issued is None:
        raise StaleNonceError(
            "The evidence answers a challenge that was not issued here or was used before; "
            "ask for a new challenge and attest again."
        )
    if now < issued:
        raise StaleNonceError(
            "The clock went back since the challenge was issued; set the clock and attest again."
        )
    if now - issued > ttl:
        raise StaleNonceError(
            f"The evidence answers a challenge that is older than {ttl.total_seconds():.0f} "
            "seconds; ask for a new challenge and attest again."
        )


def _require_aware(now: datetime) -> None:
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
