"""What a node says to a broker service: it attests, gets a certificate, and asks for keys with it.

Nothing here is secret on the way in: the service's address and the certificate of its authority. What comes
back is sealed to keys that were made here, in memory, and that the evidence binds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sealbook.attestation import AttestationResult, Attester, report_data
from sealbook.broker import hpke, tls
from sealbook.broker.authorities import check_authority, check_url
from sealbook.broker.certificates import authority_id, check_hosts, public_der
from sealbook.broker.owners import MAX_OWNERS, Owner
from sealbook.broker.session import SessionEndedError
from sealbook.broker.wire import KeyEntry
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.sealing import KeyUnavailableError, SealingKey, check_key_name

#: Longest answer that is read.
MAX_ANSWER: Final = 256 * 1024

_T = TypeVar("_T")

#: Nodes ask who the members are every few seconds: whether one still runs that has been silent for so long
#: is not known. Seconds.
SILENT_AFTER: Final = 60


class BrokerUnreachableError(RefusedError):
    """The broker did not answer, or not in time."""

    exit_code = 2


class BrokerBusyError(RefusedError):
    """The broker has too much to do, or was asked too often."""


@dataclass(frozen=True, repr=False)
class Enrolment:
    """What a node has once a broker accepted its evidence.

    Attributes
    ----------
    url, broker_ca, audience
        The broker: its address, the certificate of its authority (PEM) and its name.
    role, cluster, hosts
        What the evidence said of the node.
    session, expires
        The broker's name for it, and when the certificate ends (aware).
    certificate, ca
        The node's certificate and that of the authority of the cluster's nodes, PEM.
    cluster_secret
        32 bytes, or None where there is no cluster.
    tls_private_key, hpke_private_key
        Made here; never leave.
    report_data
        What the evidence bound, 64 bytes.
    result
        The broker's verdict.
    owners
        The other owners of the cluster's data, as its home broker names them.
    home
        Whose cluster it is, where this is an owner's broker and not the home; empty at home. See
        :func:`~sealbook.broker.certificates.authority_id`.
    """

    url: str
    broker_ca: str
    audience: str
    role: str
    cluster: str
    hosts: tuple[str, ...]
    session: str
    expires: datetime
    certificate: str
    ca: str
    cluster_secret: bytes | None
    tls_private_key: ec.EllipticCurvePrivateKey
    hpke_private_key: X25519PrivateKey
    report_data: bytes
    result: AttestationResult
    owners: tuple[Owner, ...] = ()
    home: bytes = b""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(session={self.session!r}, role={self.role!r}, cluster={self.cluster!r})"
        )


@dataclass(frozen=True)
class Member:
    """A node of the same cluster whose session is alive."""

    session: str
    role: str
    expires: datetime


@dataclass(frozen=True)
class MemberNode:
    """A node of the same cluster, and what its broker found about it.

    Attributes
    ----------
    hosts
        Names and addresses that its certificate is for.
    label
        ``attested``, ``simulated`` or ``not attested``.
    measurement
        Of what runs there, hex; empty where nothing was measured.
    expires
        End of its certificate.
    silent
        Seconds since the broker heard of it.
    """

    session: str
    role: str
    hosts: tuple[str, ...]
    label: str
    measurement: str
    expires: datetime
    silent: int


class BrokerClient:
    """Talks to one broker service. Safe to share between threads.

    Parameters
    ----------
    url
        ``https://host:port``.
    ca_pem
        Certificate of the broker's authority; no other is trusted.
    timeout
        Seconds after which a request that has no complete answer is given up.
    """

    def __init__(self, url: str, ca_pem: str, timeout: float = 10.0) -> None:
        self._host, self._port = check_url(url)
        check_authority(ca_pem)
        self.url = f"https://{urlsplit(url).netloc}"
        self.ca_pem = ca_pem
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def name(self) -> str:
        """Return the name that evidence for this broker is made for."""
        with self._connect(None) as connection:
            return str(connection.ask("GET", "/v1/broker").get("name"))

    def enrol(
        self, attester: Attester, *, role: str, cluster: str = "", hosts: Sequence[str] = ()
    ) -> Enrolment:
        """Attest as a node and get its certificate.

        Parameters
        ----------
        attester
            Makes the evidence.
        role
            What this node is, such as "spark-worker".
        cluster
            Whose member it wants to be; none by default.
        hosts
            Names and addresses it is reached by.

        Raises
        ------
        RefusedError
            The broker refused; one sentence.
        BrokerUnreachableError
            It did not answer.
        """
        names = check_hosts(list(hosts))
        tls_key = ec.generate_private_key(ec.SECP256R1())
        hpke_key = X25519PrivateKey.generate()
        return self._enrol(attester, role, cluster, names, tls_key, hpke_key)

    def enrol_as_guest(self, attester: Attester, home: Enrolment) -> Enrolment:
        """Attest, with the same keys, to another owner's broker: as a node of the cluster of `home`.

        The evidence says whose cluster that is, so that the owner decides about that one and no other.
        """
        return self.enrol_again(attester, replace(home, home=authority_id(home.broker_ca)))

    def enrol_again(self, attester: Attester, enrolment: Enrolment) -> Enrolment:
        """Attest anew with the same keys, when a session has ended."""
        return self._enrol(
            attester,
            enrolment.role,
            enrolment.cluster,
            list(enrolment.hosts),
            enrolment.tls_private_key,
            enrolment.hpke_private_key,
            enrolment.home,
        )

    def renew(self, enrolment: Enrolment) -> Enrolment:
        """Return `enrolment` with a certificate of new validity."""
        answer = self._ask("POST", "/v1/renew", {}, enrolment)
        return _understood(
            lambda: replace(
                enrolment, certificate=str(answer["certificate"]), expires=_time(answer["expires"])
            )
        )

    def release(
        self, enrolment: Enrolment, name: str, version: int | None, purpose: Literal["seal", "unseal"]
    ) -> SealingKey:
        """Return a key; raises KeyUnavailableError where it is not released."""
        check_key_name(name)
        body = {"key": name, "version": version, "purpose": purpose}
        answer = self._ask("POST", "/v1/release", body, enrolment)

        def key() -> SealingKey:
            got = str(answer["key"]), int(answer["version"])
            if got[0] != name or version not in (None, got[1]):
                raise ValueError
            sealed = _unb64(answer["sealed"])
            info = hpke.release_info(enrolment.report_data, *got)
            plain = hpke.unseal(sealed, enrolment.hpke_private_key, info)
            secret = parse_json(plain, what="The released key", max_bytes=4096)["secret"]
            return SealingKey(*got, _unb64(secret))

        return _understood(key)

    def keys(self, enrolment: Enrolment) -> tuple[KeyEntry, ...]:
        """Return the keys that this node would get now."""
        answer = self._ask("GET", "/v1/keys", None, enrolment)
        return _understood(lambda: tuple(KeyEntry(**entry) for entry in answer["keys"]))

    def members(self, enrolment: Enrolment) -> tuple[Member, ...]:
        """Return the nodes of the same cluster whose sessions are alive."""
        answer = self._ask("GET", "/v1/members", None, enrolment)
        return _understood(
            lambda: tuple(
                Member(str(each["session"]), str(each["role"]), _time(each["expires"]))
                for each in answer["members"]
            )
        )

    def nodes(self, enrolment: Enrolment) -> tuple[MemberNode, ...]:
        """Return the same nodes with what their evidence proved to the broker, for a person."""
        answer = self._ask("GET", "/v1/nodes", None, enrolment)
        return _understood(
            lambda: tuple(
                MemberNode(
                    session=str(each["session"]),
                    role=str(each["role"]),
                    hosts=tuple(map(str, each["hosts"])),
                    label=str(each["label"]),
                    measurement=str(each["measurement"] or ""),
                    expires=_time(each["expires"]),
                    silent=int(each["silent"]),
                )
                for each in answer["nodes"]
            )
        )

    def event(self, enrolment: Enrolment, action: str, facts: Mapping[str, str | int]) -> None:
        """Have the broker's audit log record what this node did or refused."""
        self._ask("POST", "/v1/event", {"action": action, "facts": dict(facts)}, enrolment)

    def _enrol(
        self,
        attester: Attester,
        role: str,
        cluster: str,
        hosts: list[str],
        tls_key: ec.EllipticCurvePrivateKey,
        hpke_key: X25519PrivateKey,
        home: bytes = b"",
    ) -> Enrolment:
        claims = {
            "tls_key": public_der(tls_key.public_key()),
            "hpke_key": hpke_key.public_key().public_bytes_raw(),
            "cluster": cluster.encode(),
            "hosts": canonical_json(hosts),
            "home": home,
        }
        # One connection for all: evidence binds the key of the broker at its other end.
        with self._connect(None) as connection:
            audience = _text(connection.ask("GET", "/v1/broker"), "name")
            challenge = connection.ask("POST", "/v1/challenge", {})
            nonce = _understood(lambda: _unb64(challenge["nonce"]))
            claims["broker_key"] = connection.broker_key
            try:
                bound = report_data(role=role, audience=audience, nonce=nonce, claims=claims)
            except ValueError as error:
                raise InputError(f"No evidence can be made for this broker ({error}).") from None
            answer = connection.ask(
                "POST",
                "/v1/attest",
                {
                    "nonce": _b64(nonce),
                    "role": role,
                    "cluster": cluster,
                    "home": _b64(home),
                    "evidence": _b64(attester.quote(bound)),
                    "tls_key": _b64(claims["tls_key"]),
                    "hpke_key": _b64(claims["hpke_key"]),
                    "hosts": hosts,
                },
            )
        plain = hpke.unseal(_understood(lambda: _unb64(answer["sealed"])), hpke_key, hpke.attest_info(bound))
        secret, owners = _understood(lambda: _membership(plain, member=bool(cluster) and not home))
        return _understood(
            lambda: Enrolment(
                url=self.url,
                broker_ca=self.ca_pem,
                audience=audience,
                role=role,
                cluster=cluster,
                hosts=tuple(hosts),
                session=str(answer["session"]),
                expires=_time(answer["expires"]),
                certificate=_certificate(answer["certificate"]),
                ca=_certificate(answer["ca"]),
                cluster_secret=secret,
                tls_private_key=tls_key,
                hpke_private_key=hpke_key,
                report_data=bound,
                result=AttestationResult.from_dict(answer["result"]),
                owners=owners,
                home=home,
            )
        )

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, enrolment: Enrolment
    ) -> dict[str, Any]:
        with self._connect(enrolment) as connection:
            return connection.ask(method, path, body)

    def _connect(self, enrolment: Enrolment | None) -> _Connection:
        context = tls.client_context(self.ca_pem)
        if enrolment is not None:
            tls.load_identity(context, enrolment.certificate, enrolment.tls_private_key)
        return _Connection(self.url, self._host, self._port, context, self.timeout, enrolment is not None)


@dataclass
class _Connection:
    """One TLS connection to a broker; requests on it follow one another."""

    url: str
    host: str
    port: int
    context: ssl.SSLContext
    timeout: float
    with_certificate: bool
    broker_key: bytes = b""
    _http: http.client.HTTPSConnection = field(init=False)

    def __enter__(self) -> _Connection:
        self._http = http.client.HTTPSConnection(
            self.host, self.port, timeout=self.timeout, context=self.context
        )
        try:
            self._http.connect()
        except ssl.SSLCertVerificationError as error:
            self._http.close()
            raise RefusedError(
                f"The broker at {self.url} is not the one whose CA was given ({error.verify_message}): take "
                "the CA file that the broker wrote, and an address that its certificate names."
            ) from None
        except OSError as error:
            self._http.close()
            raise self._unreachable(error) from None
        sock = self._http.sock
        der = sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
        # What evidence is bound to: the key at the other end of this very connection.
        key = x509.load_der_x509_certificate(der or b"").public_key()
        self.broker_key = hashlib.sha256(public_der(key)).digest()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send one request and return its answer; raises what the broker refused with."""
        data = None if body is None else canonical_json(dict(body))
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            self._http.request(method, path, body=data, headers=headers)
            response = self._http.getresponse()
            answer = self._read(response)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        try:
            value = parse_json(answer, what="The broker's answer", max_bytes=MAX_ANSWER)
        except InputError:
            value = None
        if not isinstance(value, dict):
            raise RefusedError(
                f"What answers at {self.url} is not a sealbook broker (HTTP {response.status})."
            )
        if response.status == http.HTTPStatus.OK:
            return value
        kind = _ERRORS.get(str(value.get("code")), RefusedError)
        raise kind(str(value.get("error") or "The broker refused."))

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        deadline = time.monotonic() + self.timeout
        pieces: list[bytes] = []
        size = 0
        while piece := response.read1(65536):
            size += len(piece)
            pieces.append(piece)
            if size > MAX_ANSWER:
                raise http.client.HTTPException("the answer is too long")
            # The socket's own limit counts from byte to byte.
            if time.monotonic() > deadline:
                raise TimeoutError("timed out")
        response.close()  # piecewise reading does not, and then no request can follow
        return b"".join(pieces)

    def _unreachable(self, error: Exception) -> BrokerUnreachableError:
        ended = isinstance(error, ssl.SSLError | ConnectionError)
        if self.with_certificate and ended and not isinstance(error, ConnectionRefusedError):
            # In TLS 1.3 a client hears of its own certificate only when it reads, and Python's servers hang
            # up without saying why.
            return BrokerUnreachableError(
                f"The broker at {self.url} ended the connection, as it does when a node's certificate has "
                "expired or is of another broker: attest again."
            )
        cause = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            cause = f"no answer within {self.timeout:g} seconds"
        return BrokerUnreachableError(
            f"The broker at {self.url} does not answer ({cause}); `sealbook broker serve` starts one."
        )


_ERRORS: Final[Mapping[str, type[SealbookError]]] = {
    "expired": SessionEndedError,
    "unavailable": KeyUnavailableError,
    "input": InputError,
    "refused": RefusedError,
    "busy": BrokerBusyError,
}


def _membership(plain: bytes, *, member: bool) -> tuple[bytes | None, tuple[Owner, ...]]:
    """Return a cluster's secret and its other owners, which only the home broker says, sealed."""
    body = parse_json(plain, what="The broker's answer", max_bytes=MAX_ANSWER)
    if not member:
        return None, ()
    secret = _unb64(body["cluster_secret"])
    owners = tuple(map(Owner.from_dict, body["owners"]))
    if len(secret) != 32 or len(owners) > MAX_OWNERS or len({owner.name for owner in owners}) < len(owners):
        raise ValueError
    return secret, owners


def _certificate(pem: Any) -> str:
    x509.load_pem_x509_certificate(str(pem).encode())
    return str(pem)


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise RefusedError("The broker's answer is not one that this node knows.")
    return value


def _time(text: Any) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _understood(read: Callable[[], _T]) -> _T:
    """Return what `read` makes of an answer; whatever it stumbles over becomes RefusedError."""
    try:
        return read()
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error, InputError):
        raise RefusedError("The broker's answer is not one that this node knows.") from None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)
