"""Sessions that outlive the process, and what the service knows of the nodes behind them."""

from __future__ import annotations

import base64
import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from sealbook.attestation import AttestationResult, Policy
from sealbook.broker.service.database import Database
from sealbook.broker.session import AttestedSession, SessionEndedError, TooManySessionsError, require_within

#: Sessions that are open at the same time.
MAX_SESSIONS: Final = 4096

_SESSION: Final = (
    "id, channel, result, evidence, report_data, digest, role, audience, claims, opened, expires"
)
#: Nodes ask who the members are every few seconds; what is written down of that is so exact. Seconds.
_SEEN_EVERY: Final = 15.0
#: A node that counts: its session is open, it has a certificate that is valid now, and nobody revoked it.
_ALIVE: Final = (
    "FROM nodes JOIN sessions ON sessions.id = nodes.session "
    "JOIN certificates ON certificates.session = nodes.session "
    "WHERE nodes.revoked = 0 AND sessions.expires > :now AND certificates.expires > :now"
)


@dataclass(frozen=True)
class Node:
    """What the service keeps of a node beside its session.

    Attributes
    ----------
    session, role, cluster
        As its certificate says.
    cluster_version
        Version of the cluster's secret that it was given; 0 without a cluster.
    policy
        Name of the policy that admitted it and that renews its certificate.
    digest
        Of that policy as it was when the evidence was last looked at.
    certificate_expires
        End of the latest certificate, aware.
    revoked
        The owner wants it out.
    seen
        When it last asked for anything, to within 15 seconds, aware.
    """

    session: str
    role: str
    cluster: str
    cluster_version: int
    policy: str
    digest: str
    certificate_expires: datetime
    revoked: bool
    seen: datetime

    def silence(self, now: datetime) -> float:
        """Return for how many seconds nothing was heard of it."""
        return max(0.0, (now - self.seen).total_seconds())


class StoredSessions:
    """:class:`~sealbook.broker.session.Sessions` in the service's database, and the nodes they belong to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, session: AttestedSession, now: datetime, *, limit: int | None = None) -> None:
        """Keep a new session; see :meth:`Sessions.add`."""
        bound = {name: base64.b64encode(value).decode() for name, value in session.claims.items()}
        with self._database.transaction() as run:
            run.execute("DELETE FROM sessions WHERE expires <= ?", (now.timestamp(),))
            run.execute("DELETE FROM uses WHERE channel NOT IN (SELECT channel FROM sessions)")
            if run.execute("SELECT count(*) FROM sessions").fetchone()[0] >= MAX_SESSIONS:
                raise TooManySessionsError(
                    f"This broker has {MAX_SESSIONS} open sessions, its limit: shut down unused nodes."
                )
            rivals = run.execute(
                "SELECT count(DISTINCT channel) FROM sessions WHERE digest = ? AND channel != ?",
                (session.policy.digest, session.channel),
            ).fetchone()[0]
            if limit is not None and rivals >= limit:
                raise TooManySessionsError(
                    f"The policy '{session.policy.id}' allows {limit} sessions at a time: shut down a node."
                )
            run.execute(
                f"INSERT INTO sessions ({_SESSION}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608 - a constant
                (
                    session.id,
                    session.channel,
                    json.dumps(session.result.to_dict()),
                    session.evidence,
                    session.report_data,
                    session.policy.digest,
                    session.role,
                    session.audience,
                    json.dumps(bound),
                    session.opened_at.timestamp(),
                    session.expires_at.timestamp(),
                ),
            )

    def close(self, session: AttestedSession) -> bool:
        """Forget a session; returns whether it was open."""
        with self._database.transaction() as run:
            gone = run.execute("DELETE FROM sessions WHERE id = ?", (session.id,)).rowcount > 0
            run.execute("DELETE FROM uses WHERE channel NOT IN (SELECT channel FROM sessions)")
        return gone

    def require_live(self, session: AttestedSession, now: datetime) -> None:
        """Raise SessionEndedError unless this very session is open, not revoked and has not expired."""
        with self._database.transaction() as run:
            known = run.execute(
                "SELECT 1 FROM sessions LEFT JOIN nodes ON nodes.session = sessions.id "
                "WHERE id = ? AND report_data = ? AND coalesce(nodes.revoked, 0) = 0",
                (session.id, session.report_data),
            ).fetchone()
        if known is None:
            raise SessionEndedError("This attested session has ended: attest again.")
        require_within(session, now)

    def count_use(self, session: AttestedSession, name: str, limit: int | None) -> bool:
        """Count one release of a key; see :meth:`Sessions.count_use`."""
        with self._database.transaction() as run:
            row = run.execute(
                "SELECT count FROM uses WHERE channel = ? AND key = ?", (session.channel, name)
            ).fetchone()
            count = row[0] if row else 0
            if limit is not None and count >= limit:
                return False
            run.execute("INSERT OR REPLACE INTO uses VALUES (?, ?, ?)", (session.channel, name, count + 1))
            return True

    # -- nodes ---------------------------------------------------------------------------------

    def enlist(self, session: AttestedSession, *, policy: str, cluster: str, cluster_version: int) -> None:
        """Say which node a session belongs to."""
        with self._database.transaction() as run:
            run.execute(
                "INSERT INTO nodes VALUES (?, ?, ?, ?, 0, ?)",
                (session.id, policy, cluster, cluster_version, session.opened_at.timestamp()),
            )

    def heard(self, node: Node, now: datetime) -> None:
        """Keep that a node asked for something; most polls have nothing to write."""
        if node.silence(now) > _SEEN_EVERY:
            with self._database.transaction() as run:
                run.execute("UPDATE nodes SET seen = ? WHERE session = ?", (now.timestamp(), node.session))

    def certify(self, session: str, *, fingerprint: str, serial: str, expires: datetime) -> None:
        """Keep that a certificate was issued; raises SessionEndedError where the session has ended."""
        with self._database.transaction() as run:
            if not run.execute(
                "SELECT 1 FROM nodes WHERE session = ? AND revoked = 0", (session,)
            ).fetchone():
                raise SessionEndedError("This attested session has ended: attest again.")
            run.execute(
                "INSERT INTO certificates VALUES (?, ?, ?, ?)",
                (fingerprint, session, serial, expires.timestamp()),
            )

    def node_of(self, fingerprint: str) -> tuple[Node, datetime] | None:
        """Return the node that a certificate was issued to, and when that certificate ends."""
        with self._database.transaction() as run:
            row = run.execute(
                "SELECT session, expires FROM certificates WHERE fingerprint = ?", (fingerprint,)
            ).fetchone()
            node = None if row is None else self._node(run, row[0])
        return None if node is None else (node, _time(row[1]))

    def load(self, session: str, policy: Policy) -> AttestedSession | None:
        """Return a session as it was opened, under `policy`, the present one of the same name."""
        with self._database.transaction() as run:
            row = run.execute(
                f"SELECT {_SESSION} FROM sessions WHERE id = ?",  # noqa: S608 - a constant
                (session,),
            ).fetchone()
        if row is None:
            return None
        bound = {name: base64.b64decode(value) for name, value in json.loads(row[8]).items()}
        return AttestedSession(
            id=row[0],
            channel=row[1],
            result=AttestationResult.from_dict(json.loads(row[2])),
            evidence=row[3],
            report_data=row[4],
            policy=policy,
            role=row[6],
            audience=row[7],
            claims=MappingProxyType(bound),
            opened_at=_time(row[9]),
            expires_at=_time(row[10]),
        )

    def alive(self, now: datetime, cluster: str | None = None) -> tuple[Node, ...]:
        """Return the nodes that count now, of one cluster or of all."""
        chosen = "" if cluster is None else " AND nodes.cluster = :cluster"
        with self._database.transaction() as run:
            rows = run.execute(
                "SELECT DISTINCT nodes.session "
                + _ALIVE
                + chosen
                + " ORDER BY sessions.opened, nodes.session",
                {"now": now.timestamp(), "cluster": cluster},
            ).fetchall()
            nodes = [self._node(run, row[0]) for row in rows]
        return tuple(node for node in nodes if node is not None)

    def judged(self, session: str, digest: str) -> None:
        """Keep under which policy the evidence of a session was accepted last."""
        with self._database.transaction() as run:
            run.execute("UPDATE sessions SET digest = ? WHERE id = ?", (digest, session))

    def known(self, session: str) -> bool:
        """Tell whether there is a node of this session that was not revoked."""
        with self._database.transaction() as run:
            found = run.execute(
                "SELECT 1 FROM nodes WHERE session = ? AND revoked = 0", (session,)
            ).fetchone()
        return found is not None

    def revoke(self, session: str) -> bool:
        """Put a node out for good; returns whether there is one that was not out already."""
        with self._database.transaction() as run:
            changed = run.execute(
                "UPDATE nodes SET revoked = 1 WHERE session = ? AND revoked = 0", (session,)
            )
            return changed.rowcount > 0

    def _node(self, run: sqlite3.Connection, session: str) -> Node | None:
        row = run.execute(
            "SELECT session, role, cluster, cluster_version, policy, digest, "
            "(SELECT max(expires) FROM certificates WHERE certificates.session = nodes.session), "
            "revoked, seen "
            "FROM nodes JOIN sessions ON sessions.id = nodes.session WHERE session = ?",
            (session,),
        ).fetchone()
        if row is None:
            return None
        session, role, cluster, version, policy, digest, expires, revoked, seen = row
        return Node(
            session,
            role,
            cluster,
            version,
            policy,
            digest,
            certificate_expires=_time(expires or 0.0),
            revoked=bool(revoked),
            seen=_time(seen),
        )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
