"""TLS as the broker and its clients speak it: version 1.3, one authority each way, keys in memory only."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sealbook.errors import InputError, MissingDependencyError


def client_context(ca_pem: str) -> ssl.SSLContext:
    """Return what a client of the broker whose authority is `ca_pem` connects with.

    Raises
    ------
    InputError
        There is no certificate in `ca_pem`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _trust(context, ca_pem)
    return context


#: Where Gramine has its pseudo-files, and what images have in memory (:mod:`sealbook.image.manifest`).
_GRAMINE, _ENCLAVE_MEMORY = Path("/dev/attestation"), "/tmp"  # noqa: S108


def server_context(node_ca_pem: str) -> ssl.SSLContext:
    """Return what the broker listens with; it still needs an identity.

    A client need not have a certificate, because one that has not attested yet has none. One that shows a
    certificate gets no further unless it is valid now and of this authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    _trust(context, node_ca_pem)
    # A resumed session would not be asked for a certificate that is still valid.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def load_identity(context: ssl.SSLContext, certificate_pem: str, key: ec.EllipticCurvePrivateKey) -> None:
    """Give `context` a certificate and its private key.

    Python's ssl reads keys from files only, so the key passes through a file that lies in memory, has no
    name and is gone with its descriptor.
    """
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate_pem.encode()
    if _GRAMINE.exists():
        # Gramine has no memfd_create. Images have a tmpfs there: this process's own memory in the enclave.
        with tempfile.NamedTemporaryFile(dir=_ENCLAVE_MEMORY) as named:
            named.write(content)
            named.flush()
            context.load_cert_chain(named.name)
        return
    try:
        descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        raise MissingDependencyError(
            "This system has no files in memory (memfd_create, Linux 3.17), and a TLS key is not written to "
            "a disk: use a newer kernel."
        ) from None
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _trust(context: ssl.SSLContext, ca_pem: str) -> None:
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError):
        raise InputError(
            "The broker's CA is not a certificate (PEM): take the file that the broker wrote."
        ) from None
