"""Sessions: a kernel that its policy admitted, on one channel, for a limited time."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from sealbook.attestation import AttestationResult, Policy
from sealbook.encoding import canonical_json
from sealbook.errors import RefusedError

#: Sessions one broker keeps open; expired ones are dropped first.
MAX_SESSIONS = 1024


class SessionEndedError(RefusedError):
    """The session was closed, has expired, or was opened by another broker: attest again."""


class TooManySessionsError(RefusedError):
    """The broker, or the policy, allows no further session."""


@dataclass(frozen=True, eq=False)
class AttestedSession:
    """What a broker knows of a kernel it has verified. Nothing in it is secret.

    Attributes
    ----------
    id
        Names the session in the audit log; knowing it entitles to nothing.
    channel
        SHA-256 (hex) of role, audience and claims: the same when the enclave attests anew.
    result
        The verdict on the evidence when the session was opened.
    evidence, report_data
        What the kernel handed in, and what it must bind; verified again at every release.
    policy
        What admitted the session.
    role, audience, claims
        What the evidence binds beside the nonce.
    nonce
        The challenge that the evidence answers, used up; empty where it was not kept.
    opened_at, expires_at
        Aware times (UTC).
    """

    id: str
    channel: str
    result: AttestationResult
    evidence: bytes = field(repr=False)
    report_data: bytes = field(repr=False)
    policy: Policy = field(repr=False)
    role: str
    audience: str
    claims: Mapping[str, bytes] = field(repr=False)
    opened_at: datetime
    expires_at: datetime
    nonce: bytes = field(default=b"", repr=False)

    @classmethod
    def open(
        cls,
        *,
        result: AttestationResult,
        evidence: bytes,
        report_data: bytes,
        policy: Policy,
        role: str,
        audience: str,
        claims: Mapping[str, bytes],
        now: datetime,
        lifetime: timedelta,
        nonce: bytes = b"",
    ) -> AttestedSession:
        """Make the session of accepted evidence; it ends with the collateral if that is earlier."""
        expires = now + lifetime
        if result.collateral_expires_at is not None:
            expires = min(expires, result.collateral_expires_at)
        return cls(
            id=secrets.token_hex(8),
            channel=channel_of(role, audience, claims),
            result=result,
            evidence=evidence,
            report_data=report_data,
            policy=policy,
            role=role,
            audience=audience,
            claims=MappingProxyType(dict(claims)),
            opened_at=now,
            expires_at=expires,
            nonce=nonce,
        )

    @property
    def attested(self) -> bool:
        """Whether the kernel proved anything; a policy can also admit kernels that cannot."""
        return self.result.attested


def channel_of(role: str, audience: str, claims: Mapping[str, bytes]) -> str:
    """Return what names a channel: SHA-256 (hex) of all that evidence binds beside the nonce."""
    bound = {name: base64.b64encode(value).decode() for name, value in claims.items()}
    return hashlib.sha256(canonical_json([role, audience, bound])).hexdigest()


class Sessions(Protocol):
    """The sessions that one broker has opened and not closed, and how often each got which key."""

    def add(self, session: AttestedSession, now: datetime, *, limit: int | None = None) -> None:
        """Keep a new session; raises TooManySessionsError beyond `limit` sessions of one policy."""

    def close(self, session: AttestedSession) -> bool:
        """Forget a session; returns whether it was open."""

    def require_live(self, session: AttestedSession, now: datetime) -> None:
        """Raise SessionEndedError unless this very session is open and has not expired."""

    def count_use(self, session: AttestedSession, name: str, limit: int | None) -> bool:
        """Count one release of a key on the channel of `session`; False where `limit` is reached."""


def require_within(session: AttestedSession, now: datetime) -> None:
    """Raise SessionEndedError unless `now` is in the lifetime of `session`."""
    if not session.opened_at - timedelta(minutes=5) <= now < session.expires_at:
        raise SessionEndedError(
            f"This attested session expired at {session.expires_at:%Y-%m-%d %H:%M} UTC: attest again."
        )


class SessionTable:
    """:class:`Sessions` in memory: they end with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, AttestedSession] = {}
        self._uses: Counter[tuple[str, str]] = Counter()

    def add(self, session: AttestedSession, now: datetime, *, limit: int | None = None) -> None:
        """Keep a new session.

        Parameters
        ----------
        limit
            Sessions that the policy of `session` allows at the same time; an enclave that attests anew on
            its channel takes no second place.

        Raises
        ------
        TooManySessionsError
            The limit, or :data:`MAX_SESSIONS`, is reached.
        """
        with self._lock:
            if len(self._open) >= MAX_SESSIONS:
                self._open = {key: each for key, each in self._open.items() if now < each.expires_at}
            if len(self._open) >= MAX_SESSIONS:
                raise TooManySessionsError(
                    f"This broker has {MAX_SESSIONS} open sessions, its limit: shut down unused kernels."
                )
            rivals = {
                each.channel
                for each in self._open.values()
                if each.policy.digest == session.policy.digest and now < each.expires_at
            } - {session.channel}
            if limit is not None and len(rivals) >= limit:
                raise TooManySessionsError(
                    f"The policy '{session.policy.id}' allows {limit} sessions at a time: shut down a kernel."
                )
            self._open[session.id] = session

    def close(self, session: AttestedSession) -> bool:
        """Forget a session; returns whether it was open."""
        with self._lock:
            if self._open.get(session.id) is not session:
                return False
            del self._open[session.id]
            if not any(each.channel == session.channel for each in self._open.values()):
                for used in [used for used in self._uses if used[0] == session.channel]:
                    del self._uses[used]
            return True

    def require_live(self, session: AttestedSession, now: datetime) -> None:
        """Raise SessionEndedError unless this very session is open and has not expired."""
        with self._lock:
            known = self._open.get(session.id) is session
        if not known:
            raise SessionEndedError("This attested session has ended: restart the kernel to attest again.")
        require_within(session, now)

    def count_use(self, session: AttestedSession, name: str, limit: int | None) -> bool:
        """Count one release of a key; see :meth:`Sessions.count_use`."""
        with self._lock:
            if limit is not None and self._uses[session.channel, name] >= limit:
                return False
            self._uses[session.channel, name] += 1
            return True
