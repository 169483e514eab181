"""What attestation and encryption cost in front of a kernel: round trips and the start.

Baseline: stock ipykernel, as installed beside sealbook, over plain TCP. Both kinds take turns, so
that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

STOCK = "python3"


@contextlib.contextmanager
def own_home() -> Iterator[None]:
    """Run with a home of its own, so that a person's kernels and policies are not touched."""
    with tempfile.TemporaryDirectory(prefix="sealbook-bench-") as home:
        changed = {
            "SEALBOOK_HOME": f"{home}/sealbook",
            "JUPYTER_DATA_DIR": f"{home}/jupyter",
            "JUPYTER_RUNTIME_DIR": f"{home}/runtime",
            "IPYTHONDIR": f"{home}/ipython",
            "JUPYTER_PREFER_ENV_PATH": "0",
        }
        before = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def started(name: str) -> Iterator[tuple[BlockingKernelClient, float]]:
    """Yield a ready client and the seconds from start to ready."""
    manager = KernelManager(kernel_name=name)
    begin = time.perf_counter()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield client, time.perf_counter() - begin
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def round_trip(client: BlockingKernelClient) -> float:
    """Return the seconds from sending `1+1` to having its reply and the idle status."""
    begin = time.perf_counter()
    message = client.execute("1+1")
    while client.get_shell_msg(timeout=30)["parent_header"].get("msg_id") != message:
        pass
    while True:
        status = client.get_iopub_msg(timeout=30)
        if (
            status["parent_header"].get("msg_id") == message
            and status["content"].get("execution_state") == "idle"
        ):
            return time.perf_counter() - begin


def measure(quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the benchmark table."""
    from sealbook.cli.install import ensure

    rounds, trips, starts = (3, 20, 2) if quick else (10, 100, 9)
    with own_home():
        sealed = ensure(name="sealbook-simulated")["kernel"]
        trip: dict[str, list[float]] = {STOCK: [], sealed: []}
        with started(STOCK) as (stock, _), started(sealed) as (attested, _):
            clients = {STOCK: stock, sealed: attested}
            for client in clients.values():
                for _ in range(20):
                    round_trip(client)
            for _ in range(rounds):
                for name, client in clients.items():
                    trip[name].append(statistics.median(round_trip(client) for _ in range(trips)))
        ready: dict[str, list[float]] = {STOCK: [], sealed: []}
        for _ in range(starts):
            for name in ready:
                with started(name) as (_, seconds):
                    ready[name].append(seconds)
    ratio = statistics.median(a / b for a, b in zip(trip[sealed], trip[STOCK], strict=True))
    slower = statistics.median(ready[sealed]) - statistics.median(ready[STOCK])
    return [
        {
            "name": "execute round trip of `1+1`",
            "value": f"{statistics.median(trip[sealed]) * 1e3:.2f} ms",
            "baseline": f"stock ipykernel {statistics.median(trip[STOCK]) * 1e3:.2f} ms",
            "ratio": f"{ratio:.2f}x",
            "target": "at most 1.10x",
            "holds": ratio <= 1.10,
            "note": f"median of {rounds} interleaved rounds of {trips}",
        },
        {
            "name": "kernel start to ready",
            "value": f"{statistics.median(ready[sealed]):.2f} s",
            "baseline": f"stock ipykernel {statistics.median(ready[STOCK]):.2f} s",
            "ratio": f"+{slower:.2f} s",
            "target": "at most +0.5 s",
            "holds": slower <= 0.5,
            "note": f"median of {starts} interleaved starts; includes measuring and verification",
        },
    ]
