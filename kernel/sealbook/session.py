"""The process's session: which keys it may use, and whether its kernel proved what it runs.

There is one session per process. In a sealbook kernel the kernel application calls
:func:`attach` with the broker it reached over the verified channel; such a kernel is attested unless its
policy admits by name that it cannot be. Everywhere else the
session is unattested: it opens the user's keyring, but only the keys that were made
without a guard. The attestation result shown to people comes from the side that verified
the quote; a kernel never vouches for itself.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sealbook import sealing
from sealbook.broker import (
    DEFAULT_SESSION_KEY,
    SESSION_PREFIX,
    UNGUARDED,
    Keyring,
    RemoteBroker,
    open_keyring,
)
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.sealing import KeyProvider, KeyUnavailableError, SealingKey, check_key_name

if TYPE_CHECKING:
    from sealbook.attestation import AttestationResult
    from sealbook.broker import Appraisal
    from sealbook.broker.keyring import StoredKey

#: Names the default key of unattested processes, such as papermill's. An attested kernel does not look at
#: it: its environment comes from the untrusted host, which must not choose what data is sealed to.
KEY_VARIABLE = "SEALBOOK_KEY"

#: Where an attested kernel is found by a person; part of several sentences.
ATTESTED_KERNEL = "sealbook-simulated"

#: What to do in a process that is not attested; ends several sentences.
HOW_TO_ATTEST = (
    f"choose the kernel '{ATTESTED_KERNEL}' (`sealbook install` adds it), or on SGX hardware "
    "'sealbook-gramine-sgx', to use keys that demand attestation"
)


#: Called with its name whenever another default key is chosen: what seals elsewhere follows it.
on_default_key: list[Callable[[str], None]] = []


#: Called after every attempt of this process's session to attest anew: with why it failed, or None.
on_attestation: list[Callable[[SealbookError | None], None]] = []


@dataclass(frozen=True)
class KeyEntry:
    """A key as a person sees it: its name and what guards it. Never the key.

    Attributes
    ----------
    name
        ``key`` or ``owner/key``.
    guard
        Name of the policy a kernel must pass to get the key, or ``none``.
    usable
        Whether this session may use it.
    """

    name: str
    guard: str
    usable: bool


class Session(ABC):
    """The keys and the attestation of this process."""

    def __init__(self) -> None:
        # A key of the broker's memory: made at first use, gone when the broker ends.
        self._default_key = DEFAULT_SESSION_KEY

    @property
    @abstractmethod
    def keys(self) -> KeyProvider:
        """Where sealing and unsealing get their keys."""

    @property
    @abstractmethod
    def result(self) -> AttestationResult | None:
        """What the verifier found, or None when nothing was verified."""

    @abstractmethod
    def reattest(self) -> AttestationResult:
        """Make new evidence now, have it verified, and return (and keep) the new result.

        Raises
        ------
        RefusedError
            When the session cannot attest.
        """

    @abstractmethod
    def appraisal(self, *, renew: bool = True) -> Appraisal | None:
        """Have the present evidence verified again, now; None where there is nobody who would.

        Parameters
        ----------
        renew
            Whether to attest anew where the broker's session has expired.

        Raises
        ------
        SealbookError
            The broker did not answer, or what it says is no appraisal.
        """

    @abstractmethod
    def key_entries(self) -> tuple[KeyEntry, ...]:
        """List the keys that this session knows of, sorted by name."""

    @property
    def attested(self) -> bool:
        """Whether the verifier accepted evidence of this kernel.

        False also where there is a result and a broker, but the kernel has no evidence: a policy can
        admit that by name.
        """
        result = self.result
        return result is not None and result.attested

    @property
    def label(self) -> str:
        """One word for displays: ``attested``, ``simulated``, ``refused`` or ``not attested``."""
        result = self.result
        return "not attested" if result is None else result.label

    @property
    def default_key(self) -> str:
        """The key used when none is named."""
        return self._default_key

    @default_key.setter
    def default_key(self, name: str) -> None:
        check_key_name(name)
        self._default_key = name
        for listener in on_default_key:
            listener(name)

    @property
    def sealer(self) -> dict[str, Any]:
        """Return what a sealed file's header says of who sealed it: public and not proof of anything."""
        result = self.result
        if result is None:
            return {"attested": False}
        if not result.attested:
            return {"attested": False, "tee": result.tee}
        return {"attested": True, "measurement": result.mrenclave, "simulated": result.simulated}

    @abstractmethod
    def cluster(self, name: str) -> Mapping[str, Any] | None:
        """Return what the user's side says of the Spark cluster `name`, or of the one to begin with.

        Parameters
        ----------
        name
            Empty for the one to begin with; None is returned when that is this machine.

        Raises
        ------
        SealbookError
            There is none of this name, or nobody to ask.
        """

    @abstractmethod
    def report(self, action: str, facts: Mapping[str, str | int]) -> None:
        """Tell the broker, where there is one, what was done with an artifact, for its audit log."""


class BrokeredSession(Session):
    """The session of a sealbook kernel: keys come from the broker that judged what it handed in.

    Parameters
    ----------
    remote
        The broker's kernel side. Its verdict is asked for once, now.
    """

    def __init__(self, remote: RemoteBroker) -> None:
        super().__init__()
        self._remote = remote
        self._result = remote.result()
        remote.on_attest.append(self._attested_anew)

    @property
    def keys(self) -> KeyProvider:  # noqa: D102 - described in Session
        return self._remote

    @property
    def result(self) -> AttestationResult:  # noqa: D102
        return self._result

    def reattest(self) -> AttestationResult:  # noqa: D102
        self._remote.attest()
        return self._result

    def _attested_anew(self, outcome: AttestationResult | SealbookError) -> None:
        """Keep a new verdict, also of an attestation that a key's release made necessary."""
        refusal = outcome if isinstance(outcome, SealbookError) else None
        if not isinstance(outcome, SealbookError):
            self._result = outcome
        for listener in list(on_attestation):
            listener(refusal)

    def appraisal(self, *, renew: bool = True) -> Appraisal:  # noqa: D102
        return self._remote.appraisal(renew=renew)

    def key_entries(self) -> tuple[KeyEntry, ...]:  # noqa: D102
        entries = (KeyEntry(key.name, key.guard, usable=True) for key in self._remote.keys())  # noqa: SIM118
        return tuple(sorted(entries, key=lambda entry: entry.name))

    def cluster(self, name: str) -> Mapping[str, Any] | None:  # noqa: D102
        return self._remote.cluster(name)

    def report(self, action: str, facts: Mapping[str, str | int]) -> None:  # noqa: D102
        self._remote.event(action, **facts)


class UnattestedSession(Session):
    """The session of every other process: only keyring keys that were made without a guard.

    Parameters
    ----------
    keyring
        Opens the user's keyring when a key is first asked for. It never asks for a passphrase: whoever has
        it gets the guarded keys too, so it does not belong into a notebook.
    """

    def __init__(self, keyring: Callable[[], Keyring] = open_keyring) -> None:
        super().__init__()
        self._keys = _UnguardedKeys(keyring)
        if named := os.environ.get(KEY_VARIABLE):
            self.default_key = named

    @property
    def keys(self) -> KeyProvider:  # noqa: D102
        return self._keys

    @property
    def result(self) -> None:  # noqa: D102
        return None

    def reattest(self) -> AttestationResult:  # noqa: D102
        raise RefusedError(f"This kernel is not attested and cannot become so; {HOW_TO_ATTEST}.")

    def appraisal(self, *, renew: bool = True) -> None:  # noqa: D102
        return None

    def key_entries(self) -> tuple[KeyEntry, ...]:  # noqa: D102
        return self._keys.entries()

    def cluster(self, name: str) -> Mapping[str, Any] | None:  # noqa: D102
        raise RefusedError(f"A process that is not attested uses no Spark cluster; {HOW_TO_ATTEST}.")

    def report(self, action: str, facts: Mapping[str, str | int]) -> None:  # noqa: D102
        pass


class _UnguardedKeys:
    """Keys of the user's keyring, as long as nothing guards them."""

    def __init__(self, keyring: Callable[[], Keyring]) -> None:
        self._open = keyring
        self._keyring: Keyring | None = None
        self._lock = threading.Lock()

    def current(self, name: str) -> SealingKey:
        return self._find(name).version()

    def get(self, name: str, version: int) -> SealingKey:
        return self._find(name).version(version)

    def entries(self) -> tuple[KeyEntry, ...]:
        return tuple(
            KeyEntry(record.name, record.guard, usable=record.guard == UNGUARDED)
            for record in self._opened().list()
        )

    def _find(self, name: str) -> StoredKey:
        check_key_name(name)
        if name.startswith(SESSION_PREFIX):
            raise KeyUnavailableError(
                f"This process is not attested, so it gets no session key such as '{name}'; {HOW_TO_ATTEST}."
            )
        stored = self._opened().find(name)
        guard = stored.record.guard
        if guard != UNGUARDED:
            raise KeyUnavailableError(
                f"The key '{name}' demands attestation (policy '{guard}') and this process is not attested; "
                f"{HOW_TO_ATTEST}."
            )
        return stored

    def _opened(self) -> Keyring:
        with self._lock:
            if self._keyring is None:
                self._keyring = self._open()
            return self._keyring


_lock = threading.Lock()
_current: Session | None = None


def current() -> Session:
    """Return this process's session; an unattested one where no kernel application attached another."""
    global _current
    with _lock:
        if _current is None:
            _current = UnattestedSession()
        return _current


def attach(remote: RemoteBroker) -> Session:
    """Make the broker behind the attested channel this process's source of keys.

    Parameters
    ----------
    remote
        See :class:`BrokeredSession`.

    Raises
    ------
    InputError
        When a broker is attached already: one process, one session.
    """
    global _current
    session = BrokeredSession(remote)
    with _lock:
        if isinstance(_current, BrokeredSession):
            raise InputError("This kernel already has a session with a broker; restart it to begin another.")
        # Nothing is taken over from a session before: its default key may come from the environment.
        _current = session
    return session


def detach() -> None:
    """Forget the session and its keys; the next :func:`current` is unattested."""
    global _current
    with _lock:
        _current = None


sealing.set_default_keys(lambda: current().keys, key=lambda: current().default_key, replace=False)
