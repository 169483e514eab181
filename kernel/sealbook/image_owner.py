"""Who the owner of an image is, as the image itself says it; read inside the enclave."""

from __future__ import annotations

from pathlib import Path

from sealbook.errors import RefusedError

#: Which the image measures: its owner's public key in hex (of a node's image, the SHA-256 of the public key
#: of the broker's authority whose clusters it joins), or :data:`ANYONE`.
OWNER, ANYONE = Path("/etc/sealbook-owner"), "anyone"


def read_owner(path: Path) -> bytes | None:
    """Return the owner, 32 bytes, or None if the image says that it answers anyone.

    Raises
    ------
    RefusedError
        The file cannot be read: a host that hides it must not turn the image into one that answers anyone.
    """
    try:
        text = path.read_text().strip()
        return None if text == ANYONE else bytes.fromhex(text)
    except (OSError, ValueError):
        raise RefusedError("This image does not say who its owner is: build it again.") from None
