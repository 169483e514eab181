"""Progress bars for what takes longer than a second."""

from __future__ import annotations

from typing import Any


def byte_progress(total: int, *, what: str, shown: bool) -> Any:
    """Return a tqdm bar over `total` bytes that appears only when a second has passed."""
    # Imported when a bar is wanted. The bar of text and not the widget: that one opens a comm at once, also
    # for what takes no time, and is blank in offline exports of the notebook.
    from tqdm import tqdm

    return tqdm(
        total=total, desc=what, unit="B", unit_scale=True, unit_divisor=1024, delay=1.0, disable=not shown
    )
