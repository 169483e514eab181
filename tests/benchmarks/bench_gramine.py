"""What Gramine costs: the start of a kernel from a strict, measured image, round trips, interrupts, commands.

Baseline: the simulated kernel, the same code without Gramine. Measured with gramine-direct where it is on the
PATH (it does all that gramine-sgx does but enter the enclave); where it is not, the rows say so.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_kernel import own_home, round_trip, started
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

_LIMIT = 60

#: What is interrupted, and the seconds after which.
_BUSY = {
    "Python": "while True: pass",
    "NumPy": "import numpy as np; a = np.ones((500, 500))\nwhile True: a = a @ a; a /= a.max()",
    "a subprocess": "import subprocess; subprocess.run(['sleep', '600'])",
}


def interrupted(manager: KernelManager, client: BlockingKernelClient, code: str) -> float:
    """Return the seconds from asking for an interrupt to the cell's end."""
    message = client.execute(code)
    time.sleep(3)
    begin = time.perf_counter()
    manager.interrupt_kernel()
    while client.get_shell_msg(timeout=_LIMIT)["parent_header"].get("msg_id") != message:
        pass
    return time.perf_counter() - begin


def measure(quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the benchmark table."""
    if shutil.which("gramine-direct") is None:
        return [
            {
                "name": "a kernel in Gramine",
                "value": "not measured",
                "baseline": "-",
                "ratio": "-",
                "target": "start at most 3x the simulated kernel's",
                "holds": None,
                "note": "there is no gramine-direct on the PATH",
            }
        ]
    from sealbook.cli.install import ensure
    from sealbook.cli.install_gramine import ensure_gramine
    from sealbook.image.build import Recipe, build
    from sealbook.image.distributions import installed_layers

    layers = ("kernel",) if quick else installed_layers()
    starts = 2 if quick else 9
    with own_home(), tempfile.TemporaryDirectory(prefix="sealbook-bench-") as directory:
        simulated = ensure(name="sealbook-simulated")["kernel"]
        image = build(Recipe(layers=layers), Path(directory, "image"))
        gramine = ensure_gramine("gramine-direct", image=image.path)["kernel"]
        ready: dict[str, list[float]] = {simulated: [], gramine: []}
        for number in range(starts + 1):
            for name in ready:
                with started(name) as (_, seconds):
                    if number:  # the first reads everything from the disk
                        ready[name].append(seconds)
        trips: dict[str, float] = {}
        for name in ready:
            with started(name) as (client, _):
                for _ in range(20):
                    round_trip(client)
                trips[name] = statistics.median(round_trip(client) for _ in range(100))
        ends: dict[str, list[float]] = {what: [] for what in _BUSY}
        manager = KernelManager(kernel_name=gramine)
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=_LIMIT)
            for what, code in _BUSY.items():
                if what == "NumPy" and "data" not in image.facts.layers:
                    continue
                for _ in range(1 if quick else 5):
                    ends[what].append(interrupted(manager, client, code))
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    files = sum(group["files"] for group in image.facts.groups.values())
    ratio = statistics.median(a / b for a, b in zip(ready[gramine], ready[simulated], strict=True))
    worst = max(max(seconds) for seconds in ends.values() if seconds)
    each = ", ".join(f"{what} {statistics.median(s):.2f} s" for what, s in ends.items() if s)
    return [
        {
            "name": "start of a kernel in Gramine",
            "value": f"{statistics.median(ready[gramine]):.2f} s",
            "baseline": f"simulated kernel {statistics.median(ready[simulated]):.2f} s",
            "ratio": f"{ratio:.2f}x",
            "target": "at most 3x",
            "holds": ratio <= 3,
            "note": f"median of {starts} interleaved starts; gramine-direct, strict, {files:,} measured "
            f"files ({', '.join(image.facts.layers)})",
        },
        {
            "name": "round trip of `1+1` in Gramine",
            "value": f"{trips[gramine] * 1e3:.2f} ms",
            "baseline": f"simulated kernel {trips[simulated] * 1e3:.2f} ms",
            "ratio": f"{trips[gramine] / trips[simulated]:.2f}x",
            "target": "none",
            "holds": None,
            "note": "gramine-direct",
        },
        {
            "name": "interrupt in Gramine, until the cell ends",
            "value": f"{worst:.2f} s at worst",
            "baseline": "-",
            "ratio": "-",
            "target": "at most 1 s",
            "holds": worst <= 1,
            "note": f"medians: {each}",
        },
    ]
