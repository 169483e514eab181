"""Progress bars for what takes longer than a second."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm


def byte_progress(total: int, *, what: str, shown: bool) -> Any:
    """Return a tqdm bar over `total` bytes that appears only when a second has passed."""
    return tqdm(
        total=total, desc=what, unit="B", unit_scale=True, unit_divisor=1024, delay=1.0, disable=not shown
    )
