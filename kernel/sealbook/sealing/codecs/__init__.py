"""How Python objects become the bytes that are sealed, and come back: one module per kind of object.

Nothing here pickles, ever. An object for which no codec can promise that it comes back as it
was is refused with a sentence, before anything is written. The codecs know files only, not
keys; the libraries they need are loaded when an object or a sealed file asks for them.
"""

from __future__ import annotations

from sealbook.sealing.codecs.base import Codec, ContentError, Payload
from sealbook.sealing.codecs.registry import codec_for, codec_named, codec_names

__all__ = ["Codec", "ContentError", "Payload", "codec_for", "codec_named", "codec_names"]
