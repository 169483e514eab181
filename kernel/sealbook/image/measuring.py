"""Measures a manifest anew with this machine's Gramine, to believe nothing that an image says of itself."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sealbook.image import gramine
from sealbook.image.image import PROGRAM
from sealbook.image.sigstruct import Sigstruct


@contextlib.contextmanager
def nobodys_key() -> Iterator[Path]:
    """Make a key that signs, and throw it away."""
    with tempfile.TemporaryDirectory(prefix="sealbook-image-") as directory:
        path = Path(directory, "key.pem")
        path.touch(mode=0o600)
        # What SGX asks for (Intel SDM volume 3D, section 38.13): 3072 bits, exponent 3.
        path.write_bytes(
            rsa.generate_private_key(3, 3072).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        yield path


def measure(manifest: bytes) -> Sigstruct:
    """Return the identity of the enclave that runs this manifest; its signer is nobody.

    Parameters
    ----------
    manifest
        One that the lint has nothing against: of others Gramine would read files that they name.

    Raises
    ------
    MissingDependencyError
        There is no gramine-sgx-sign.
    RefusedError
        It failed.
    """
    with tempfile.TemporaryDirectory(prefix="sealbook-measure-") as directory, nobodys_key() as key:
        place = Path(directory)
        (place / f"{PROGRAM}.manifest").write_bytes(manifest)
        gramine.sign(place, PROGRAM, key)
        return Sigstruct.parse((place / f"{PROGRAM}.sig").read_bytes())
