"""Keys on the user's side, and the broker that releases them to enclaves that proved what they are.

- `keyring`, `stores`, `passphrase`, `pkcs11`: where keys lie and how they are unlocked; `reserved`: which of
  them are sealbook's own;
- `broker`, `session`, `rules`, `guards`, `clock`: who gets which key, and for how long;
- `audit`: the hash-chained record of every decision;
- `wire`: the messages that carry a request from an enclave to its broker;
- `service`: the broker as a network service; `client` is its other end, `certificates`, `hpke` and `tls` what
  both ends share.
"""

from __future__ import annotations

from sealbook.broker.audit import AuditError, AuditLog, AuditVerdict
from sealbook.broker.broker import DEFAULT_SESSION_KEY, Broker, ReleaseRefusedError, open_broker
from sealbook.broker.clock import ClockError, GuardedClock
from sealbook.broker.guards import load_policy, policy_file
from sealbook.broker.keyring import (
    SESSION_PREFIX,
    UNGUARDED,
    KeyRecord,
    Keyring,
    KeyVersion,
    open_keyring,
)
from sealbook.broker.passphrase import KeyringLockedError
from sealbook.broker.session import AttestedSession, SessionEndedError
from sealbook.broker.stores import MemoryStore, PassphraseFileStore, SystemKeyringStore, UnlockError
from sealbook.broker.wire import Appraisal, BrokerChannelError, BrokerEndpoint, KeyEntry, RemoteBroker

__all__ = [
    "DEFAULT_SESSION_KEY",
    "SESSION_PREFIX",
    "UNGUARDED",
    "Appraisal",
    "AttestedSession",
    "AuditError",
    "AuditLog",
    "AuditVerdict",
    "Broker",
    "BrokerChannelError",
    "BrokerEndpoint",
    "ClockError",
    "GuardedClock",
    "KeyEntry",
    "KeyRecord",
    "KeyVersion",
    "Keyring",
    "KeyringLockedError",
    "MemoryStore",
    "PassphraseFileStore",
    "ReleaseRefusedError",
    "RemoteBroker",
    "SessionEndedError",
    "SystemKeyringStore",
    "UnlockError",
    "load_policy",
    "open_broker",
    "open_keyring",
    "policy_file",
]
