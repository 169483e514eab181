"""The service's memory: one SQLite file that several processes may use and that a kill does not harm."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sealbook import paths
from sealbook.errors import InputError, SealbookError

#: Of the tables; a file of another version is not touched.
_VERSION: Final = 1
_PATIENCE_SECONDS: Final = 10.0

_TABLES: Final = """
CREATE TABLE nonces (nonce BLOB PRIMARY KEY, issued REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX nonces_by_time ON nonces (issued);
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, channel TEXT NOT NULL, result TEXT NOT NULL, evidence BLOB NOT NULL,
    report_data BLOB NOT NULL, digest TEXT NOT NULL, role TEXT NOT NULL, audience TEXT NOT NULL,
    claims TEXT NOT NULL, opened REAL NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_by_digest ON sessions (digest);
CREATE TABLE uses (channel TEXT, key TEXT, count INTEGER NOT NULL, PRIMARY KEY (channel, key)) WITHOUT ROWID;
CREATE TABLE nodes (
    session TEXT PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE, policy TEXT NOT NULL,
    cluster TEXT NOT NULL, cluster_version INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0,
    seen REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE certificates (
    fingerprint TEXT PRIMARY KEY, session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    serial TEXT NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX certificates_by_session ON certificates (session);
CREATE TABLE owners (
    cluster TEXT NOT NULL, name TEXT NOT NULL, broker TEXT NOT NULL, ca TEXT NOT NULL,
    PRIMARY KEY (cluster, name)
) WITHOUT ROWID;
CREATE TABLE homes (cluster TEXT PRIMARY KEY, home BLOB NOT NULL) WITHOUT ROWID;
"""


class StateError(SealbookError):
    """The service's memory cannot be used, so nothing is decided."""


class Database:
    """One SQLite file, mode 0600; nothing in it is secret, and everything in it is trusted.

    Safe to share between threads. What a transaction wrote is on the disk when it ends.

    Parameters
    ----------
    path
        Made, with its directory, when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite would make it with the umask's mode; its journals take the mode of the file.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=_PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                f"The broker's state {path} cannot be used ({_cause(error)}): make the directory writable, "
                "or move the file away, which ends all sessions."
            ) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block with nobody else writing in between; undo it all when it raises.

        Raises
        ------
        StateError
            The file cannot be read or written.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StateError(
                    f"The broker's state {self.path} cannot be read or written ({_cause(error)}), so nothing "
                    "was decided: look at the disk and try again."
                ) from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        # A used nonce must stay used when the power fails.
        run("PRAGMA synchronous = FULL")
        run("PRAGMA foreign_keys = ON")
        with self._lock:
            run("BEGIN IMMEDIATE")
            version = run("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _TABLES.split(";"):
                    run(statement)
                run(f"PRAGMA user_version = {_VERSION}")
            run("COMMIT")
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError("it is of a version that is not known here")


def open_database() -> Database:
    """Return the user's."""
    return Database(paths.data_dir() / "broker" / "service.sqlite")


def _cause(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
