"""The broker: releases a named key to an enclave whose evidence passes the policy that guards the key.

A kernel that is not attested can open a session too, under a policy that admits its kind by name. It gets the
keys that such a policy guards, and no others: not even those that need no attestation, which are for the
user's own processes on this side.

It knows no transport: the Jupyter provisioner embeds it (:mod:`sealbook.broker.wire` carries its
messages over the attested channel), and a network service can.

In the terms of RFC 9334 it is the Relying Party of the background-check model; the verifier is
:class:`sealbook.attestation.Verifier`. Every decision is in the audit log *before* it takes effect.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, get_args

from sealbook import paths
from sealbook.attestation import (
    AttestationRefusedError,
    AttestationResult,
    Collateral,
    CollateralMemory,
    CollateralSource,
    NonceLedger,
    Nonces,
    Policy,
    Quote,
    UnattestedStatement,
    Verifier,
    is_statement,
    report_data,
)
from sealbook.attestation.result import Judged
from sealbook.broker import guards, rules
from sealbook.broker.audit import AuditLog
from sealbook.broker.clock import GuardedClock
from sealbook.broker.keyring import SESSION_PREFIX, UNGUARDED, KeyRecord, Keyring, KeyVersion, open_keyring
from sealbook.broker.reserved import is_reserved
from sealbook.broker.session import AttestedSession, SessionEndedError, Sessions, SessionTable, channel_of
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.sealing import KeyUnavailableError, SealingKey, check_key_name

#: The key of a session that names no other; made at first use, in memory.
DEFAULT_SESSION_KEY: Final = SESSION_PREFIX + "default"

#: Raises unless a key of this name, guarded by this policy or by none, may be had at all.
CheckKey = Callable[[str, Policy | None], None]

#: What a key is wanted for.
Purpose = Literal["seal", "unseal"]

#: Distinct keys that kernels of one policy may have made in memory.
_MAX_SESSION_KEYS: Final = 1024

#: Seconds for which a challenge can be answered where no policy says it; what policies say by default.
_NONCE_LIFETIME: Final = 60

#: Longest role, audience or name of a claim, in characters, and most claims; evidence binds no more.
_MAX_NAME: Final = 1024
_MAX_CLAIMS: Final = 64

#: Longest text that goes into the audit log as it is.
_MAX_RECORDED: Final = 4096

#: Largest version a file's header may ask for.
_MAX_VERSION: Final = 2**31 - 1


class ReleaseRefusedError(KeyUnavailableError):
    """A key was not released; the sentence says why, the audit log has every reason."""


@dataclass(frozen=True, repr=False)
class _SessionKey:
    """A key made in memory, for sessions of one policy and no other."""

    key: SealingKey
    policy: Policy
    digest: str
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
    nonces
        Makes what keeps the outstanding challenges that can be answered for so many seconds. Default: memory,
        so that a new broker knows no challenge, and evidence for one that has ended is refused.
    sessions
        Keeps the sessions. Default: memory.
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
        nonces: Callable[[int], Nonces] = NonceLedger,
        sessions: Sessions | None = None,
    ) -> None:
        self.keyring = keyring
        self.audit = audit
        self._collateral = collateral
        self._load_policy = policy_loader
        self._clock = (
            clock if isinstance(clock, GuardedClock) else GuardedClock(clock, last_seen=audit.last_time())
        )
        self._memory = memory
        self._make_ledger = nonces
        self._nonces: dict[int, Nonces] = {}  # by lifetime in seconds
        self._sessions = sessions or SessionTable()
        self._lock = threading.RLock()
        # By name, version n at index n - 1. Under one name every policy has a key of its own, or a kernel
        # under a laxer one could make the key first that a stricter one's kernels would then seal with. The
        # versions count over all policies, because a sealed file records name and version alone.
        self._session_keys: dict[str, list[_SessionKey]] = {}

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
        evidence: bytes,
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
        evidence
            As received: untrusted. A quote, or the statement of a kernel that is not attested.
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
            self._ledger(policy).redeem(_check_nonce(nonce), now)
            _check_bound(role, audience, claims)
            # Refused evidence has no session: the channel says which kernel it was about.
            facts["channel"] = channel_of(role, audience, claims)
            rules.check_peer(policy, role=role, audience=audience)
            expected = report_data(role=role, audience=audience, nonce=nonce, claims=claims)
            facts["evidence"] = _name_of(evidence)
            result, collateral = self._appraise(evidence, policy, now, expected)
            facts |= _identity(result)
            try:
                result.require()
            except AttestationRefusedError as refusal:
                refusal.judged = Judged(evidence, collateral, policy)
                raise
            session = AttestedSession.open(
                result=result,
                evidence=evidence,
                report_data=expected,
                policy=policy,
                role=role,
                audience=audience,
                claims=claims,
                now=now,
                lifetime=timedelta(seconds=policy.release.ttl_seconds),
                nonce=nonce,
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
        self._record("close", "done", session=session.id)

    # -- keys ----------------------------------------------------------------------------------

    def release(
        self,
        session: AttestedSession,
        name: str,
        version: int | None = None,
        purpose: Purpose = "unseal",
        *,
        check: CheckKey | None = None,
    ) -> SealingKey:
        """Release a key to the enclave behind `session`, or refuse.

        The session's evidence is verified again, now, against the policy that guards this very key: a
        session that one policy admitted says nothing about the keys of another.

        Parameters
        ----------
        version
            None for the one that seals now.
        check
            What else must hold, for who serves this broker to others.

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
            if check is not None:
                check(name, policy)
            if policy is not None:
                result = self._verify(session.evidence, policy, now, session.report_data)
                facts |= _identity(result)
                result.require()
                rules.check_release(policy, session, name, now)
            else:
                rules.check_unguarded(session, name)
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

    def keys(self, session: AttestedSession, *, check: CheckKey | None = None) -> tuple[KeyRecord, ...]:
        """Return the keys that `session` would get now. No secrets, and no guarantee: release decides."""
        now = self._clock.now()
        self._sessions.require_live(session, now)

        def would_get(name: str, policy: Policy | None) -> bool:
            try:
                if check is not None:
                    check(name, policy)
                if policy is None:
                    rules.check_unguarded(session, name)
                    return True
            except SealbookError:
                return False
            return self._admits(session, policy, name, now)

        with self._lock:
            digest = session.policy.digest
            own = {name: made for name in self._session_keys if (made := self._made_for(digest, name))}
            unused = len(self._session_keys.get(DEFAULT_SESSION_KEY, ())) + 1
        found = [
            KeyRecord(
                name,
                "session",
                "in memory until the broker ends",
                (KeyVersion(made.key.version, made.created),),
            )
            for name, made in sorted(own.items())
            if would_get(name, made.policy)
        ]
        if DEFAULT_SESSION_KEY not in own and would_get(DEFAULT_SESSION_KEY, session.policy):
            version = KeyVersion(unused, now.isoformat(timespec="seconds"))
            found.append(KeyRecord(DEFAULT_SESSION_KEY, "session", "made when it is first used", (version,)))
        try:
            stored = self.keyring.list()
        except SealbookError:  # a locked keyring: whoever asks for one of its keys is told
            return tuple(found)
        for record in stored:
            if is_reserved(record.name):
                continue
            try:
                policy = None if record.guard == UNGUARDED else self._load_policy(record.guard)
            except SealbookError:
                continue
            if would_get(record.name, policy):
                found.append(record)
        return tuple(found)

    def report(self, session: AttestedSession, action: str, facts: Mapping[str, Any]) -> None:
        """Record what the enclave says it did with a key; its word, marked as such."""
        self._sessions.require_live(session, self._clock.now())
        self._record("artifact", "reported", session=session.id, action=action, facts=dict(facts))

    def verify_again(self, session: AttestedSession) -> None:
        """Raise RefusedError unless the evidence of `session` passes its policy, now."""
        self.appraise(session)[0].require()

    def appraise(self, session: AttestedSession) -> tuple[AttestationResult, Collateral | None]:
        """Verify the evidence of `session` again, now, and return the verdict with what it rests on.

        Returns
        -------
        result
            Also when it is a refusal.
        collateral
            What the platform was judged by; None for a kernel that handed in no quote.

        Raises
        ------
        SessionEndedError
            The session is over.
        RefusedError
            There is no collateral to judge the platform by.
        """
        now = self._clock.now()
        self._sessions.require_live(session, now)
        return self._appraise(session.evidence, session.policy, now, session.report_data)

    @property
    def remembers_collateral(self) -> bool:
        """Whether collateral is compared with what was seen before."""
        return self._memory is not None

    def accepts(self, evidence: bytes, policy: Policy, bound: bytes) -> bool:
        """Tell whether `policy` would accept evidence that binds `bound`; opens nothing."""
        try:
            return self._verify(evidence, policy, self._clock.now(), bound).accepted
        except SealbookError:
            return False

    def record(self, event: str, decision: str, **facts: Any) -> None:
        """Put a decision into the audit log, made by who serves this broker; raises AuditError."""
        self._record(event, decision, **facts)

    def require_live(self, session: AttestedSession) -> None:
        """Raise SessionEndedError unless `session` was opened here, is not closed and has not expired."""
        self._sessions.require_live(session, self._clock.now())

    # -- helpers -------------------------------------------------------------------------------

    def _ledger(self, policy: Policy | None) -> Nonces:
        lifetime = policy.freshness.nonce_ttl_seconds if policy else _NONCE_LIFETIME
        with self._lock:
            if lifetime not in self._nonces:
                self._nonces[lifetime] = self._make_ledger(lifetime)
            return self._nonces[lifetime]

    def _verify(self, evidence: bytes, policy: Policy, now: datetime, expected: bytes) -> AttestationResult:
        return self._appraise(evidence, policy, now, expected)[0]

    def _appraise(
        self, evidence: bytes, policy: Policy, now: datetime, expected: bytes
    ) -> tuple[AttestationResult, Collateral | None]:
        collateral = None
        # Where there is no quote, or none would help, nobody is asked about a platform.
        if policy.attested and not is_statement(evidence):
            collateral = self._collateral_for(Quote.parse(evidence))
        verifier = Verifier(policy, memory=self._memory)
        result = verifier.verify(evidence, collateral, now=now, expected_report_data=expected)
        return result, collateral

    def _collateral_for(self, quote: Quote) -> Collateral:
        try:
            return self._collateral.collateral_for(quote)
        except SealbookError:
            raise
        except Exception as error:  # which platform made it stands in parts of the quote that nobody checked
            raise RefusedError(
                f"There is no collateral for the platform that the evidence names ({type(error).__name__}): "
                "attest again."
            ) from None

    def _admits(self, session: AttestedSession, policy: Policy, name: str, now: datetime) -> bool:
        try:
            rules.check_release(policy, session, name, now)
            return self._verify(session.evidence, policy, now, session.report_data).accepted
        except SealbookError:
            return False

    def _find(
        self, session: AttestedSession, name: str, version: int | None
    ) -> tuple[Policy | None, Callable[[], SealingKey]]:
        """Return the policy that guards a key, and what fetches the key once the policy has passed."""
        if name.startswith(SESSION_PREFIX):
            if version is not None:
                made = self._session_key(session, name, version)
                return made.policy, lambda: made.key
            # Made only once the policy has passed: what gets no key leaves nothing behind either.
            return session.policy, lambda: self._current_session_key(session, name)
        # One look at the keyring: nobody can exchange the guard between the decision and the key.
        stored = self.keyring.find(name)
        policy = None if stored.record.guard == UNGUARDED else self._load_policy(stored.record.guard)
        return policy, lambda: stored.version(version)

    def _made_for(self, digest: str, name: str) -> _SessionKey | None:
        """Return the key that was made under this name for the policy of this digest."""
        return next((made for made in self._session_keys.get(name, ()) if made.digest == digest), None)

    def _session_key(self, session: AttestedSession, name: str, version: int) -> _SessionKey:
        """Return a key that was made before, if it was made for the policy of `session`."""
        with self._lock:
            made = self._session_keys.get(name)
            if made is None:
                raise ReleaseRefusedError(
                    f"The key '{name}' lived in the memory of a broker that has ended, and what it "
                    "sealed cannot be opened any more; `sealbook keys create` makes keys that last."
                )
            # Whether another policy has that version is none of this kernel's business: one sentence.
            found = made[version - 1] if version <= len(made) else None
            if found is None or found.digest != session.policy.digest:
                raise ReleaseRefusedError(
                    f"There is no version {version} of the key '{name}' for kernels of the policy "
                    f"'{session.policy.id}': it was made under another policy, or by a broker that has "
                    "ended; `sealbook keys create` makes keys that last and can be shared."
                )
            return found

    def _current_session_key(self, session: AttestedSession, name: str) -> SealingKey:
        """Return the key of this name that belongs to the policy of `session`; made at first use."""
        with self._lock:
            digest = session.policy.digest
            found = self._made_for(digest, name)
            if found is not None:
                return found.key
            held = sum(self._made_for(digest, each) is not None for each in self._session_keys)
            if held >= _MAX_SESSION_KEYS:
                raise ReleaseRefusedError(
                    f"This broker holds {_MAX_SESSION_KEYS} session keys of the policy "
                    f"'{session.policy.id}', its limit; use one of them."
                )
            made = self._session_keys.setdefault(name, [])
            key = SealingKey.generate(name, version=len(made) + 1)
            created = self._clock.now().isoformat(timespec="seconds")
            made.append(_SessionKey(key, session.policy, digest, created))
            return key

    def _count_use(self, session: AttestedSession, name: str, policy: Policy | None) -> None:
        limit = policy.release.max_uses if policy else None
        if not self._sessions.count_use(session, name, limit):
            raise ReleaseRefusedError(
                f"The key '{name}' was released to this session {limit} times, all its policy allows; "
                "restart the kernel."
            )

    def _record(self, event: str, decision: str, **facts: Any) -> None:
        self.audit.append(event, decision=decision, **_recordable(facts))


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


def _name_of(evidence: bytes) -> str:
    """Return what names a piece of evidence in the audit log; raises RefusedError for what is none."""
    if is_statement(evidence):
        return UnattestedStatement.parse(evidence).identity
    return Quote.parse(evidence).identity


def _check_request(version: int | None, purpose: str) -> None:
    if version is not None and (type(version) is not int or not 1 <= version <= _MAX_VERSION):
        raise InputError("A key's version is a whole number from 1.")
    if purpose not in get_args(Purpose):
        raise InputError("A key is wanted to seal or to unseal.")


def _check_nonce(nonce: bytes) -> bytes:
    if not isinstance(nonce, bytes):
        raise InputError("A challenge is a byte string.")
    return nonce


def _check_bound(role: str, audience: str, claims: Mapping[str, bytes]) -> None:
    """Raise InputError unless evidence can bind these, so that no odd text is more than a refusal."""
    texts = [role, audience, *claims]
    if not all(isinstance(text, str) and 0 < len(text) <= _MAX_NAME and _is_unicode(text) for text in texts):
        raise InputError(
            f"Role, audience and the names of claims are Unicode text of 1 to {_MAX_NAME} characters."
        )
    if len(claims) > _MAX_CLAIMS or not all(isinstance(value, bytes) for value in claims.values()):
        raise InputError(f"Evidence binds at most {_MAX_CLAIMS} claims, whose values are byte strings.")


def _is_unicode(text: str) -> bool:
    """Tell whether `text` has no half of a surrogate pair, which neither UTF-8 nor JSON can say."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _recordable(value: Any) -> Any:
    """Return `value` as the audit log can hold it: text that is not Unicode is escaped, long text is cut."""
    if isinstance(value, str):
        return value[:_MAX_RECORDED].encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_recordable(name): _recordable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_recordable(item) for item in value]
    return value


def _identity(result: AttestationResult) -> dict[str, Any]:
    """Return what identifies the kernel in the audit log, and whether anything was proven of it."""
    return {
        "evidence": result.evidence_id,
        "measurement": result.mrenclave,
        "attested": result.attested,
        "simulated": result.simulated,
        "status": result.status,
    }


def _reasons(error: SealbookError) -> list[str]:
    result = getattr(error, "result", None)
    refusals = result.refusals if isinstance(result, AttestationResult) else ()
    return [refusal.reason for refusal in refusals] or [str(error)]
