"""When to ask the service for collateral, when to take what is there, and when to refuse."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from sealbook.attestation.collateral import Collateral
from sealbook.attestation.intel import ROOT_CA_DER
from sealbook.attestation.pccs.cache import CachedCollateral, CollateralCache
from sealbook.attestation.pccs.client import fetch_collateral
from sealbook.attestation.pccs.genuine import Platform, age_of, expires_at, require_genuine
from sealbook.attestation.pccs.settings import PccsService, configured_service, how_to_name
from sealbook.attestation.pccs.transport import ServiceError
from sealbook.attestation.quote import Quote
from sealbook.errors import InputError, RefusedError

#: Collateral is asked for again once a day, so that a revocation is known a day later, and when it is about
#: to expire. Intel's is valid for 30 days.
_FRESH = timedelta(days=1)
_RENEW_BEFORE = timedelta(days=2)
#: Seconds for which a service that failed, or had nothing newer, is not asked again for the same, while what
#: is kept is valid; and where nothing is.
_PAUSE = 60.0
_SHORT_PAUSE = 5.0
#: Seconds for a complete collateral: four small documents. Less than a challenge to a kernel lives.
TIMEOUT = 20.0


class CollateralUnavailableError(RefusedError):
    """There is no valid collateral: the service gives none, and none was kept."""


class PccsCollateral:
    """A :class:`~sealbook.attestation.CollateralSource` for genuine hardware. Safe to share between threads.

    What was fetched is kept, and is used without the service until it expires. While it is valid, a
    service that cannot be reached, or sends something broken, is no reason to refuse.

    Parameters
    ----------
    cache
        A directory; see :class:`~sealbook.attestation.pccs.cache.CollateralCache`.
    service
        Gives the service. Asked each time, so that a changed configuration counts at once and a broken
        one harms nobody who has no hardware.
    timeout
        Seconds for everything that is fetched for one collateral.
    clock
        Gives the aware time.
    root
        Whose platforms these are. Only tests name another one than Intel's.
    root_crl_url
        Where the root's revocation list is if the service has none; default: where Intel's root says.
    """

    def __init__(
        self,
        cache: Path,
        *,
        service: Callable[[], PccsService] = configured_service,
        timeout: float = TIMEOUT,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        root: x509.Certificate | None = None,
        root_crl_url: str | None = None,
    ) -> None:
        self._cache = CollateralCache(cache)
        self._service = service
        self._timeout = timeout
        self._clock = clock
        self._root = root or x509.load_der_x509_certificate(ROOT_CA_DER)
        self._root_crl_url = root_crl_url
        self._lock = threading.Lock()
        self._locks: dict[Path, threading.Lock] = {}
        # When the service was asked last for what lies there, and what was wrong with it then.
        self._asked: dict[Path, float] = {}
        self._failed: dict[Path, ServiceError | None] = {}

    def collateral_for(self, quote: Quote) -> Collateral:
        """Return collateral for the platform that made `quote`.

        Raises
        ------
        NotGenuineError
            The quote's certificates do not lead to the root. Nobody was asked.
        CollateralUnavailableError
            Neither the service nor the cache has any that is valid now.
        InputError
            The service is configured in a way that cannot be used.
        """
        platform = Platform.of(quote, self._root)
        service = self._service()
        place = self._cache.path(service.url, platform.fmspc, platform.authority)
        with self._lock:
            lock = self._locks.setdefault(place, threading.Lock())
        with lock:  # of several kernels that start at once, one asks
            return self._current(service, platform, place)

    def _current(self, service: PccsService, platform: Platform, place: Path) -> Collateral:
        now = self._clock()
        kept = self._kept(service, platform)
        usable = kept if kept is not None and now < kept.expires else None
        if usable is not None and (_is_fresh(usable, now) or self._asked_within(place, _PAUSE)):
            return usable.collateral
        # Who has nothing waits for the service, so it is asked soon again; but not by each key of a list.
        failure = self._failed.get(place) if self._asked_within(place, _SHORT_PAUSE) else None
        if failure is None:
            try:
                fetched = self._fetch(service, platform, now)
            except ServiceError as error:
                failure = error
            finally:
                self._asked[place] = time.monotonic()
                self._failed[place] = failure
            if failure is None:
                # A service may lag behind what another process fetched from it a minute ago. What ends later
                # need not be newer: a recovery after a leak has a new number and may have an early end.
                newest = usable if usable is not None and _is_older(fetched, usable) else fetched
                self._cache.write(replace(newest, fetched=now))
                return newest.collateral
        if usable is not None:
            return usable.collateral
        raise CollateralUnavailableError(_sentence(service, kept, failure))

    def _asked_within(self, place: Path, seconds: float) -> bool:
        asked = self._asked.get(place)
        return asked is not None and time.monotonic() - asked < seconds

    def _kept(self, service: PccsService, platform: Platform) -> CachedCollateral | None:
        kept = self._cache.read(service.url, platform.fmspc, platform.authority)
        try:
            if kept is not None:
                require_genuine(kept.collateral, platform, self._root)
                age_of(kept.collateral)
        except RefusedError:
            return None
        return kept

    def _fetch(self, service: PccsService, platform: Platform, now: datetime) -> CachedCollateral:
        try:
            collateral = fetch_collateral(
                service,
                fmspc=platform.fmspc,
                authority=platform.authority,
                seconds=self._timeout,
                root_crl_url=self._root_crl_url,
            )
            require_genuine(collateral, platform, self._root)
            expires = expires_at(collateral)
            age_of(collateral)
        except RefusedError as error:
            reason = str(error).rstrip(".")
            raise ServiceError(f"sends collateral that is not genuine ({reason})") from None
        except (ServiceError, InputError):
            raise
        except Exception as error:  # it was all made by somebody else, and what is kept may be good
            raise ServiceError(f"sends what cannot be understood ({type(error).__name__})") from None
        if expires <= now:
            raise ServiceError(
                f"sends collateral that expired on {expires:%Y-%m-%d}",
                remedy="refresh its cache, or set this machine's clock right",
            )
        return CachedCollateral(service.url, platform.fmspc, platform.authority, now, collateral)


def _is_fresh(kept: CachedCollateral, now: datetime) -> bool:
    # Fetched in the future: somebody moved the clock, so that nothing is known of its age.
    return kept.fetched <= now < kept.fetched + _FRESH and now < kept.expires - _RENEW_BEFORE


def _is_older(one: CachedCollateral, other: CachedCollateral) -> bool:
    """Tell whether a verifier that saw the other would refuse this one as a rollback."""
    return any(
        mine < its
        for mine, its in zip(astuple(age_of(one.collateral)), astuple(age_of(other.collateral)), strict=True)
    )


def _sentence(service: PccsService, kept: CachedCollateral | None, failure: ServiceError) -> str:
    without = f"what was kept expired on {kept.expires:%Y-%m-%d}" if kept else "none was kept from before"
    remedy = failure.remedy or "start it, or check the network"
    return (
        f"There is no valid collateral to judge this hardware by: the collateral service {service.url} "
        f"({service.origin}) {failure.cause}, and {without}; {remedy}, or {how_to_name()}."
    )
