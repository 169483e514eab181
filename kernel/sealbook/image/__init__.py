"""Kernel images for Gramine: built (:mod:`.build`), measured (:mod:`.manifest`) and judged (:mod:`.lint`).

On the host's side, and nothing here needs to be trusted by anyone who checks a quote: what counts is the
measurement, and that whoever approves it built the image or looked at it.
"""

from __future__ import annotations

from sealbook.image.image import Facts, Image

__all__ = ["Facts", "Image"]
