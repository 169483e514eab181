from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sealbook.attestation import ROLE_KERNEL, Policy, policy_text, report_data
from sealbook.attestation.simulated import Measurement, SimulatedPlatform
from sealbook.broker import AttestedSession, AuditLog, Broker, GuardedClock, Keyring, MemoryStore
from sealbook.errors import InputError

MEASUREMENT = Measurement(mrenclave=b"\x11" * 32)
OTHER_MEASUREMENT = Measurement(mrenclave=b"\x22" * 32)
AUDIENCE = "test-client"
CLAIMS = {"kernel-key": b"k" * 40, "client-key": b"c" * 40}


@pytest.fixture(scope="session")
def platform(tmp_path_factory) -> SimulatedPlatform:
    return SimulatedPlatform.load_or_create(tmp_path_factory.mktemp("platform"))


@dataclass
class World:
    """A broker, a kernel that talks to it, and the knobs of their machine."""

    platform: SimulatedPlatform
    directory: Path
    policies: dict[str, Policy] = field(default_factory=dict)
    moved: timedelta = timedelta()
    boot: float = 0.0

    def __post_init__(self) -> None:
        self.start = datetime.now(UTC)
        self.keyring = Keyring(MemoryStore())
        self.audit = AuditLog(self.directory / "audit.jsonl", clock=self.now)
        self.policy = self.add_policy("own")
        self.attester = self.platform.attester(MEASUREMENT)
        self.broker = self.new_broker()

    def now(self) -> datetime:
        return self.start + self.moved

    def passes(self, **delta: float) -> None:
        """Let time pass, on the clock and on the counter that nobody can set."""
        self.moved += timedelta(**delta)
        self.boot += timedelta(**delta).total_seconds()

    def add_policy(
        self, name: str, *, measurement: Measurement = MEASUREMENT, edit: Callable[[str], str] = str, **kw
    ) -> Policy:
        text = policy_text(
            id=name,
            mrenclave=measurement.mrenclave,
            root=self.platform.root_certificate,
            now=self.start - timedelta(hours=1),
            **kw,
        )
        self.policies[name] = Policy.parse(edit(text))
        return self.policies[name]

    def load_policy(self, guard: str) -> Policy:
        if guard not in self.policies:
            raise InputError(f"There is no policy '{guard}'.")
        return self.policies[guard]

    def new_broker(self, **kw) -> Broker:
        clock = GuardedClock(self.now, elapsed=lambda: self.boot, last_seen=self.audit.last_time())
        kw = {"policy_loader": self.load_policy, "clock": clock} | kw
        return Broker(self.keyring, self.audit, self.platform.source(), **kw)

    def quote(
        self, nonce: bytes, *, role: str = ROLE_KERNEL, audience: str = AUDIENCE, claims=CLAIMS
    ) -> bytes:
        return self.attester.quote(report_data(role=role, audience=audience, nonce=nonce, claims=claims))

    def attest(
        self, *, policy: Policy | None = None, quote=None, nonce: bytes | None = None, **kw
    ) -> AttestedSession:
        """Attest as an honest kernel does, but for what is given."""
        policy = policy or self.policy
        nonce = nonce or self.broker.challenge(policy)
        bound = {"role": ROLE_KERNEL, "audience": AUDIENCE, "claims": CLAIMS} | kw
        return self.broker.attest(quote or self.quote(nonce), nonce=nonce, policy=policy, **bound)

    def events(self, event: str) -> list[dict]:
        return [entry for entry in self.audit.entries() if entry["event"] == event]


@pytest.fixture
def world(platform, tmp_path) -> World:
    return World(platform, tmp_path)
