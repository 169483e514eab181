"""What attestation costs: judging a quote, making one, and measuring what runs."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dcap_qvl

from sealbook.attestation import (
    CollateralMemory,
    Measurement,
    Policy,
    SimulatedPlatform,
    Verifier,
    policy_text,
)
from sealbook.attestation import measure as measure_runtime


def measure(quick: bool = False) -> list[dict[str, Any]]:
    """Return rows of name, value, baseline, ratio, target, holds, note."""
    with tempfile.TemporaryDirectory() as directory:
        return [*_quotes(Path(directory)), *_measurements(Path(directory))]


def _quotes(directory: Path) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    platform = SimulatedPlatform.load_or_create(directory / "platform")
    measurement = Measurement(mrenclave=b"\xaa" * 32)
    root = platform.root_certificate
    policy = Policy.parse(policy_text(mrenclave=measurement.mrenclave, root=root, now=now))
    attester = platform.attester(measurement)
    quote, collateral = attester.quote(bytes(64)), platform.collateral()
    verifier = Verifier(policy, memory=CollateralMemory(directory / "seen.json"))

    def verify() -> None:
        if not verifier.verify(quote, collateral, now=now, expected_report_data=bytes(64)).accepted:
            raise AssertionError("the benchmark's quote must be accepted")

    bare = dcap_qvl.QuoteVerifier(policy.trust_root.der)
    parts, seconds = collateral.for_dcap_qvl(), int(now.timestamp())
    baseline, _ = _cost(
        lambda: bare.verify_with_policy(quote, parts, seconds, dcap_qvl.QuotePolicy.strict(seconds))
    )
    judging, judging_wall = _cost(verify)
    return [
        {
            "name": "verify a quote under a policy (CPU time)",
            "value": f"{judging:.2f} ms",
            "baseline": f"dcap-qvl alone {baseline:.2f} ms",
            "ratio": f"{judging / baseline:.1f}x",
            "target": "at most 5 ms",
            "holds": judging <= 5.0,
            "note": f"median of wall time {judging_wall:.2f} ms",
        }
    ]


def _measurements(directory: Path) -> list[dict[str, Any]]:
    cache = directory / "cache.json"
    cold = measure_runtime(cache=cache)
    warm = statistics.median(measure_runtime(cache=cache).seconds for _ in range(5))
    return [
        {
            "name": f"measure the {cold.files:,} files a kernel loads from",
            "value": f"{1e3 * warm:.0f} ms",
            "baseline": f"every byte read {cold.seconds:.1f} s",
            "ratio": f"{warm / cold.seconds:.3f}x",
            "target": "none: part of the start",
            "holds": None,
            "note": "nothing changed since the last time; at a start it runs beside the imports",
        }
    ]


def _cost(action: Callable[[], object], *, rounds: int = 100) -> tuple[float, float]:
    """Return milliseconds of CPU time (what other jobs cannot inflate) and the median of wall time."""
    action()
    times = []
    before = time.process_time()
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return 1e3 * (time.process_time() - before) / rounds, 1e3 * statistics.median(times)
