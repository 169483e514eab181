"""Progress bars for what takes longer than a second."""

from __future__ import annotations

import warnings
from typing import Any


def byte_progress(total: int, *, what: str, shown: bool) -> Any:
    """Return a tqdm bar over `total` bytes that appears only when a second has passed."""
    # Imported when a bar is wanted: tqdm.auto looks for a notebook and its widgets, which takes time,
    # and warns where ipywidgets is missing, though its text bar does as well.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    return tqdm(
        total=total, desc=what, unit="B", unit_scale=True, unit_divisor=1024, delay=1.0, disable=not shown
    )
