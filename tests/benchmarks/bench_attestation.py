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
    """Return rows of name, value, baseline, ratio, target, holds, note; times in milliseconds."""
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
    making, making_wall = _cost(lambda: attester.quote(bytes(64)))
    note = "ms of CPU time; median of wall time {:.2f} ms"
    return [
        _row(
            "verify a quote under a policy",
            judging,
            baseline,
            5.0,
            f"{note.format(judging_wall)}; baseline: dcap-qvl alone",
        ),
        _row("make a simulated quote", making, None, 5.0, note.format(making_wall)),
    ]


def _measurements(directory: Path) -> list[dict[str, Any]]:
    cache = directory / "cache.json"
    cold = measure_runtime(cache=cache)
    warm = min((measure_runtime(cache=cache) for _ in range(5)), key=lambda result: result.seconds)
    note = f"ms; {warm.files} files"
    return [
        _row(
            "measure the runtime, everything cached",
            1e3 * warm.seconds,
            1e3 * cold.seconds,
            250.0,
            f"{note}; baseline: every byte read",
        ),
    ]


def _row(name: str, value: float, baseline: float | None, target: float, note: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "baseline": baseline,
        "ratio": value / baseline if baseline else None,
        "target": target,
        "holds": value <= target,
        "note": note,
    }


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


if __name__ == "__main__":
    for row in measure():
        print(row)
