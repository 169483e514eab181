"""What a node can ask the broker for, without HTTP: evidence in; certificates, keys and members out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sealbook.attestation import ROLE_KERNEL, CollateralMemory, CollateralSource, Policy, report_data
from sealbook.broker import guards, hpke, rules, wire
from sealbook.broker.audit import AuditLog
from sealbook.broker.broker import Broker
from sealbook.broker.certificates import (
    Authority,
    NodeFacts,
    check_hosts,
    fingerprint,
    membership,
    node_public_key,
    pem,
    public_der,
)
from sealbook.broker.clock import GuardedClock
from sealbook.broker.keyring import SESSION_PREFIX, Keyring
from sealbook.broker.reserved import BROKER_CA, CHALLENGES, CLUSTER_PREFIX, NODE_CA
from sealbook.broker.service.clusters import Clusters
from sealbook.broker.service.database import Database
from sealbook.broker.service.nonces import StoredNonces
from sealbook.broker.service.partners import Partners
from sealbook.broker.service.sessions import Node, StoredSessions
from sealbook.broker.session import AttestedSession, SessionEndedError
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, RefusedError, SealbookError

#: What a node can be.
SPARK_ROLES: Final = frozenset({"spark-master", "spark-worker", "spark-executor", "spark-driver"})
ROLES: Final = SPARK_ROLES | {ROLE_KERNEL}

#: What a node reports when it refused another one.
PEER_REFUSED: Final = "peer-refused"

#: Seconds for which a node's certificate is valid.
CERTIFICATE_SECONDS: Final = 3600

_SERVER_LIFETIME: Final = timedelta(days=7)
_MAX_REASON: Final = 500
_FINGERPRINT_LENGTH: Final = 64
#: Nodes, and addresses of each, that a person is shown: the answer has an end.
_MOST_SHOWN: Final = 200
_MOST_HOSTS: Final = 3


_log = logging.getLogger(__name__)


class NoCertificateError(RefusedError):
    """A request that needs a node's certificate came without one that counts."""


@dataclass(frozen=True)
class Caller:
    """The node behind a request, as its certificate proves."""

    node: Node
    session: AttestedSession


class BrokerService:
    """A :class:`~sealbook.broker.broker.Broker` for nodes on a network. Safe to share between threads.

    Parameters
    ----------
    keyring, audit, collateral
        As the broker's.
    database
        What must survive a restart.
    policies
        Names of the policies that admit nodes without a cluster; the first that accepts the evidence counts.
    name
        What evidence is made for. Default: derived from the authority that clients trust.
    hosts
        Names and addresses that clients reach the service by.
    certificate_seconds
        Lifetime of a node's certificate; never longer than its session.
    unattested
        Whether policies that ask for no evidence count too: only where nobody but this machine's users
        reaches the service, because such a policy admits everybody who does.
    policy_loader, clock, memory
        As the broker's.
    """

    def __init__(
        self,
        keyring: Keyring,
        audit: AuditLog,
        collateral: CollateralSource,
        database: Database,
        *,
        policies: Sequence[str] = (),
        name: str | None = None,
        hosts: Sequence[str] = ("localhost", "127.0.0.1"),
        certificate_seconds: int = CERTIFICATE_SECONDS,
        unattested: bool = False,
        policy_loader: Callable[[str], Policy] = guards.load_policy,
        clock: Callable[[], datetime] | GuardedClock = lambda: datetime.now(UTC),
        memory: CollateralMemory | None = None,
    ) -> None:
        self._clock = (
            clock if isinstance(clock, GuardedClock) else GuardedClock(clock, last_seen=audit.last_time())
        )
        self.audit = audit
        self._policy_loader = policy_loader
        self._unattested = unattested
        self.partners = Partners(database)
        self.sessions = StoredSessions(database)
        self.clusters = Clusters(keyring)
        challenges = keyring.make_reserved(
            CHALLENGES, guard=CHALLENGES, description="makes the challenges of the broker's service"
        )
        self.broker = Broker(
            keyring,
            audit,
            collateral,
            policy_loader=self._load_policy,
            clock=self._clock,
            memory=memory,
            nonces=lambda ttl: StoredNonces(database, challenges.secrets[-1], ttl),
            sessions=self.sessions,
        )
        self._policies = tuple(policies)
        self._lifetime = timedelta(seconds=certificate_seconds)
        self._hosts = check_hosts(list(hosts))
        self._node_ca = Authority(
            keyring.make_reserved(NODE_CA, guard=NODE_CA, description="issues certificates to attested nodes")
        )
        self._broker_ca = Authority(
            keyring.make_reserved(
                BROKER_CA, guard=BROKER_CA, description="issues the broker's own certificate"
            )
        )
        # One key as long as the process lives: evidence is bound to it. The certificate is renewed.
        self._server_key = ec.generate_private_key(ec.SECP256R1())
        self._broker_key = hashlib.sha256(public_der(self._server_key.public_key())).digest()
        self.name = name or f"sealbook broker {fingerprint(self._broker_ca.certificate)[:16]}"
        self._judging = threading.Lock()

    @property
    def ca_pem(self) -> str:
        """What clients trust: the certificate of the broker's own authority."""
        return self._broker_ca.pem

    @property
    def node_ca_pem(self) -> str:
        """The certificate of the authority of nodes."""
        return self._node_ca.pem

    def identity(self) -> tuple[str, ec.EllipticCurvePrivateKey]:
        """Return the certificate, new, and the key that the service shows its clients."""
        now = self._clock.now()
        key = self._server_key
        certificate = self._broker_ca.issue_server(
            key.public_key(), self._hosts, now=now, expires=now + _SERVER_LIFETIME
        )
        return pem(certificate), key

    # -- without a certificate -----------------------------------------------------------------

    def challenge(self) -> bytes:
        """Return a nonce that evidence must answer."""
        return self.broker.challenge()

    def attest(
        self,
        *,
        nonce: bytes,
        role: str,
        cluster: str,
        evidence: bytes,
        tls_key: bytes,
        hpke_key: bytes,
        hosts: Sequence[str],
        home: bytes = b"",
    ) -> dict[str, Any]:
        """Verify a node's evidence; return its session, certificate and, sealed, its cluster's secret.

        Parameters
        ----------
        home
            Whose cluster it is, where it is another broker's: see
            :func:`~sealbook.broker.certificates.authority_id`.

        Raises
        ------
        SealbookError
            One sentence; it is in the audit log.
        """
        try:
            if role not in ROLES:
                raise InputError(f"A node is one of: {', '.join(sorted(ROLES))}.")
            if cluster and role not in SPARK_ROLES:
                raise InputError(f"A {role} is no member of a cluster: it attests without one.")
            key = node_public_key(tls_key)
            hpke.check_public_key(hpke_key)
            names = check_hosts(hosts)
            claims = {
                "tls_key": tls_key,
                "hpke_key": hpke_key,
                "cluster": cluster.encode(),
                "hosts": canonical_json(names),
                "broker_key": self._broker_key,
                "home": home,
            }
            self._check_home(cluster, home)
            bound = _bound(role, self.name, nonce, claims)
            policy_name, policy, secret = self._policy_for(cluster, home, evidence, bound)
        except SealbookError as error:
            self._record(
                "attest",
                "refused",
                role=str(role)[:64],
                cluster=str(cluster)[:64],
                home=home.hex()[:64],
                reasons=[str(error)],
            )
            raise
        session = self.broker.attest(
            evidence, role=role, audience=self.name, nonce=nonce, claims=claims, policy=policy
        )
        try:
            if cluster:
                self._check_secret(policy, session, cluster, released=secret is not None)
            version = _version(secret, home)
            self.sessions.enlist(session, policy=policy_name, cluster=cluster, cluster_version=version)
            certificate, expires = self._issue(session, key, cluster, names, secret)
        except BaseException:
            self.broker.close_session(session)
            raise
        plain: dict[str, Any] = {}
        if secret:
            owners = [owner.to_dict() for owner in self.partners.owners(cluster)]
            plain = {"cluster_secret": _b64(secret), "owners": owners}
        return {
            "result": session.result.to_dict(),
            "session": session.id,
            "expires": expires.isoformat(),
            "certificate": pem(certificate),
            "ca": self._node_ca.pem,
            "sealed": _b64(hpke.seal(canonical_json(plain), hpke_key, hpke.attest_info(session.report_data))),
        }

    # -- with a certificate --------------------------------------------------------------------

    def caller(self, certificate: bytes | None) -> Caller:
        """Return the node whose certificate (DER) came with a connection.

        Raises
        ------
        SessionEndedError
            Attesting anew may help.
        RefusedError
            It will not.
        """
        try:
            return self._caller(certificate)
        except SealbookError as error:
            shown = fingerprint(certificate) if certificate else ""
            self._record("connection", "refused", certificate=shown, reasons=[str(error)])
            raise

    def renew(self, caller: Caller) -> dict[str, Any]:
        """Issue a new certificate for the same key, if the policy as it stands still accepts the evidence."""
        session, node = caller.session, caller.node
        try:
            self._require_accepted(caller)
            certificate, expires = self._issue(
                session,
                node_public_key(session.claims["tls_key"]),
                node.cluster,
                check_hosts(_listed(session.claims["hosts"])),
                self._secret(node),
            )
        except SealbookError as error:
            self._record("renew", "refused", session=session.id, reasons=[str(error)])
            raise
        return {"certificate": pem(certificate), "expires": expires.isoformat()}

    def release(self, caller: Caller, key: object, version: object, purpose: object) -> dict[str, Any]:
        """Release a key, sealed to the node."""
        if not isinstance(key, str) or not isinstance(purpose, str):
            raise InputError("A release names a key and a purpose.")
        session = caller.session
        got = self.broker.release(
            session,
            key,
            version,  # type: ignore[arg-type] # it checks
            purpose,  # type: ignore[arg-type]
            check=lambda name, policy: _check_key(caller, name, policy),
        )
        sealed = hpke.seal(
            canonical_json({"secret": _b64(got.secret)}),
            session.claims["hpke_key"],
            hpke.release_info(session.report_data, got.name, got.version),
        )
        return {"key": got.name, "version": got.version, "sealed": _b64(sealed)}

    def keys(self, caller: Caller) -> dict[str, Any]:
        """Return the keys that the node would get now."""
        return wire.listed_keys(
            self.broker.keys(caller.session, check=lambda name, policy: _check_key(caller, name, policy))
        )

    def members(self, caller: Caller) -> dict[str, Any]:
        """Return the nodes of the caller's cluster that count now."""
        members = [
            {"session": node.session, "role": node.role, "expires": node.certificate_expires.isoformat()}
            for node in self._members(caller)
        ]
        return {"members": members}

    def nodes(self, caller: Caller) -> dict[str, Any]:
        """Return the same nodes with what their evidence proved, for a person."""
        found, now = [], self._clock.now()
        for node in self._members(caller)[:_MOST_SHOWN]:
            session = self.sessions.load(node.session, caller.session.policy)
            if session is not None:
                found.append(
                    {
                        "session": node.session,
                        "role": node.role,
                        "expires": node.certificate_expires.isoformat(),
                        "hosts": check_hosts(_listed(session.claims["hosts"]))[:_MOST_HOSTS],
                        "label": session.result.label,
                        "measurement": session.result.mrenclave,
                        "silent": int(node.silence(now)),
                    }
                )
        return {"nodes": found}

    def _members(self, caller: Caller) -> list[Node]:
        cluster = caller.node.cluster
        if not cluster:
            return []
        secret, version = self._present(cluster)
        if secret is None:  # of another broker's cluster, who knows its members
            return []
        try:
            policy = self._policy_of(caller.node)
        except SealbookError:  # nobody is accepted by a policy that is not there
            return []
        return [
            node
            for node in self.sessions.alive(self._clock.now(), cluster)
            if node.cluster_version == version and self._still_accepted(node, policy)
        ]

    def event(self, caller: Caller, action: object, facts: object) -> dict[str, Any]:
        """Record what a node says it did or refused; its word, marked as such."""
        if action == PEER_REFUSED:
            reason, peer = _refusal(facts)
            self._record(
                "peer",
                "reported",
                session=caller.session.id,
                action=PEER_REFUSED,
                peer=peer,
                reasons=[reason],
            )
        else:
            self.broker.report(caller.session, *wire.checked_event(action, facts))
        return {}

    # -- helpers -------------------------------------------------------------------------------

    def refused_connection(self, reason: str) -> None:
        """Record a client that TLS turned away."""
        self._record("connection", "refused", reasons=[reason])

    def _policy_for(
        self, cluster: str, home: bytes, evidence: bytes, bound: bytes
    ) -> tuple[str, Policy, bytes | None]:
        """Return what judges a node, by name, and the secret its cluster has if it is one of this broker."""
        if cluster:
            stored = self.clusters.find(cluster)
            secret = None if home else stored.secrets[-1]
            return stored.record.guard, self._load_policy(stored.record.guard), secret
        loaded = [(name, self._load_policy(name)) for name in self._policies]
        if not loaded:
            raise RefusedError(
                "This broker admits only nodes of its clusters: name a cluster, or start it with --policy."
            )
        if len(loaded) > 1:
            for name, policy in loaded:
                if self.broker.accepts(evidence, policy, bound):
                    return name, policy, None
        return *loaded[0], None

    def _check_home(self, cluster: str, home: bytes) -> None:
        """Raise unless the cluster is whose the node says it is, for its evidence says so too."""
        known = self.partners.home(cluster) if cluster else b""
        if not hmac.compare_digest(known, home):
            raise RefusedError(
                f"This broker knows no cluster '{cluster}' of that home: its owner names it with `sealbook "
                f"broker cluster add {cluster} --policy POLICY --home-ca FILE`."
                if home
                else f"The cluster '{cluster}' is of another broker: its nodes attest there first."
            )

    def _check_secret(
        self, policy: Policy, session: AttestedSession, cluster: str, *, released: bool
    ) -> None:
        """Raise unless the policy gives the cluster's secret to this node."""
        name = CLUSTER_PREFIX + cluster
        facts = {"session": session.id, "key": name, "guard": policy.id}
        try:
            rules.check_release(policy, session, name, self._clock.now())
        except SealbookError as error:
            self._record("release", "refused", **facts, reasons=[str(error)])
            raise
        if released:
            self._record("release", "released", **facts, purpose="cluster")

    def _issue(
        self,
        session: AttestedSession,
        key: ec.EllipticCurvePublicKey,
        cluster: str,
        hosts: Sequence[str],
        secret: bytes | None,
    ) -> tuple[x509.Certificate, datetime]:
        now = self._clock.now()
        # A certificate's times are whole seconds.
        expires = min(now + self._lifetime, session.expires_at).replace(microsecond=0)
        facts = NodeFacts(
            role=session.role,
            cluster=cluster,
            measurement=session.result.mrenclave or "",
            simulated=session.result.simulated,
            session=session.id,
            membership=membership(secret, session.claims["tls_key"]) if secret else "",
        )
        certificate = self._node_ca.issue_node(key, facts, hosts, now=now, expires=expires)
        serial = f"{certificate.serial_number:x}"
        self.sessions.certify(
            session.id, fingerprint=fingerprint(certificate), serial=serial, expires=expires
        )
        self._record(
            "certificate",
            "issued",
            session=session.id,
            role=session.role,
            cluster=cluster,
            hosts=list(hosts),
            serial=serial,
            expires=expires.isoformat(),
        )
        return certificate, expires

    def _caller(self, certificate: bytes | None) -> Caller:
        if certificate is None:
            raise NoCertificateError("This request needs the certificate of a node: attest first.")
        known = self.sessions.node_of(fingerprint(certificate))
        if known is None:
            raise SessionEndedError("The certificate belongs to no session that is open here: attest again.")
        node, expires = known
        if self._clock.now() >= expires:
            raise SessionEndedError(
                f"The node's certificate expired at {expires:%Y-%m-%d %H:%M:%S} UTC: attest again."
            )
        if node.revoked:
            raise RefusedError("The owner of this broker revoked this node's session.")
        self._secret(node)
        session = self.sessions.load(node.session, self._policy_of(node))
        if session is None:
            raise SessionEndedError("This attested session has ended: attest again.")
        self.broker.require_live(session)
        self.sessions.heard(node, self._clock.now())
        return Caller(node, session)

    def _secret(self, node: Node) -> bytes | None:
        """Return the secret of a node's cluster; raises where it is not the one that the node has."""
        if not node.cluster:
            return None
        secret, version = self._present(node.cluster)
        if version != node.cluster_version:
            raise SessionEndedError(f"The cluster '{node.cluster}' has a new secret: attest again.")
        return secret

    def _present(self, cluster: str) -> tuple[bytes | None, int]:
        """Return the secret of a cluster of this broker, and what its nodes have been given, as a number."""
        stored = self.clusters.find(cluster)
        home = self.partners.home(cluster)
        secret = None if home else stored.secrets[-1]
        return secret, _version(secret, home)

    def _load_policy(self, name: str) -> Policy:
        """Return a policy as it stands; where there is none, strangers are not told why or where it lies."""
        try:
            policy = self._policy_loader(name)
            if not policy.attested and not self._unattested:
                raise RefusedError(
                    f"The policy '{policy.id}' asks for no evidence, which admits everybody who reaches "
                    "this broker: use one that asks for it, or let the broker listen on 127.0.0.1 only."
                )
        except SealbookError as error:
            _log.error("%s", error)
            raise RefusedError("A policy of this broker cannot be used; the broker's log says why.") from None
        return policy

    def _policy_of(self, node: Node) -> Policy:
        """Return the policy that judges a node now: its cluster's, or the one that admitted it."""
        guard = self.clusters.find(node.cluster).record.guard if node.cluster else node.policy
        return self._load_policy(guard)

    def _require_accepted(self, caller: Caller) -> None:
        """Verify the evidence again under the policy as it stands."""
        session, now = caller.session, self._clock.now()
        policy = session.policy
        self.broker.verify_again(session)
        rules.check_peer(policy, role=session.role, audience=session.audience)
        if caller.node.cluster:
            rules.check_release(policy, session, CLUSTER_PREFIX + caller.node.cluster, now)
        self.sessions.judged(session.id, policy.digest)

    def _still_accepted(self, node: Node, policy: Policy) -> bool:
        """Whether a member's evidence passes its cluster's policy, looked at again when that was edited."""
        if policy.digest == node.digest:
            return True
        try:
            with self._judging:
                session = self.sessions.load(node.session, policy)
                if session is None:
                    return False
                self._require_accepted(Caller(node, session))
        except SealbookError:
            return False
        return True

    def _record(self, event: str, decision: str, **facts: Any) -> None:
        self.broker.record(event, decision, **facts)


def _check_key(caller: Caller, name: str, policy: Policy | None) -> None:
    """Raise unless a key of this name and guard may go to a node at all, whatever its evidence says.

    All nodes of a cluster work for whoever is admitted to it as a driver. So a key goes only where all of
    them passed the policy that guards it: one policy is one domain of trust.
    """
    if name.startswith(SESSION_PREFIX):
        raise rules.RuleError(
            f"Keys named {SESSION_PREFIX}... live in the memory of one kernel's side, and no node of a "
            "cluster has them: make a key that lasts, `sealbook keys create NAME`, and name it where you "
            "write: sealed://NAME/path."
        )
    if policy is None:
        raise rules.RuleError(
            f"No policy guards the key '{name}', and nodes on a network get only keys that one guards: "
            f"`sealbook keys guard {name} POLICY`."
        )
    if caller.node.cluster and policy.digest != caller.session.policy.digest:
        raise rules.RuleError(
            f"The policy '{policy.id}' guards the key '{name}', and another one, "
            f"'{caller.session.policy.id}', admits the nodes of the cluster '{caller.node.cluster}': a key "
            "goes only to clusters whose nodes its own policy admits."
        )


def _version(secret: bytes | None, home: bytes) -> int:
    """Return what tells this secret, or home, from every other: a cluster made anew is another cluster."""
    named = secret or home
    digest = hashlib.sha256(b"sealbook cluster version 1" + named).digest()
    return int.from_bytes(digest[:7], "big") if named else 0


def _bound(role: str, audience: str, nonce: bytes, claims: Mapping[str, bytes]) -> bytes:
    try:
        return report_data(role=role, audience=audience, nonce=nonce, claims=claims)
    except ValueError as error:
        raise InputError(f"No evidence can answer this request: {error}.") from None


def _refusal(facts: object) -> tuple[str, str]:
    if not isinstance(facts, Mapping) or set(facts) != {"reason", "peer"}:
        raise InputError("A refusal is reported with `reason` and `peer`.")
    reason, peer = facts["reason"], facts["peer"]
    if not isinstance(reason, str) or not 0 < len(reason) <= _MAX_REASON:
        raise InputError(f"A reason is text of 1 to {_MAX_REASON} characters.")
    if not isinstance(peer, str) or (
        peer and (len(peer) != _FINGERPRINT_LENGTH or not set(peer) <= set("0123456789abcdef"))
    ):
        raise InputError(
            "A peer is named by the SHA-256 of its certificate in lower-case hex, or by nothing."
        )
    return reason, peer


def _listed(hosts: bytes) -> object:
    return parse_json(hosts, what="The hosts", max_bytes=64 * 1024)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
