"""A session of a sealbook kernel, in one process: real evidence, verifier, broker and wire format.

Only the transport is missing: the kernel's end calls the broker's end directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sealbook import session
from sealbook.attestation import (
    ROLE_KERNEL,
    Attester,
    Measurement,
    Policy,
    SimulatedPlatform,
    UnattestedAttester,
    policy_text,
    report_data,
)
from sealbook.broker import AuditLog, Broker, BrokerEndpoint, Keyring, MemoryStore, RemoteBroker

CLAIMS = {"channel": b"\x07" * 32}
AUDIENCE = "sealbook tests"


@dataclass
class Brokered:
    """An attached session and what stands behind it."""

    broker: Broker
    keyring: Keyring
    audit: AuditLog
    remote: RemoteBroker
    policy: Policy
    endpoint: BrokerEndpoint


@contextmanager
def attached(directory: Path, *, attested: bool = True) -> Iterator[Brokered]:
    """Open the session of a kernel and attach it to this process.

    Attested: with one measured file, on a simulated platform. Otherwise as in Gramine without SGX.
    """
    platform = SimulatedPlatform.load_or_create(directory / "platform")
    measurement = Measurement(mrenclave=b"\x05" * 32, files=1, roots=("test",), seconds=0.0)
    attester: Attester = platform.attester(measurement) if attested else UnattestedAttester()
    now = datetime.now(UTC)
    policy = Policy.parse(
        policy_text(mrenclave=measurement.mrenclave, root=platform.root_certificate, now=now)
        if attested
        else policy_text(tee="gramine-direct", now=now)
    )
    keyring = Keyring(MemoryStore())
    audit = AuditLog(directory / "audit.jsonl")
    broker = Broker(keyring, audit, platform.source(), policy_loader=lambda name: policy)

    def evidence(nonce: bytes) -> bytes:
        return attester.quote(report_data(role=ROLE_KERNEL, audience=AUDIENCE, nonce=nonce, claims=CLAIMS))

    nonce = broker.challenge(policy)
    opened = broker.attest(
        evidence(nonce), role=ROLE_KERNEL, audience=AUDIENCE, nonce=nonce, claims=CLAIMS, policy=policy
    )
    endpoint = BrokerEndpoint(broker, opened)
    remote = RemoteBroker(endpoint.handle, evidence=evidence)
    session.detach()
    session.attach(remote)
    try:
        yield Brokered(broker, keyring, audit, remote, policy, endpoint)
    finally:
        session.detach()
        endpoint.close()
