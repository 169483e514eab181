"""A real broker service on loopback, over real TLS, and a simulated platform for its nodes."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sealbook.attestation import (
    Attester,
    Measurement,
    Policy,
    SimulatedPlatform,
    policy_text,
    report_data,
)
from sealbook.broker import AuditLog, Keyring, MemoryStore, tls
from sealbook.broker.certificates import NODE_EXTENSION, NodeFacts, public_der
from sealbook.broker.client import BrokerClient, Enrolment
from sealbook.broker.service.database import Database
from sealbook.broker.service.server import BrokerServer
from sealbook.broker.service.service import BrokerService
from sealbook.encoding import canonical_json
from sealbook.errors import InputError
from sealbook.sealing import SealingKey

MEASUREMENT = Measurement(mrenclave=b"\x31" * 32, files=1, roots=("test",), seconds=0.0)
OTHER = Measurement(mrenclave=b"\x32" * 32, files=1, roots=("test",), seconds=0.0)
CLUSTER = "trial"


def node_facts(certificate: str) -> NodeFacts:
    """Return what a node's certificate (PEM) says of it."""
    extensions = x509.load_pem_x509_certificate(certificate.encode()).extensions
    return NodeFacts(**json.loads(extensions.get_extension_for_oid(NODE_EXTENSION).value.value))


@dataclass(frozen=True)
class NodeKeys:
    """The keys that a node gets, each asked for anew: a KeyProvider."""

    client: BrokerClient
    enrolment: Enrolment

    def current(self, name: str) -> SealingKey:
        return self.client.release(self.enrolment, name, None, "seal")

    def get(self, name: str, version: int) -> SealingKey:
        return self.client.release(self.enrolment, name, version, "unseal")


@dataclass
class Served:
    """A service and the knobs of what stands behind it. The cluster `trial` and the key `data` exist."""

    directory: Path
    platform: SimulatedPlatform
    policies: dict[str, Policy] = field(default_factory=dict)
    keyring: Keyring = field(default_factory=lambda: Keyring(MemoryStore()))
    service: BrokerService = field(init=False)
    server: BrokerServer = field(init=False)

    def __post_init__(self) -> None:
        self.audit = AuditLog(self.directory / "audit.jsonl")
        self.add_policy("nodes")
        # The keyring may be one that lasts.
        if "data" not in {record.name for record in self.keyring.list()}:
            self.keyring.create("data", guard="nodes")

    def add_policy(self, name: str, *, measurement: Measurement = MEASUREMENT, edit=str, **kw: Any) -> Policy:
        now = datetime.now(UTC) - timedelta(hours=1)
        text = policy_text(
            id=name, mrenclave=measurement.mrenclave, root=self.platform.root_certificate, now=now, **kw
        )
        self.policies[name] = Policy.parse(edit(text))
        return self.policies[name]

    def load_policy(self, name: str) -> Policy:
        if name not in self.policies:
            raise InputError(f"There is no policy '{name}'.")
        return self.policies[name]

    def new_service(self, **kw: Any) -> BrokerService:
        kw = {"policies": ("nodes",), "policy_loader": self.load_policy} | kw
        database = Database(self.directory / "broker" / "service.sqlite")
        service = BrokerService(self.keyring, self.audit, self.platform.source(), database, **kw)
        if CLUSTER not in {each.name for each in service.clusters.list()}:
            service.clusters.add(CLUSTER, policy="nodes")
        return service

    @contextmanager
    def running(self, *, port: int = 0, server: Any = None, **kw: Any) -> Iterator[Served]:
        """Serve in a thread until the block ends; may be entered again, which is a restart."""
        self.service = self.new_service(**kw)
        self.server = BrokerServer(self.service, port=port, **(server or {}))
        ready = threading.Event()
        thread = threading.Thread(target=self.server.run, args=(ready.set,))
        thread.start()
        try:
            assert ready.wait(10)
            yield self
        finally:
            self.server.stop()
            thread.join(20)
            assert not thread.is_alive()

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def ca(self) -> str:
        return self.service.ca_pem

    def client(self, **kw: Any) -> BrokerClient:
        return BrokerClient(self.url, self.ca, **kw)

    def attester(self, measurement: Measurement = MEASUREMENT) -> Attester:
        return self.platform.attester(measurement)

    def enrol(self, *, role: str = "spark-worker", cluster: str = CLUSTER, **kw: Any) -> Enrolment:
        """Enrol as an honest node does."""
        return self.client().enrol(self.attester(), role=role, cluster=cluster, **kw)

    def http(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        enrolment: Enrolment | None = None,
        raw: bytes = b"",
    ) -> tuple[int, dict[str, Any]]:
        """Send one request as anybody could; returns the status and the answer."""
        context = tls.client_context(self.ca)
        if enrolment is not None:
            tls.load_identity(context, enrolment.certificate, enrolment.tls_private_key)
        connection = http.client.HTTPSConnection("127.0.0.1", self.server.port, timeout=20, context=context)
        try:
            connection.request(method, path, body=raw or (None if body is None else json.dumps(body)))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def attest_request(
        self, *, quoted: dict[str, Any] | None = None, attester: Attester | None = None, **sent: Any
    ) -> dict[str, Any]:
        """Return the body of an honest attestation, but for what is `quoted` or `sent` otherwise."""
        tls_key = public_der(ec.generate_private_key(ec.SECP256R1()).public_key())
        honest = {
            "nonce": self.service.challenge(),
            "role": "spark-worker",
            "cluster": CLUSTER,
            "tls_key": tls_key,
            "hpke_key": X25519PrivateKey.generate().public_key().public_bytes_raw(),
            "hosts": ["localhost"],
            "home": b"",
        }
        bound = honest | {"audience": self.service.name, "broker_key": self.broker_key()} | (quoted or {})
        claims = {
            "tls_key": bound["tls_key"],
            "hpke_key": bound["hpke_key"],
            "cluster": bound["cluster"].encode(),
            "hosts": canonical_json(bound["hosts"]),
            "broker_key": bound["broker_key"],
            "home": bound["home"],
        }
        for name in bound.get("without", ()):
            del claims[name]
        claims |= bound.get("also", {})
        data = report_data(
            role=bound["role"], audience=bound["audience"], nonce=bound["nonce"], claims=claims
        )
        evidence = (attester or self.attester()).quote(data)
        body = honest | {"evidence": evidence} | sent
        return {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in body.items()
        }

    def broker_key(self) -> bytes:
        """Return what evidence binds of the broker, as a client sees it."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.server.port))
        return hashlib.sha256(public_der(x509.load_pem_x509_certificate(pem.encode()).public_key())).digest()

    def events(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.audit.entries() if entry["event"] == event]

    def reasons(self, event: str) -> str:
        """Every reason that a refusal of this event was recorded with."""
        return "\n".join(reason for entry in self.events(event) for reason in entry.get("reasons", ()))


@contextmanager
def served(directory: Path, **kw: Any) -> Iterator[Served]:
    """Run a service; arguments are those of :class:`BrokerService`, and `server` those of its server."""
    platform = SimulatedPlatform.load_or_create(directory / "platform")
    with Served(directory, platform).running(**kw) as world:
        yield world
