"""The audit log: one JSON line for each decision, chained by hashes so that a change shows.

Entry ``n`` is ``{seq, time, event, ..., previous, hash}`` where ``hash`` is the SHA-256 of the entry's
canonical JSON without ``hash``, and ``previous`` is the hash of entry ``n - 1`` (64 zeros for the first).
The chain shows edits, deletions, insertions and reordering. What it cannot show, that the last
lines were cut off, is shown by the side file ``<log>.head``, which holds the hash and the length of the
log after the last entry; whoever can write both files can forge both, so note a head elsewhere
(`sealbook audit show --json` prints it) and give it to `sealbook audit verify --head`.

An append is: head file says which entry is *pending*; entry written and fsynced; head file says it is
done. A process that is killed between these leaves a log that still verifies.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from sealbook import files
from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, RefusedError

GENESIS: Final = "0" * 64

#: Longest entry in bytes; what a kernel reports is bounded far below.
MAX_ENTRY: Final = 128 << 10

_RESERVED: Final = frozenset({"seq", "time", "event", "previous", "hash"})


class AuditError(RefusedError):
    """The decision could not be recorded, so it was not carried out."""


@dataclass(frozen=True)
class AuditVerdict:
    """What :meth:`AuditLog.verify` found.

    Attributes
    ----------
    ok
        The log is whole.
    entries
        Entries that were verified, up to the problem if there is one.
    head
        Hash of the last verified entry; 64 zeros for an empty log.
    problem
        One sentence, or None.
    """

    ok: bool
    entries: int
    head: str
    problem: str | None = None


@dataclass(frozen=True)
class _Head:
    """What the side file says: where the log ended, and which entry was about to be added."""

    hash: str = GENESIS
    seq: int = 0
    size: int = 0
    pending_hash: str | None = None
    pending_size: int = 0

    def encode(self) -> bytes:
        return canonical_json({name: getattr(self, name) for name in self.__dataclass_fields__}) + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> _Head:
        value = parse_json(data, what="The audit log's head file", max_bytes=4096)
        if not isinstance(value, dict) or set(value) != set(cls.__dataclass_fields__):
            raise InputError("The audit log's head file is not one.")
        return cls(**value)


class AuditLog:
    """An append-only, hash-chained log in one file; several processes may append at once.

    Parameters
    ----------
    path
        The log; made with mode 0600 at the first append.
    clock
        Gives the aware time that entries carry.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = path
        self._head_path = path.with_name(path.name + ".head")
        self._clock = clock
        #: Called with each entry that this object has written; for who shows them as they come.
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []

    def append(self, event: str, **facts: Any) -> str:
        """Record one decision durably.

        Parameters
        ----------
        event
            What happened, such as "release".
        facts
            JSON values (no floats, no bytes: a secret does not slip in as one).

        Returns
        -------
        str
            Hash of the new entry.

        Raises
        ------
        AuditError
            The entry could not be written, or the log no longer ends where the head file says.
        """
        if taken := _RESERVED & set(facts):
            raise TypeError(f"an audit entry's {', '.join(sorted(taken))} cannot be chosen")
        try:
            with self._open_for_append() as file:
                entry = self._append(file, event, facts)
        except (OSError, InputError) as error:
            cause = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            raise AuditError(
                f"The audit log {self.path} could not be written ({cause}), so nothing was released; "
                "`sealbook audit verify` tells more."
            ) from None
        for listener in tuple(self.listeners):
            listener(entry)
        return str(entry["hash"])

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries as they stand, unverified; raises InputError at a line that is not one."""
        for number, line in enumerate(self._lines(), 1):
            entry = parse_json(line, what=f"Line {number} of the audit log", max_bytes=MAX_ENTRY)
            if not isinstance(entry, dict):
                raise InputError(f"Line {number} of the audit log is not an entry.")
            yield entry

    def last_time(self) -> datetime | None:
        """Return when the last entry was written, or None for an empty or unreadable log."""
        try:
            with open(self.path, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_ENTRY))
                last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
            moment = datetime.fromisoformat(
                parse_json(last, what="The last entry", max_bytes=MAX_ENTRY)["time"]
            )
            return moment if moment.tzinfo else None
        except (OSError, InputError, KeyError, TypeError, ValueError):
            return None

    def verify(self, expected_head: str | None = None) -> AuditVerdict:
        """Check the whole chain, and that nothing is missing at its end.

        Parameters
        ----------
        expected_head
            The hash of an entry that was noted down earlier: the log must still contain it.
        """
        with self._shared():
            return self._verify(expected_head)

    def _verify(self, expected_head: str | None) -> AuditVerdict:
        count, previous, size = 0, GENESIS, 0
        seen_expected = expected_head in (None, GENESIS)

        def bad(problem: str) -> AuditVerdict:
            return AuditVerdict(False, count, previous, problem)

        try:
            head = _Head.decode(self._head_path.read_bytes()) if self._head_path.exists() else None
        except (InputError, OSError):
            return bad("The head file is damaged.")
        for line in self._lines():
            at = f"Line {count + 1}"
            if head is not None and head.pending_hash and size == head.size and not line.endswith(b"\n"):
                break  # the entry whose writing was interrupted; its decision was never carried out
            try:
                entry = parse_json(line, what=at, max_bytes=MAX_ENTRY)
                whole = isinstance(entry, dict) and canonical_json(entry) + b"\n" == line
            except (InputError, TypeError, ValueError):
                whole = False
            if not whole:
                return bad(f"{at} is not an entry as sealbook writes them.")
            if entry.get("seq") != count + 1 or entry.get("previous") != previous:
                return bad(f"{at} does not follow the line before it: lines were removed, added or moved.")
            if not hmac.compare_digest(str(entry.get("hash")), _hash(entry)):
                return bad(f"{at} was changed after it was written.")
            count, previous, size = count + 1, entry["hash"], size + len(line)
            seen_expected = seen_expected or previous == expected_head
        if head is None and count:
            return bad("The head file is missing, so lines may have been cut off at the end.")
        if head is not None and (previous, size) not in (
            (head.hash, head.size),
            (head.pending_hash, head.pending_size),
        ):
            return bad("The log does not end where its head file says: lines were cut off or added there.")
        if not seen_expected:
            return bad("The log does not contain the given head: it was replaced, or lines were cut off.")
        return AuditVerdict(True, count, previous)

    def _append(self, file: BinaryIO, event: str, facts: dict[str, Any]) -> dict[str, Any]:
        head = self._settled(file)
        entry = {
            **facts,
            "seq": head.seq + 1,
            "time": self._clock().astimezone(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            "previous": head.hash,
        }
        entry["hash"] = _hash(entry)
        line = canonical_json(entry) + b"\n"
        if len(line) > MAX_ENTRY:
            raise InputError("The entry is too long.")
        pending = _Head(head.hash, head.seq, head.size, entry["hash"], head.size + len(line))
        files.write_bytes(self._head_path, pending.encode(), mode=0o600)
        if file.write(line) != len(line):
            raise OSError("short write")
        os.fsync(file.fileno())
        done = _Head(entry["hash"], head.seq + 1, head.size + len(line))
        files.write_bytes(self._head_path, done.encode(), mode=0o600)
        return entry

    def _settled(self, file: BinaryIO) -> _Head:
        """Return the head, after completing or undoing an append that was interrupted."""
        size = os.fstat(file.fileno()).st_size
        if not self._head_path.exists():
            if size:
                raise InputError("The head file is missing.")
            return _Head()
        head = _Head.decode(self._head_path.read_bytes())
        if size == head.size:
            last = head.hash
        elif head.pending_hash and size == head.pending_size:
            last = head.pending_hash
            head = _Head(last, head.seq + 1, size)
        elif head.pending_hash and head.size < size < head.pending_size:
            os.ftruncate(file.fileno(), head.size)
            size, last = head.size, head.hash
        else:
            raise InputError("The log does not end where the head file says.")
        if size:
            with open(self.path, "rb") as reader:
                reader.seek(max(0, size - MAX_ENTRY))
                line = reader.read(MAX_ENTRY).rstrip(b"\n").rpartition(b"\n")[2]
            entry = parse_json(line, what="The last entry", max_bytes=MAX_ENTRY)
            if not isinstance(entry, dict) or not entry.get("hash") == last == _hash(entry):
                raise InputError("The last entry was changed.")
        return head

    def _lines(self) -> Iterator[bytes]:
        try:
            with open(self.path, "rb") as file:
                while line := file.readline(MAX_ENTRY + 1):
                    yield line
        except FileNotFoundError:
            return

    @contextmanager
    def _open_for_append(self) -> Iterator[BinaryIO]:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(self.path, flags, 0o600), "ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    @contextmanager
    def _shared(self) -> Iterator[None]:
        try:
            with open(self.path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                yield
        except FileNotFoundError:
            yield


def _hash(entry: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json({k: v for k, v in entry.items() if k != "hash"})).hexdigest()
