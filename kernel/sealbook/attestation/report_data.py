"""What an enclave says in the 64 bytes of REPORTDATA: who it is to whom, and with which keys.

REPORTDATA = SHA-512 over length-prefixed parts::

    "sealbook report data" | version | role | audience | nonce | number of claims | name | value | ...

Every part is preceded by its length as a 64-bit big-endian integer, so no two different
inputs give the same bytes, and the claims are sorted by name. The verifier recomputes all 64
bytes from what it knows itself: its own nonce, its own name (audience) and the keys it is
talking to; a quote made for another purpose, verifier or channel does not match.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

#: Separates these hashes from every other use of SHA-512.
DOMAIN = b"sealbook report data"
VERSION = b"1"
#: A Jupyter kernel.
ROLE_KERNEL = "kernel"
NONCE_BYTES = 32
_MAX_CLAIMS = 64


def report_data(*, role: str, audience: str, nonce: bytes, claims: Mapping[str, bytes]) -> bytes:
    """Compute REPORTDATA.

    Parameters
    ----------
    role
        What the enclave is, for example :data:`ROLE_KERNEL`; not empty.
    audience
        Who the evidence is for, for example ``"broker"``; not empty.
    nonce
        The verifier's 32 bytes.
    claims
        What the quote binds besides, for example public keys and ports; values are bytes.

    Returns
    -------
    bytes
        64 bytes.

    Raises
    ------
    ValueError
        A part is missing, of the wrong length, or there are too many claims.
    """
    if not role or not audience:
        raise ValueError("role and audience must not be empty")
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    if len(claims) > _MAX_CLAIMS:
        raise ValueError(f"at most {_MAX_CLAIMS} claims are bound")
    parts = [DOMAIN, VERSION, role.encode(), audience.encode(), bytes(nonce), str(len(claims)).encode()]
    for name, value in sorted(claims.items()):
        parts += [name.encode(), bytes(value)]
    digest = hashlib.sha512()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
