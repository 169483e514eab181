"""Reads what a signed enclave's SIGSTRUCT says: who signed which measurement.

Layout: Intel SDM volume 3D, section 38.13 (SIGSTRUCT), 1808 bytes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from sealbook.errors import InputError

SIGSTRUCT_BYTES = 1808
_MODULUS = slice(128, 512)
_ATTRIBUTES = 928
_ENCLAVE_HASH = slice(960, 992)
_IDS = struct.Struct("<HH")
_IDS_AT = 1024
_DEBUG = 0x02


@dataclass(frozen=True)
class Sigstruct:
    """The identity that a signature gives to an enclave.

    Attributes
    ----------
    mrenclave, mrsigner
        32 bytes each; MRSIGNER is the SHA-256 of the signing key's modulus.
    """

    mrenclave: bytes
    mrsigner: bytes
    isv_prod_id: int
    isv_svn: int
    debug: bool

    @classmethod
    def parse(cls, data: bytes) -> Sigstruct:
        """Parse a ``.sig`` file; its signature is checked by the processor, not here.

        Raises
        ------
        InputError
            It has another length.
        """
        if len(data) != SIGSTRUCT_BYTES:
            raise InputError(f"A signature file has {SIGSTRUCT_BYTES} bytes, this one {len(data)}.")
        isv_prod_id, isv_svn = _IDS.unpack_from(data, _IDS_AT)
        return cls(
            mrenclave=data[_ENCLAVE_HASH],
            mrsigner=hashlib.sha256(data[_MODULUS]).digest(),
            isv_prod_id=isv_prod_id,
            isv_svn=isv_svn,
            debug=bool(data[_ATTRIBUTES] & _DEBUG),
        )
