"""What a node got from the brokers, and the one frame in which its JVM is told.

The frame goes through a pipe, written before the JVM starts (or, for a driver, by the kernel that is its
parent), and is read by the Java agent before anything else runs. Nothing here writes it anywhere else, and
no secret is in a ``repr``.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives import serialization

from sealbook.attestation import Attester
from sealbook.broker.client import BrokerClient, BrokerUnreachableError, Enrolment
from sealbook.encoding import canonical_json
from sealbook.errors import RefusedError, SealbookError
from sealbook.simulated_loader import MeasuredAttester
from sealbook.spark.profiles import Profile

MASTER, WORKER, EXECUTOR, DRIVER = "spark-master", "spark-worker", "spark-executor", "spark-driver"
#: Kernels without a cluster: their JVM gets nothing but the gateway.
LOCAL = "local"
ROLES = (MASTER, WORKER, EXECUTOR, DRIVER)

MAX_FRAME_BYTES = 64 * 1024
#: How often a JVM asks its home broker who is still a member.
POLL_SECONDS = 5
#: How long a node waits for each answer of a broker.
BROKER_SECONDS = 20.0


@dataclass(frozen=True)
class BrokerAccess:
    """One broker that knows this node: the certificate it issued, for the same key."""

    owner: str
    url: str
    ca: str
    certificate: str
    report_data: bytes

    def to_dict(self) -> dict[str, Any]:
        """Return it as the frame has it."""
        return {
            "owner": self.owner,
            "url": self.url,
            "ca": self.ca,
            "certificate": self.certificate,
            "report_data": _b64(self.report_data),
        }


@dataclass(frozen=True)
class Gateway:
    """What the driver's JVM and its kernel share to talk over mutual TLS."""

    certificate: str
    private_key: bytes = field(repr=False)
    token: str = field(repr=False)
    port_file: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as the frame has it."""
        return {
            "certificate": self.certificate,
            "private_key": _b64(self.private_key),
            "token": self.token,
            "port_file": self.port_file,
        }


@dataclass(frozen=True)
class Credentials:
    """What one node is and has."""

    role: str
    cluster: str
    session: str
    certificate: str
    ca: str
    expires: datetime
    report_data: bytes
    brokers: tuple[BrokerAccess, ...]
    tls_private_key: bytes = field(repr=False)
    hpke_private_key: bytes = field(repr=False)
    cluster_secret: bytes = field(repr=False)

    def frame(self, gateway: Gateway | None = None) -> bytes:
        """Return the frame for the JVM; holds secrets."""
        content = {
            "v": 1,
            "role": self.role,
            "cluster": self.cluster,
            "session": self.session,
            "tls_private_key": _b64(self.tls_private_key),
            "hpke_private_key": _b64(self.hpke_private_key),
            "report_data": _b64(self.report_data),
            "certificate": self.certificate,
            "ca": self.ca,
            "cluster_secret": _b64(self.cluster_secret),
            "poll_seconds": POLL_SECONDS,
            "brokers": [access.to_dict() for access in self.brokers],
        }
        return _framed(content, gateway)


def local_frame(gateway: Gateway) -> bytes:
    """Return the frame of a driver without a cluster."""
    return _framed({"v": 1, "role": LOCAL}, gateway)


def enrol(profile: Profile, role: str, attester: Attester, hosts: Sequence[str]) -> Credentials:
    """Attest to the home broker and to every owner's, with one pair of keys made here.

    Parameters
    ----------
    hosts
        Names and addresses at which others reach this node.

    Raises
    ------
    SealbookError
        A broker refused, or cannot be reached; which one is in the sentence.
    """
    if isinstance(attester, MeasuredAttester):
        attester.wait()
    with _named(role, f"of the cluster '{profile.name}'", profile.broker):
        client = BrokerClient(profile.broker, profile.ca, timeout=BROKER_SECONDS)
        home = client.enrol(attester, role=role, cluster=profile.name, hosts=list(hosts))
    accesses = [_access("", profile.broker, profile.ca, home)]
    # Who else has keys for this cluster says its home broker, never this machine: whoever names a broker
    # names who may hand out keys.
    for owner in home.owners:
        with _named(role, f"of the data owner '{owner.name}'", owner.broker):
            client = BrokerClient(owner.broker, owner.ca, timeout=BROKER_SECONDS)
            other = client.enrol_as_guest(attester, home)
        accesses.append(_access(owner.name, owner.broker, owner.ca, other))
    if home.cluster_secret is None:
        raise RefusedError(f"The broker at {profile.broker} gave this {role} no secret of '{profile.name}'.")
    return Credentials(
        role=role,
        cluster=profile.name,
        session=home.session,
        certificate=home.certificate,
        ca=home.ca,
        expires=home.expires,
        report_data=home.report_data,
        brokers=tuple(accesses),
        tls_private_key=home.tls_private_key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        hpke_private_key=home.hpke_private_key.private_bytes_raw(),
        cluster_secret=home.cluster_secret,
    )


def into_pipe(frame: bytes) -> int:
    """Fill a pipe with `frame` and return its reading end, whose other end is closed.

    The pipe is made large enough to hold all of it, so nobody has to read while it is filled.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        # Gramine has no such size; what it takes at once is looked at below.
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2 * MAX_FRAME_BYTES)
        os.set_blocking(writer, False)
        if os.write(writer, frame) != len(frame):
            raise BlockingIOError("the pipe did not take the frame")
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return reader


@contextlib.contextmanager
def _named(role: str, whose: str, url: str) -> Iterator[None]:
    """Say in the sentence of an error which broker it was."""
    try:
        yield
    except BrokerUnreachableError as error:
        raise BrokerUnreachableError(f"The broker {whose} could not be asked: {error}") from None
    except SealbookError as error:
        message = f"The broker {whose} at {url} did not admit this {role}: {error}"
        raise type(error)(message) from None


def _access(owner: str, url: str, ca: str, enrolment: Enrolment) -> BrokerAccess:
    return BrokerAccess(owner, url, ca, enrolment.certificate, enrolment.report_data)


def _framed(content: dict[str, Any], gateway: Gateway | None) -> bytes:
    if gateway is not None:
        content = {**content, "gateway": gateway.to_dict()}
    encoded = canonical_json(content)
    if len(encoded) > MAX_FRAME_BYTES:
        raise ValueError("the frame for a JVM is too long")
    return len(encoded).to_bytes(4, "big") + encoded


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
