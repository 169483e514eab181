"""Brokers of other data owners in the same job: whose keys come from there, and whose clusters come here.

The *home* broker of a cluster has its secret and its list of members, and tells each node, sealed to it,
which owners there are; nobody else does, because whoever names a broker names who may hand out keys. The
broker of an *owner* knows the cluster by the authority of its home, which a node's evidence binds: otherwise
a host could take genuine nodes to a home of its own, whose members are whom it likes, and have them ask for
the owner's keys.
"""

from __future__ import annotations

from typing import Final

from sealbook.broker.owners import MAX_OWNERS, Owner
from sealbook.broker.service.database import Database
from sealbook.errors import InputError

#: SHA-256 of the public key of a home's authority.
HOME_BYTES: Final = 32


class Partners:
    """The other brokers that this one's owner has named."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def owners(self, cluster: str) -> tuple[Owner, ...]:
        """Return the other owners whose keys the nodes of `cluster` use, by name."""
        with self._database.transaction() as run:
            rows = run.execute(
                "SELECT name, broker, ca FROM owners WHERE cluster = ? ORDER BY name", (cluster,)
            ).fetchall()
        return tuple(Owner(*row) for row in rows)

    def add_owner(self, cluster: str, owner: Owner) -> None:
        """Have the nodes of `cluster` that attest from now on also attest to this owner's broker."""
        with self._database.transaction() as run:
            others = run.execute(
                "SELECT count(*) FROM owners WHERE cluster = ? AND name != ?", (cluster, owner.name)
            ).fetchone()[0]
            if others >= MAX_OWNERS:
                raise InputError(
                    f"The cluster '{cluster}' has {MAX_OWNERS} other owners, the most there may be."
                )
            run.execute(
                "INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?)",
                (cluster, owner.name, owner.broker, owner.ca),
            )

    def remove_owner(self, cluster: str, name: str) -> None:
        """Undo :meth:`add_owner`; raises InputError where there is none of that name."""
        with self._database.transaction() as run:
            if not run.execute("DELETE FROM owners WHERE cluster = ? AND name = ?", (cluster, name)).rowcount:
                raise InputError(f"The cluster '{cluster}' has no other owner '{name[:60]}'.")

    def home(self, cluster: str) -> bytes:
        """Return whose cluster it is: the other broker's authority, or nothing for one of this broker."""
        with self._database.transaction() as run:
            row = run.execute("SELECT home FROM homes WHERE cluster = ?", (cluster,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def set_home(self, cluster: str, home: bytes) -> None:
        """Say whose cluster it is; nothing for one of this broker."""
        with self._database.transaction() as run:
            run.execute("DELETE FROM homes WHERE cluster = ?", (cluster,))
            if home:
                run.execute("INSERT INTO homes VALUES (?, ?)", (cluster, home))

    def forget(self, cluster: str) -> None:
        """Forget everything about a cluster."""
        with self._database.transaction() as run:
            run.execute("DELETE FROM owners WHERE cluster = ?", (cluster,))
            run.execute("DELETE FROM homes WHERE cluster = ?", (cluster,))
