"""The messages between a kernel and its broker, and the two ends that speak them.

One frame of canonical JSON (:mod:`sealbook.encoding`) each way, at most 64 KiB, over a channel that is
already encrypted and whose both ends are authenticated. This module does not make it so.

::

    request   {"v": 2, "id": n, "op": OP, ...}
    response  {"v": 2, "id": n, "ok": true, "value": {...}}
              {"v": 2, "id": n, "ok": false, "code": CODE, "error": "one sentence"}

    OP         fields               value
    ping       -                    {}
    challenge  -                    {"nonce"}                      base64, 32 bytes
    attest     evidence (base64)    {"result", "expires"}          an AttestationResult
    result     -                    {"result", "expires"}
    appraisal  -                    {"result", "expires", "chain", "channel"}   verified again, now
    release    key version purpose  {"key", "version", "secret"}   base64, 32 bytes
    keys       -                    {"keys": [...]}                names and guards
    event      action facts         {}                             into the audit log
    cluster    name                 {"cluster"}                    where Spark runs, public; null: here

What the evidence of ``attest`` must bind (role, audience, keys of the channel) is in no message: each end
takes it from what it knows of the channel itself. A broker that let the peer name it would accept
evidence relayed from elsewhere; a kernel that quoted what it was sent would make such evidence.
"""

from __future__ import annotations

import base64
import binascii
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from sealbook.attestation import AttestationRefusedError, AttestationResult
from sealbook.broker.broker import Broker
from sealbook.broker.keyring import KeyRecord
from sealbook.broker.session import AttestedSession, SessionEndedError
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.sealing import KeyUnavailableError, SealingKey, check_key_name

#: Longest message in bytes.
MAX_FRAME: Final = 64 * 1024

#: 2: `attest` carries `evidence`, which need not be a quote.
_VERSION: Final = 2

#: Fields of each request beside v, id and op.
_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "ping": frozenset(),
    "challenge": frozenset(),
    "attest": frozenset({"evidence"}),
    "result": frozenset(),
    "appraisal": frozenset(),
    "release": frozenset({"key", "version", "purpose"}),
    "keys": frozenset(),
    "event": frozenset({"action", "facts"}),
    "cluster": frozenset({"name"}),
}

#: What a kernel may report, and of what kind.
_ACTIONS: Final = frozenset({"sealed", "unsealed", "opened", "scaled"})
_FACTS: Final[Mapping[str, type]] = {
    "path": str,
    "key": str,
    "codec": str,
    "size": int,
    "version": int,
    "cluster": str,  # of "scaled": where Spark code runs now; empty for the kernel's own machine
}
#: Bytes of one fact: the longest path that Linux has.
_MAX_FACT: Final = 4096
#: No file is larger: the numbers that JSON has everywhere.
_MAX_NUMBER: Final = 2**53
_MAX_CLUSTER_NAME: Final = 100

#: Longest sentence, and most keys, in a response, so that it fits a frame.
_MAX_SENTENCE: Final = 4096
_MAX_KEYS: Final = 100

#: Longest appraisal, so that it fits a frame with what is around it.
_MAX_APPRAISAL: Final = MAX_FRAME - 1024

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class BrokerChannelError(RefusedError):
    """The other end of the channel said something that is not a message of this protocol."""


@dataclass(frozen=True)
class KeyEntry:
    """A key that this session may use; `guard` is "session" for keys in the broker's memory."""

    name: str
    guard: str
    version: int
    description: str = ""


@dataclass(frozen=True)
class Appraisal:
    """What the broker's side says of this kernel's evidence when asked; nothing in it is secret.

    Attributes
    ----------
    expires
        When the session ends; aware.
    chain
        :meth:`~sealbook.attestation.chain_of_trust.Link.to_dict` of each link; empty without evidence.
    channel
        ``role``, ``audience`` and ``claims`` (each with name, value and meaning).
    """

    result: AttestationResult
    expires: datetime
    chain: tuple[dict[str, Any], ...]
    channel: dict[str, Any]

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Appraisal:
        """Read the answer to ``appraisal``; raises KeyError, TypeError or ValueError for anything else."""
        chain, channel = answer["chain"], answer["channel"]
        if not isinstance(chain, list) or not isinstance(channel, dict):
            raise TypeError("an appraisal has a chain and a channel")
        return cls(
            AttestationResult.from_dict(answer["result"]),
            datetime.fromisoformat(answer["expires"]),
            tuple(dict(link) for link in chain),
            dict(channel),
        )


class BrokerEndpoint:
    """The broker's end of one channel.

    Parameters
    ----------
    broker
        Decides.
    session
        What was opened when the channel's peer was verified. A peer that attests anew over the channel
        is held to the same role, audience, claims and policy.
    clusters
        Finds the user's Spark cluster of a name, for the empty name the one that notebooks start with, or
        None. What it returns is public, and JSON.
    """

    def __init__(
        self,
        broker: Broker,
        session: AttestedSession,
        *,
        clusters: Callable[[str], Mapping[str, Any] | None] = lambda name: None,
    ) -> None:
        self._broker = broker
        self._clusters = clusters
        self._session = session
        self._nonce: bytes | None = None
        self._closed = False
        self._refusal: SealbookError | None = None
        self._lock = threading.Lock()
        #: Called after each attempt of the peer to attest anew, in the channel's thread, and at the end.
        self.on_attest: Callable[[], None] = lambda: None

    @property
    def session(self) -> AttestedSession:
        """The present session; another one after the peer attested anew."""
        return self._session

    @property
    def refusal(self) -> SealbookError | None:
        """Why the peer's last attempt to attest anew was refused; None if it was not, or there was none."""
        return self._refusal

    def forget_challenge(self) -> None:
        """Accept no evidence for a challenge that was asked for before now."""
        with self._lock:
            self._nonce = None

    def handle(self, frame: bytes) -> bytes:
        """Answer one request. Never raises; every failure is a response."""
        number = 0
        try:
            request = _parse_request(frame)
            number = request["id"]
            if self._closed:
                raise RefusedError("The broker has closed this channel; restart the kernel.")
            value = getattr(self, f"_on_{request['op']}")(request)
            return canonical_json({"v": _VERSION, "id": number, "ok": True, "value": value})
        except SealbookError as error:
            return _failure(number, error_code(error), str(error))
        except Exception:
            # Not the exception's text: it may quote what must not leave.
            _log.exception("The broker failed to answer a request.")
            return _failure(number, "internal", "The broker failed; see the log of the Jupyter server.")

    def close(self) -> None:
        """End the session; every later request is refused."""
        with self._lock:
            self._closed = True
            self._broker.close_session(self._session)
        self.on_attest()

    def _on_ping(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def _on_challenge(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._nonce = self._broker.challenge(self._session.policy)
            return {"nonce": _b64(self._nonce)}

    def _on_attest(self, request: Mapping[str, Any]) -> dict[str, Any]:
        evidence = _unb64(request["evidence"], "evidence")
        with self._lock:
            nonce, self._nonce = self._nonce, None
            if nonce is None or self._closed:
                raise InputError("Evidence answers a challenge: ask for one first.")
            old = self._session
            try:
                self._session = self._broker.attest(
                    evidence,
                    role=old.role,
                    audience=old.audience,
                    nonce=nonce,
                    claims=old.claims,
                    policy=old.policy,
                )
                self._refusal = None
            except Exception as error:
                self._refusal = (
                    error
                    if isinstance(error, SealbookError)
                    else RefusedError("The evidence could not be judged: see the log of the Jupyter server.")
                )
                if isinstance(error, AttestationRefusedError):
                    # Judged, and refused: what the evidence before showed is not what runs now.
                    self._broker.close_session(old)
                raise
            finally:
                self.on_attest()
            self._broker.close_session(old)
            return self._result()

    def _on_result(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._broker.require_live(self._session)
        return self._result()

    def _on_appraisal(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a fresh verdict, also a refusing one, and what a person needs to follow it; all public."""
        # Here and not at the top: a kernel loads this module too, and asks instead.
        from sealbook.attestation.chain_of_trust import chain_of_trust
        from sealbook.attestation.meanings import described_claims

        session = self._session
        result, collateral = self._broker.appraise(session)
        chain = chain_of_trust(
            session.evidence, collateral, session.policy, result, memory=self._broker.remembers_collateral
        )
        answer: dict[str, Any] = {
            "result": result.to_dict(),
            "expires": session.expires_at.isoformat(),
            "chain": [link.to_dict() for link in chain],
            "channel": {
                "role": session.role,
                "audience": session.audience,
                "claims": described_claims(session.claims),
            },
        }
        if len(canonical_json(answer)) > _MAX_APPRAISAL:
            # What a platform's maker, or a forger, wrote at length: the checks are worth more than it.
            for link in answer["chain"]:
                link["facts"] = []
        if len(canonical_json(answer)) > _MAX_APPRAISAL:
            raise RefusedError("What there is to say of this evidence does not fit into one message.")
        return answer

    def _on_release(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name, version, purpose = request["key"], request["version"], request["purpose"]
        if not isinstance(name, str) or not isinstance(purpose, str):
            raise InputError("A release names a key and a purpose.")
        key = self._broker.release(self._session, name, version, purpose)  # type: ignore[arg-type] # it checks
        return {"key": key.name, "version": key.version, "secret": _b64(key.secret)}

    def _on_keys(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return listed_keys(self._broker.keys(self._session))

    def _on_event(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._broker.report(self._session, *checked_event(request["action"], request["facts"]))
        return {}

    def _on_cluster(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request["name"]
        if not isinstance(name, str) or len(name) > _MAX_CLUSTER_NAME:
            raise InputError(f"The name of a cluster is text of at most {_MAX_CLUSTER_NAME} characters.")
        found = self._clusters(name)
        return {"cluster": None if found is None else dict(found)}

    def _result(self) -> dict[str, Any]:
        session = self._session
        return {"result": session.result.to_dict(), "expires": session.expires_at.isoformat()}


class RemoteBroker:
    """The kernel's end of one channel: a :class:`~sealbook.sealing.KeyProvider` over it.

    Parameters
    ----------
    send
        Sends one frame over the attested channel and returns the answer.
    evidence
        Makes evidence over this kernel's own channel and the given 32-byte nonce; the kernel alone decides
        what else it binds. Without it :meth:`attest` refuses.
    """

    #: Seconds for which a key is known to be the current version; a rotation counts after that.
    CURRENT_FOR: Final = 30.0

    def __init__(
        self, send: Callable[[bytes], bytes], *, evidence: Callable[[bytes], bytes] | None = None
    ) -> None:
        self._send = send
        self._evidence = evidence
        self._lock = threading.RLock()
        self._number = 0
        self._keys: dict[tuple[str, int], SealingKey] = {}
        self._current: dict[str, tuple[int, float]] = {}
        #: Called after each attempt to attest anew, also of one that nobody asked for by name, with the new
        #: verdict or with why there is none.
        self.on_attest: list[Callable[[AttestationResult | SealbookError], None]] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def current(self, name: str) -> SealingKey:
        """Return the version of key `name` that seals; see :meth:`KeyProvider.current`."""
        with self._lock:
            version, until = self._current.get(name, (0, 0.0))
            if time.monotonic() < until:
                return self._keys[name, version]
            key = self._release(name, None, "seal")
            self._current[name] = (key.version, time.monotonic() + self.CURRENT_FOR)
            return key

    def get(self, name: str, version: int) -> SealingKey:
        """Return that version of key `name`, to unseal with; see :meth:`KeyProvider.get`."""
        with self._lock:
            return self._keys.get((name, version)) or self._release(name, version, "unseal")

    def keys(self) -> tuple[KeyEntry, ...]:
        """Return the keys this session may use."""
        return _understood(lambda: tuple(KeyEntry(**entry) for entry in self._ask_again("keys")["keys"]))

    def result(self) -> AttestationResult:
        """Return the broker's verdict on this kernel."""
        answer = self._ask("result")
        return _understood(lambda: AttestationResult.from_dict(answer["result"]))

    def appraisal(self, *, renew: bool = True) -> Appraisal:
        """Have the evidence verified again, now. Refusing verdicts are returned, not raised.

        Parameters
        ----------
        renew
            Whether to attest anew where the session has expired; else that is a SessionEndedError.
        """
        answer = self._ask_again("appraisal") if renew else self._ask("appraisal")
        return _understood(lambda: Appraisal.read(answer))

    def attest(self) -> AttestationResult:
        """Attest anew: a new challenge, new evidence, and a new verdict.

        Raises
        ------
        RefusedError
            The evidence was refused; where it was judged, the session before has ended too.
        """
        try:
            result = self._attest()
        except SealbookError as error:
            self._tell(error)
            raise
        self._tell(result)
        return result

    def _attest(self) -> AttestationResult:
        if self._evidence is None:
            raise RefusedError("This kernel cannot make new evidence; restart it to attest again.")
        with self._lock:
            challenge = self._ask("challenge")
            nonce = _understood(lambda: _unb64(challenge["nonce"], "nonce"))
            answer = self._ask("attest", evidence=_b64(self._evidence(nonce)))
            return _understood(lambda: AttestationResult.from_dict(answer["result"]))

    def _tell(self, outcome: AttestationResult | SealbookError) -> None:
        for listener in list(self.on_attest):
            try:
                listener(outcome)
            except Exception:  # who shows the verdict must not be able to undo it
                _log.exception("The outcome of an attestation could not be shown.")

    def event(self, action: str, **facts: str | int) -> None:
        """Have the audit log record what was done with a key: "sealed", "unseal" or "opened"."""
        # A file's name need not be Unicode; JSON's strings are.
        sound = {
            name: fact.encode(errors="backslashreplace").decode() if isinstance(fact, str) else fact
            for name, fact in facts.items()
        }
        self._ask_again("event", action=action, facts=sound)

    def cluster(self, name: str = "") -> dict[str, Any] | None:
        """Return the user's Spark cluster of this name, or the one to begin with; None: Spark runs here.

        Raises
        ------
        InputError
            The user has none of that name.
        """
        answer = self._ask_again("cluster", name=name)
        if set(answer) != {"cluster"} or not isinstance(answer["cluster"], dict | None):
            raise BrokerChannelError("The broker's answer is not one that this kernel knows.")
        found: dict[str, Any] | None = answer["cluster"]
        return found

    def ping(self) -> None:
        """Return when the broker has answered; raises RefusedError when it does not."""
        self._ask("ping")

    def forget(self) -> None:
        """Drop every key from memory."""
        with self._lock:
            self._keys.clear()
            self._current.clear()

    def _release(self, name: str, version: int | None, purpose: str) -> SealingKey:
        check_key_name(name)
        try:
            answer = self._ask_again("release", key=name, version=version, purpose=purpose)
        except KeyUnavailableError:
            raise
        except SealbookError as error:
            raise KeyUnavailableError(str(error)) from None
        key = _understood(
            lambda: SealingKey(answer["key"], answer["version"], _unb64(answer["secret"], "key"))
        )
        if key.name != name or version not in (None, key.version):
            raise BrokerChannelError("The broker answered with another key than was asked for.")
        self._keys[key.name, key.version] = key
        return key

    def _ask_again(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask; when the session has expired, attest anew and ask once more."""
        try:
            return self._ask(op, **fields)
        except SessionEndedError:
            if self._evidence is None:
                raise
            self.attest()
            return self._ask(op, **fields)

    def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        with self._lock:
            self._number += 1
            number = self._number
            frame = canonical_json({"v": _VERSION, "id": number, "op": op, **fields})
            if len(frame) > MAX_FRAME:
                raise InputError(f"The message to the broker is longer than {MAX_FRAME} bytes.")
            answer = self._send(frame)
        try:
            response = parse_json(answer, what="The broker's answer", max_bytes=MAX_FRAME)
        except InputError as error:
            raise BrokerChannelError(str(error)) from None
        if not isinstance(response, dict) or (response.get("v"), response.get("id")) != (_VERSION, number):
            raise BrokerChannelError("The broker answered another question than was asked.")
        if response.get("ok") is True and isinstance(response.get("value"), dict):
            value: dict[str, Any] = response["value"]
            return value
        kind = _ERRORS.get(str(response.get("code")), RefusedError)
        raise kind(str(response.get("error") or "The broker refused."))


#: How an error travels: its code, and the class it becomes at the other end. The first that fits counts.
_ERRORS: Final[Mapping[str, type[SealbookError]]] = {
    "expired": SessionEndedError,
    "unavailable": KeyUnavailableError,
    "input": InputError,
    "refused": RefusedError,
}


def listed_keys(records: Iterable[KeyRecord], *, most: int | None = _MAX_KEYS) -> dict[str, Any]:
    """Return what is told of keys, at most so many; None: of all."""
    entries = [
        {
            "name": record.name,
            "guard": record.guard,
            "version": record.current,
            "description": record.description,
        }
        for record in records
    ]
    return {"keys": entries[:most]}


def checked_event(action: object, facts: object) -> tuple[str, dict[str, Any]]:
    """Return what an enclave reports, if it is something that enclaves report; raises InputError."""
    if not isinstance(action, str) or action not in _ACTIONS or not isinstance(facts, dict):
        raise InputError(f"A kernel reports one of: {', '.join(sorted(_ACTIONS))}.")
    for name, fact in facts.items():
        if type(fact) is not _FACTS.get(name) or not _is_short(fact):
            raise InputError(f"An event's facts are {', '.join(_FACTS)}, at most {_MAX_FACT} bytes.")
    return action, facts


def _is_short(fact: object) -> bool:
    if isinstance(fact, int):
        return 0 <= fact < _MAX_NUMBER
    return len(str(fact).encode(errors="surrogatepass")) <= _MAX_FACT


def error_code(error: SealbookError) -> str:
    """Return the code that an error travels as."""
    return next((code for code, kind in _ERRORS.items() if isinstance(error, kind)), "refused")


def _failure(number: int, code: str, sentence: str) -> bytes:
    failure = {"v": _VERSION, "id": number, "ok": False, "code": code, "error": sentence[:_MAX_SENTENCE]}
    return canonical_json(failure)


def _parse_request(frame: bytes) -> dict[str, Any]:
    request = parse_json(frame, what="The request", max_bytes=MAX_FRAME)
    if not isinstance(request, dict) or request.get("v") != _VERSION:
        raise InputError(f"The request is not of version {_VERSION} of the broker's protocol.")
    number, op = request.get("id"), request.get("op")
    if type(number) is not int or not 0 <= number < 2**53:
        raise InputError("The request has no number.")
    if not isinstance(op, str) or op not in _FIELDS or set(request) != {"v", "id", "op"} | _FIELDS[op]:
        raise InputError("The request is not one that this broker knows.")
    try:
        canonical = canonical_json(request) == frame
    except (TypeError, ValueError):  # a float, or half a surrogate pair
        canonical = False
    if not canonical:
        raise InputError("The request is not canonical JSON.")
    return request


def _understood(read: Callable[[], _T]) -> _T:
    """Return what `read` makes of an answer; whatever it stumbles over becomes BrokerChannelError."""
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError, InputError):
        raise BrokerChannelError("The broker's answer is not one that this kernel knows.") from None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: Any, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InputError(f"The {what} is not base64.") from None
