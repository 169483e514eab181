"""The broker: releases a named key to an enclave whose evidence passes the policy that guards the key.

It knows no transport: the Jupyter provisioner embeds it (:mod:`sealbook.broker.wire` carries its
messages over the attested channel), and a network service can.

In the terms of RFC 9334 it is the Relying Party of the background-check model; the verifier is
:class:`sealbook.attestation.Verifier`. Every decision is in the audit log *before* it takes effect.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, get_args

from sealbook import paths
from sealbook.attestation import (
    AttestationResult,
    CollateralMemory,
    CollateralSource,
    NonceLedger,
    Policy,
    Quote,
    Verifier,
    report_data,
)
from sealbook.broker import guards, rules
from sealbook.broker.audit import AuditLog
from sealbook.broker.clock import GuardedClock
from sealbook.broker.keyring import SESSION_PREFIX, UNGUARDED, KeyRecord, Keyring, KeyVersion, open_keyring
from sealbook.broker.session import AttestedSession, SessionEndedError, SessionTable
from sealbook.errors import InputError, SealbookError
from sealbook.sealing import KeyUnavailableError, SealingKey, check_key_name

#: The key of a session that names no other; made at first use, in memory.
DEFAULT_SESSION_KEY: Final = SESSION_PREFIX + "default"

#: What a key is wanted for.
Purpose = Literal["seal", "unseal"]

#: Distinct keys that kernels may have made in memory.
_MAX_SESSION_KEYS: Final = 1024

#: Seconds for which a challenge can be answered where no policy says it; what policies say by default.
_NONCE_LIFETIME: Final = 60

#: Largest version a file's header may ask for.
_MAX_VERSION: Final = 2**31 - 1


class ReleaseRefusedError(KeyUnavailableError):
    """A key was not released; the sentence says why, the audit log has every reason."""


@dataclass(frozen=True, repr=False)
class _SessionKey:
    """A key made in memory, guarded by the policy of the session that first wanted it."""

    key: SealingKey
    policy: Policy
    created: str


class Broker:
    """Decides who gets which key.

    Methods may be called from several threads.

    Parameters
    ----------
    keyring
        The user's keys. Not opened before a stored key is wanted.
    audit
        Takes every decision first; what it cannot record does not happen.
    collateral
        What the verifier needs to judge a platform.
    policy_loader
        Gives the policy of the name that the keyring records as a key's guard.
    clock
        Gives the aware time. Moves of it are noticed, see :class:`~sealbook.broker.clock.GuardedClock`.
    memory
        Remembers the newest collateral seen, so that older one is refused.
    """

    def __init__(
        self,
        keyring: Keyring,
        audit: AuditLog,
        collateral: CollateralSource,
        *,
        policy_loader: Callable[[str], Policy] = guards.load_policy,
        clock: Callable[[], datetime] | GuardedClock = lambda: datetime.now(UTC),
        memory: CollateralMemory | None = None,
    ) -> None:
        self.keyring = keyring
        self.audit = audit
        self._collateral = collateral
        self._load_policy = policy_loader
        self._clock = (
            clock if isinstance(clock, GuardedClock) else GuardedClock(clock, last_seen=audit.last_time())
        )
        self._memory = memory
        # By lifetime in seconds. A new broker knows no challenge: evidence for one that has ended is refused.
        self._nonces: dict[int, NonceLedger] = {}
        self._sessions = SessionTable()
        self._lock = threading.RLock()
        self._session_keys: dict[str, _SessionKey] = {}
        self._uses: Counter[tuple[str, str]] = Counter()

    # -- attestation ---------------------------------------------------------------------------

    def challenge(self, policy: Policy | None = None) -> bytes:
        """Return 32 random bytes that evidence must bind; good once.

        Parameters
        ----------
        policy
            The one the evidence is going to be judged by, which says how long the challenge can be
            answered. Default: what policies say that do not say otherwise.
        """
        return self._ledger(policy).issue(self._clock.now())

    def attest(
        self,
        quote: bytes,
        *,
        role: str,
        audience: str,
        nonce: bytes,
        claims: Mapping[str, bytes],
        policy: Policy,
    ) -> AttestedSession:
        """Verify evidence and open a session.

        Parameters
        ----------
        quote
            As received: untrusted.
        role, audience, nonce, claims
            What REPORTDATA must bind, all from this end's own knowledge: what the peer is to be, who is
            asking, this broker's :meth:`challenge`, and the keys of the channel the peer is reached by.
        policy
            What the peer must satisfy.

        Raises
        ------
        RefusedError
            One sentence; nothing was opened. For refusals of the verifier an AttestationRefusedError.
        """
        facts: dict[str, Any] = {"role": role, "audience": audience, "policy": policy.id}
        try:
            now = self._clock.now()
            self._ledger(policy).redeem(nonce, now)
            rules.check_peer(policy, role=role, audience=audience)
            expected = report_data(role=role, audience=audience, nonce=nonce, claims=claims)
            facts["evidence"] = Quote.parse(quote).identity
            result = self._verify(quote, policy, now, expected)
            facts |= _identity(result)
            result.require()
            session = AttestedSession.open(
                result=result,
                quote=quote,
                report_data=expected,
                policy=policy,
                role=role,
                audience=audience,
                claims=claims,
                now=now,
                lifetime=timedelta(seconds=policy.release.ttl_seconds),
            )
            self._sessions.add(session, now, limit=policy.release.max_sessions)
            facts |= {"session": session.id, "expires": session.expires_at.isoformat(timespec="seconds")}
        except SealbookError as error:
            self._record("attest", "refused", **facts, reasons=_reasons(error))
            raise
        try:
            self._record("attest", "accepted", **facts)
        except BaseException:
            self._sessions.close(session)
            raise
        return session

    def close_session(self, session: AttestedSession) -> None:
        """End a session: its evidence opens nothing any more. Closing twice is the same as once."""
        if not self._sessions.close(session):
            return
        if not self._sessions.has_channel(session.channel):
            with self._lock:
                for used in [used for used in self._uses if used[0] == session.channel]:
                    del self._uses[used]
        self._record("close", "done", session=session.id)

    # -- keys ----------------------------------------------------------------------------------

    def release(
        self,
        session: AttestedSession,
        name: str,
        version: int | None = None,
        purpose: Purpose = "unseal",
    ) -> SealingKey:
        """Release a key to the enclave behind `session`, or refuse.

        The session's evidence is verified again, now, against the policy that guards this very key: a
        session that one policy admitted says nothing about the keys of another.

        Parameters
        ----------
        version
            None for the one that seals now.

        Raises
        ------
        ReleaseRefusedError
            One sentence.
        SessionEndedError
            The session is over; attesting anew may help.
        AuditError
            The decision could not be recorded.
        """
        facts: dict[str, Any] = {"session": session.id, "key": name[:160]}
        try:
            check_key_name(name)
            _check_request(version, purpose)
            facts |= {"purpose": purpose, "version": version}
            now = self._clock.now()
            self._sessions.require_live(session, now)
            policy, fetch = self._find(session, name, version)
            facts["guard"] = policy.id if policy else UNGUARDED
            if policy is not None:
                result = self._verify(session.quote, policy, now, session.report_data)
                facts |= _identity(result)
                result.require()
                rules.check_release(policy, session, name, now)
            key = fetch()
            facts["version"] = key.version
            self._count_use(session, name, policy)
        except SealbookError as error:
            self._record("release", "refused", **facts, reasons=_reasons(error))
            if isinstance(error, SessionEndedError | ReleaseRefusedError):
                raise
            raise ReleaseRefusedError(f"The key '{name[:160]}' is not released: {error}") from None
        # The record comes first: if it cannot be made, this raises and the key stays here.
        self._record("release", "released", **facts)
        return key

    def keys(self, session: AttestedSession) -> tuple[KeyRecord, ...]:
        """Return the keys that `session` would get now. No secrets, and no guarantee: release decides."""
        now = self._clock.now()
        self._sessions.require_live(session, now)
        with self._lock:
            made = dict(self._session_keys)
        found = [
            KeyRecord(name, "session", "in memory until the broker ends", (KeyVersion(1, each.created),))
            for name, each in sorted(made.items())
            if self._admits(session, each.policy, name, now)
        ]
        if DEFAULT_SESSION_KEY not in made:
            version = KeyVersion(1, now.isoformat(timespec="seconds"))
            found.append(KeyRecord(DEFAULT_SESSION_KEY, "session", "made when it is first used", (version,)))
        try:
            stored = self.keyring.list()
        except SealbookError:  # a locked keyring: whoever asks for one of its keys is told
            return tuple(found)
        for record in stored:
            try:
                policy = None if record.guard == UNGUARDED else self._load_policy(record.guard)
                if policy is None or self._admits(session, policy, record.name, now):
                    found.append(record)
            except SealbookError:
                continue
        return tuple(found)

    def report(self, session: AttestedSession, action: str, facts: Mapping[str, Any]) -> None:
        """Record what the enclave says it did with a key; its word, marked as such."""
        self._sessions.require_live(session, self._clock.now())
        self._record("artifact", "reported", session=session.id, action=action, facts=dict(facts))

    def require_live(self, session: AttestedSession) -> None:
        """Raise SessionEndedError unless `session` was opened here, is not closed and has not expired."""
        self._sessions.require_live(session, self._clock.now())

    # -- helpers -------------------------------------------------------------------------------

    def _ledger(self, policy: Policy | None) -> NonceLedger:
        lifetime = policy.freshness.nonce_ttl_seconds if policy else _NONCE_LIFETIME
        with self._lock:
            return self._nonces.setdefault(lifetime, NonceLedger(lifetime))

    def _verify(self, quote: bytes, policy: Policy, now: datetime, expected: bytes) -> AttestationResult:
        collateral = self._collateral.collateral_for(Quote.parse(quote))
        verifier = Verifier(policy, memory=self._memory)
        return verifier.verify(quote, collateral, now=now, expected_report_data=expected)

    def _admits(self, session: AttestedSession, policy: Policy, name: str, now: datetime) -> bool:
        try:
            rules.check_release(policy, session, name, now)
            return self._verify(session.quote, policy, now, session.report_data).accepted
        except SealbookError:
            return False

    def _find(
        self, session: AttestedSession, name: str, version: int | None
    ) -> tuple[Policy | None, Callable[[], SealingKey]]:
        """Return the policy that guards a key, and what fetches the key once the policy has passed."""
        if name.startswith(SESSION_PREFIX):
            made = self._session_key(session, name, version)
            return made.policy, lambda: made.key
        # One look at the keyring: nobody can exchange the guard between the decision and the key.
        stored = self.keyring.find(name)
        policy = None if stored.record.guard == UNGUARDED else self._load_policy(stored.record.guard)
        return policy, lambda: stored.version(version)

    def _session_key(self, session: AttestedSession, name: str, version: int | None) -> _SessionKey:
        with self._lock:
            made = self._session_keys.get(name)
            if made is None:
                if version is not None:
                    raise ReleaseRefusedError(
                        f"The key '{name}' lived in the memory of a broker that has ended, and what it "
                        "sealed cannot be opened any more; `sealbook keys create` makes keys that last."
                    )
                if len(self._session_keys) >= _MAX_SESSION_KEYS:
                    raise ReleaseRefusedError(
                        f"This broker holds {_MAX_SESSION_KEYS} session keys, its limit; use one of them."
                    )
                created = self._clock.now().isoformat(timespec="seconds")
                made = _SessionKey(SealingKey.generate(name), session.policy, created)
                self._session_keys[name] = made
            if version not in (None, made.key.version):
                raise ReleaseRefusedError(f"There is no version {version} of the key '{name}'.")
            return made

    def _count_use(self, session: AttestedSession, name: str, policy: Policy | None) -> None:
        limit = policy.release.max_uses if policy else None
        with self._lock:
            if limit is not None and self._uses[session.channel, name] >= limit:
                raise ReleaseRefusedError(
                    f"The key '{name}' was released to this session {limit} times, all its policy allows; "
                    "restart the kernel."
                )
            self._uses[session.channel, name] += 1

    def _record(self, event: str, decision: str, **facts: Any) -> None:
        self.audit.append(event, decision=decision, **facts)


def open_broker(collateral: CollateralSource, *, passphrase: Callable[[], str] | None = None) -> Broker:
    """Return a broker over the user's own keyring, policies and audit log.

    Parameters
    ----------
    passphrase
        See :func:`~sealbook.broker.keyring.open_keyring`.
    """
    return Broker(
        open_keyring(passphrase=passphrase),
        AuditLog(paths.audit_log()),
        collateral,
        memory=CollateralMemory(paths.data_dir() / "collateral-memory.json"),
    )


def _check_request(version: int | None, purpose: str) -> None:
    if version is not None and (type(version) is not int or not 1 <= version <= _MAX_VERSION):
        raise InputError("A key's version is a whole number from 1.")
    if purpose not in get_args(Purpose):
        raise InputError("A key is wanted to seal or to unseal.")


def _identity(result: AttestationResult) -> dict[str, Any]:
    """Return what identifies the enclave in the audit log."""
    return {
        "evidence": result.evidence_id,
        "measurement": result.mrenclave,
        "simulated": result.simulated,
        "status": result.status,
    }


def _reasons(error: SealbookError) -> list[str]:
    result = getattr(error, "result", None)
    refusals = result.refusals if isinstance(result, AttestationResult) else ()
    return [refusal.reason for refusal in refusals] or [str(error)]
