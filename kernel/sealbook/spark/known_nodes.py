"""The nodes of a cluster, as the broker's own records on this machine have them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sealbook import paths
from sealbook.broker import load_policy
from sealbook.broker.service.database import open_database
from sealbook.broker.service.sessions import StoredSessions
from sealbook.encoding import parse_json


def known_nodes(name: str) -> list[dict[str, Any]]:
    """Return the members of cluster `name`; none where its broker keeps no records on this machine."""
    if not (paths.data_dir() / "broker" / "service.sqlite").exists():
        return []
    database = open_database()
    try:
        sessions, now = StoredSessions(database), datetime.now(UTC)
        rows = []
        for node in sessions.alive(now, name):
            session = sessions.load(node.session, load_policy(node.policy))
            if session is None:
                continue
            hosts = parse_json(
                session.claims.get("hosts", b"[]"), what="The node's addresses", max_bytes=65536
            )
            rows.append(
                {
                    "session": node.session,
                    "role": node.role,
                    "hosts": [str(host) for host in hosts],
                    "label": session.result.label,
                    "simulated": session.result.simulated,
                    "measurement": session.result.mrenclave,
                    "certificate_until": node.certificate_expires.isoformat(),
                    "silent_seconds": int(node.silence(now)),
                }
            )
        return rows
    finally:
        database.close()
