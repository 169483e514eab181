"""Attack cases 42 and 59: a nonce counts once, for a short time, however many ask at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest

from sealbook.attestation import NonceLedger, StaleNonceError, report_data

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def test_attack_42_a_used_nonce_is_refused() -> None:
    ledger = NonceLedger(ttl=60)
    nonce = ledger.issue(NOW)
    ledger.redeem(nonce, NOW)
    with pytest.raises(StaleNonceError, match="used before"):
        ledger.redeem(nonce, NOW)


def test_attack_42_a_nonce_after_its_time_is_refused_and_gone() -> None:
    ledger = NonceLedger(ttl=60)
    late, on_time = ledger.issue(NOW), ledger.issue(NOW)
    ledger.redeem(on_time, NOW + timedelta(seconds=60))
    with pytest.raises(StaleNonceError, match="older than 60 seconds"):
        ledger.redeem(late, NOW + timedelta(seconds=60, microseconds=1))
    with pytest.raises(StaleNonceError, match="used before"):
        ledger.redeem(late, NOW)


def test_attack_42_a_nonce_of_another_ledger_is_refused() -> None:
    nonce = NonceLedger().issue(NOW)
    for stranger in (nonce, b"", bytes(32)):
        with pytest.raises(StaleNonceError, match="not issued here"):
            NonceLedger().redeem(stranger, NOW)


def test_attack_59_one_nonce_redeemed_by_many_threads_at_once_counts_once() -> None:
    ledger = NonceLedger()
    for _ in range(50):
        nonce = ledger.issue(NOW)
        barrier = Barrier(8)

        def redeem(nonce: bytes = nonce, barrier: Barrier = barrier) -> int:
            barrier.wait()
            try:
                ledger.redeem(nonce, NOW)
            except StaleNonceError:
                return 0
            return 1

        with ThreadPoolExecutor(8) as pool:
            assert sum(future.result() for future in [pool.submit(redeem) for _ in range(8)]) == 1


def test_nonces_are_fresh_32_bytes_and_bounded_in_number() -> None:
    ledger = NonceLedger(capacity=10)
    nonces = [ledger.issue(NOW) for _ in range(25)]
    assert len(set(nonces)) == 25
    assert all(len(nonce) == 32 for nonce in nonces)
    assert len(ledger) == 10
    with pytest.raises(StaleNonceError):
        ledger.redeem(nonces[0], NOW)
    ledger.redeem(nonces[-1], NOW)


def test_expired_nonces_are_forgotten() -> None:
    ledger = NonceLedger(ttl=60)
    for _ in range(5):
        ledger.issue(NOW)
    ledger.issue(NOW + timedelta(seconds=61))
    assert len(ledger) == 1


def test_report_data_asks_for_what_it_needs() -> None:
    good = {"role": "kernel", "audience": "me", "nonce": bytes(32), "claims": {}}
    assert len(report_data(**good)) == 64
    for wrong in (
        {"role": ""},
        {"audience": ""},
        {"nonce": bytes(31)},
        {"claims": {str(i): b"" for i in range(65)}},
    ):
        with pytest.raises(ValueError, match=r"."):
            report_data(**{**good, **wrong})


def test_a_naive_time_is_a_mistake_of_the_caller() -> None:
    naive = NOW.replace(tzinfo=None)
    ledger = NonceLedger()
    with pytest.raises(ValueError, match="aware"):
        ledger.issue(naive)
    with pytest.raises(ValueError, match="aware"):
        ledger.redeem(ledger.issue(NOW), naive)
    with pytest.raises(ValueError, match="positive"):
        NonceLedger(ttl=0)
