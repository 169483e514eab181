"""Reads a policy's TOML strictly: every field by kind, nothing unknown, errors with line and cause."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sealbook.attestation.policy import (
    BASE_ATTRIBUTES_MASK,
    BASE_ATTRIBUTES_VALUE,
    INTEL_ROOT,
    MAX_POLICY_BYTES,
    NO_ROOT,
    SCHEMA,
    SIMULATED_MARK,
    TCB_STATUSES,
    TEES,
    UNATTESTED_TEES,
    CollateralRules,
    FreshnessRules,
    Identity,
    Policy,
    PolicyError,
    ReleaseRules,
    TcbRules,
    TrustRoot,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DAY = 24 * 3600
#: Ten years. Longer times mean nothing, and far longer ones cannot be added to a date.
_LONGEST = 10 * 365 * _DAY


def read_policy(text: str, source: str) -> Policy:
    """Check `text`; see :meth:`sealbook.attestation.policy.Policy.parse`."""
    return _Reader(text, source).policy()


class _Reader:
    """Turns TOML text into a :class:`Policy`, or into a :class:`PolicyError` with a line."""

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._text = text

    def policy(self) -> Policy:
        if len(self._text) > MAX_POLICY_BYTES:
            raise PolicyError(f"{self._source}: longer than the {MAX_POLICY_BYTES} bytes a policy may have.")
        try:
            document = tomllib.loads(self._text)
        except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
            raise PolicyError(f"{self._source}: not TOML: {str(error).partition(chr(10))[0]}.") from None
        top = _Table(self, "", document)
        schema = top.integer("schema", required=True, low=0)
        if schema != SCHEMA:
            raise self.error(
                f"schema {schema} is not known; this version of sealbook reads schema {SCHEMA}", "", "schema"
            )
        tee = top.choice("tee", TEES)
        unattested = tee in UNATTESTED_TEES
        if unattested:
            self._refuse_what_evidence_would_meet(top, tee)
        policy = Policy(
            id=top.name("id"),
            version=top.integer("version", default=1, low=1),
            created=top.time("created"),
            expires=top.time("expires"),
            tee=tee,
            trust_root=self._no_root(top, tee) if unattested else self._trust_root(top),
            identities=() if unattested else self._identities(top),
            tcb=self._tcb(top.table("tcb")),
            collateral=self._collateral(top.table("collateral")),
            freshness=self._freshness(top.table("freshness")),
            release=self._release(top.table("release")),
        )
        top.finish()
        if policy.expires <= policy.created:
            raise self.error("it expires before it is created", "", "expires")
        return policy

    def error(self, cause: str, table: str, key: str | None) -> PolicyError:
        line = _line_of(self._text, table, key)
        where = f"{self._source}, line {line}" if line else self._source
        return PolicyError(f"{where}: {cause}.")

    def _refuse_what_evidence_would_meet(self, top: _Table, tee: str) -> None:
        """Refuse demands that a kernel without evidence passes unseen, so that nobody relies on them."""
        for name in ("identity", "tcb", "collateral"):
            if top.take(name) is not None:
                raise self.error(
                    f"[{name}] asks for something of evidence, and kernels of tee = {tee!r} have none; "
                    "remove it",
                    "",
                    name,
                )

    def _no_root(self, top: _Table, tee: str) -> TrustRoot:
        if top.take("trust_root") != "none":
            raise self.error(
                f'kernels of tee = {tee!r} are not attested, which must be said with trust_root = "none"',
                "",
                "trust_root",
            )
        return NO_ROOT

    def _trust_root(self, top: _Table) -> TrustRoot:
        value = top.take("trust_root")
        if value == "none":
            raise self.error(
                f'trust_root = "none" goes with tee = {_or([repr(tee) for tee in UNATTESTED_TEES])} only, '
                "whose kernels are not attested",
                "",
                "trust_root",
            )
        if value is None:
            raise self.error(
                'trust_root is missing; write trust_root = "intel" or a [trust_root] table that pins a '
                "simulated root",
                "",
                None,
            )
        if value == "intel":
            return INTEL_ROOT
        if not isinstance(value, dict):
            raise self.error('trust_root is "intel" or a table with a certificate', "", "trust_root")
        table = _Table(self, "trust_root", value)
        text = table.string("certificate", required=True)
        declared = table.boolean("simulated", default=False)
        table.finish()
        try:
            (certificate,) = x509.load_pem_x509_certificates(text.encode())
        except ValueError:
            raise self.error(
                "the root certificate is not one PEM certificate", "trust_root", "certificate"
            ) from None
        der = certificate.public_bytes(serialization.Encoding.DER)
        if _is_intels(certificate):
            if declared:
                raise self.error(
                    "this is Intel's root, which is not simulated; remove `simulated`",
                    "trust_root",
                    "simulated",
                )
            return INTEL_ROOT
        if not declared:
            raise self.error(
                "this root is not Intel's; only a simulated platform has another one, and that must be said "
                "with simulated = true",
                "trust_root",
                "certificate",
            )
        problem = _unfit_root(certificate)
        if problem:
            raise self.error(problem, "trust_root", "certificate")
        return TrustRoot("simulated", der)

    def _identities(self, top: _Table) -> tuple[Identity, ...]:
        value = top.take("identity")
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            raise self.error("no enclave is admitted; add at least one [[identity]]", "", "identity")
        identities = tuple(
            self._identity(_Table(self, "identity", item, number)) for number, item in enumerate(value)
        )
        names = [identity.name for identity in identities]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise self.error(f"the name {name!r} is used twice", f"identity#{number}", "name")
        return identities

    def _identity(self, table: _Table) -> Identity:
        identity = Identity(
            name=table.name("name"),
            mrenclave=tuple(bytes.fromhex(x) for x in table.hexes("mrenclave", 32)),
            mrsigner=table.hex("mrsigner", 32),
            isv_prod_id=table.optional_integer("isv_prod_id", high=0xFFFF),
            min_isv_svn=table.optional_integer("min_isv_svn", high=0xFFFF),
            mrsigner_only=table.boolean("mrsigner_only", default=False),
            attributes_mask=table.hex("attributes_mask", 16) or bytes(16),
            attributes_value=table.hex("attributes_value", 16) or bytes(16),
            misc_select_mask=table.integer("misc_select_mask", default=0, high=0xFFFFFFFF),
            misc_select_value=table.integer("misc_select_value", default=0, high=0xFFFFFFFF),
            config_id=table.hex("config_id", 64) or bytes(64),
        )
        table.finish()
        if identity.mrsigner_only:
            if identity.mrenclave:
                raise table.error("mrsigner_only contradicts mrenclave; keep one of them", "mrsigner_only")
            if identity.mrsigner is None or identity.isv_prod_id is None or identity.min_isv_svn is None:
                raise table.error(
                    "mrsigner_only needs mrsigner, isv_prod_id and min_isv_svn", "mrsigner_only"
                )
        elif not identity.mrenclave:
            raise table.error(
                "mrenclave is missing; to admit every enclave of a signer say mrsigner_only = true", "name"
            )
        if _outside(identity.attributes_value, identity.attributes_mask):
            raise table.error("attributes_value has bits outside attributes_mask", "attributes_value")
        if identity.misc_select_value & ~identity.misc_select_mask:
            raise table.error("misc_select_value has bits outside misc_select_mask", "misc_select_value")
        flags_mask = int.from_bytes(identity.attributes_mask[:8], "little") & BASE_ATTRIBUTES_MASK
        flags_value = int.from_bytes(identity.attributes_value[:8], "little")
        if (flags_value ^ BASE_ATTRIBUTES_VALUE) & flags_mask:
            raise table.error(
                "it asks for a debug, uninitialised or 32-bit enclave, or one with the provisioning or "
                "launch key, which is never admitted",
                "attributes_value",
            )
        return identity

    def _tcb(self, table: _Table) -> TcbRules:
        rules = TcbRules(
            allowed_statuses=table.choices("allowed_statuses", TCB_STATUSES, default=("UpToDate",)),
            accepted_advisories=table.strings("accepted_advisories"),
            rejected_advisories=table.strings("rejected_advisories"),
            grace_seconds=table.integer("grace_seconds", default=0, high=_LONGEST),
            min_tcb_eval_data_number=table.integer("min_tcb_eval_data_number", default=0, high=2**31),
            equal_eval_data_numbers=table.boolean("equal_eval_data_numbers", default=True),
            sgx_types=table.integers("sgx_types", default=(0, 1, 2), high=255),
            allow_dynamic_platform=table.boolean("allow_dynamic_platform", default=False),
            allow_cached_keys=table.boolean("allow_cached_keys", default=False),
            allow_smt=table.boolean("allow_smt", default=False),
            fmspc=table.hexes("fmspc", 6),
            ppid_allow=table.hexes("ppid_allow", 16),
            ppid_deny=table.hexes("ppid_deny", 16),
            platform_instance_allow=table.hexes("platform_instance_allow", 16),
            platform_instance_deny=table.hexes("platform_instance_deny", 16),
        )
        table.finish()
        if not rules.allowed_statuses:
            raise table.error("no TCB status is allowed, so nothing could pass", "allowed_statuses")
        return rules

    def _collateral(self, table: _Table) -> CollateralRules:
        rules = CollateralRules(
            max_age_seconds=table.integer("max_age_seconds", default=30 * _DAY, low=1, high=_LONGEST),
            min_issue_date=table.optional_time("min_issue_date"),
            monotonic=table.boolean("monotonic", default=True),
        )
        table.finish()
        return rules

    def _freshness(self, table: _Table) -> FreshnessRules:
        rules = FreshnessRules(
            nonce_ttl_seconds=table.integer("nonce_ttl_seconds", default=60, low=1, high=3600)
        )
        table.finish()
        return rules

    def _release(self, table: _Table) -> ReleaseRules:
        rules = ReleaseRules(
            keys=table.strings("keys"),
            roles=table.strings("roles"),
            audiences=table.strings("audiences"),
            max_uses=table.optional_integer("max_uses", low=1, high=2**31),
            ttl_seconds=table.integer("ttl_seconds", default=12 * 3600, low=1, high=_LONGEST),
            max_sessions=table.optional_integer("max_sessions", low=1, high=2**31),
        )
        table.finish()
        for pattern in rules.keys:
            if "*" in pattern[:-1]:
                raise table.error(f"in {pattern!r} the * may only stand at the end", "keys")
        return rules


class _Table:
    """One TOML table: takes fields out by kind, then refuses what is left."""

    def __init__(
        self, reader: _Reader, name: str, values: Mapping[str, Any], number: int | None = None
    ) -> None:
        self._reader = reader
        self._name = name
        self._place = name if number is None else f"{name}#{number}"
        self._values = dict(values)

    def error(self, cause: str, key: str | None) -> PolicyError:
        return self._reader.error(cause, self._place, key)

    def take(self, key: str) -> Any:
        return self._values.pop(key, None)

    def finish(self) -> None:
        for key in self._values:
            where = f" in [{self._name}]" if self._name else ""
            raise self.error(f"unknown field {key!r}{where}", key)

    def table(self, key: str) -> _Table:
        value = self.take(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.error(f"{key} is a table, [{key}]", key)
        return _Table(self._reader, key, value)

    def string(self, key: str, *, required: bool = False) -> str:
        value = self.take(key)
        if value is None and required:
            raise self.error(f"{key} is missing", None)
        if not isinstance(value, str):
            raise self.error(f"{key} is a text in quotes", key)
        return value

    def name(self, key: str) -> str:
        value = self.string(key, required=True)
        if not _NAME.fullmatch(value):
            raise self.error(f"{key} has letters, digits, dot, dash and underscore only, at most 64", key)
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.string(key, required=True)
        if value not in choices:
            raise self.error(f"{key} is {_or([repr(c) for c in choices])}, not {value[:40]!r}", key)
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(f"{key} is true or false", key)
        return value

    def optional_integer(self, key: str, *, low: int = 0, high: int = 2**40) -> int | None:
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(f"{key} is a whole number from {low} to {high}", key)
        return value

    def integer(
        self, key: str, *, default: int = 0, required: bool = False, low: int = 0, high: int = 2**40
    ) -> int:
        value = self.optional_integer(key, low=low, high=high)
        if value is None and required:
            raise self.error(f"{key} is missing", None)
        return default if value is None else value

    def integers(self, key: str, *, default: tuple[int, ...], high: int) -> tuple[int, ...]:
        value = self.take(key)
        if value is None:
            return default
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x <= high for x in value)
        ):
            raise self.error(f"{key} is a list of whole numbers from 0 to {high}", key)
        return tuple(value)

    def strings(self, key: str) -> tuple[str, ...]:
        value = self.take(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(x, str) and 0 < len(x) <= 256 for x in value):
            raise self.error(f"{key} is a list of texts in quotes", key)
        return tuple(value)

    def choices(self, key: str, choices: tuple[str, ...], *, default: tuple[str, ...]) -> tuple[str, ...]:
        if key not in self._values:
            return default
        value = self.strings(key)
        for item in value:
            if item not in choices:
                raise self.error(f"{key} has {item[:40]!r}; possible are {', '.join(choices)}", key)
        return value

    def hex(self, key: str, size: int) -> bytes | None:
        if key not in self._values:
            return None
        value = self.string(key)
        if not re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", value):
            raise self.error(f"{key} is {2 * size} hexadecimal digits", key)
        return bytes.fromhex(value)

    def hexes(self, key: str, size: int) -> tuple[str, ...]:
        values = self.strings(key)
        for value in values:
            if not re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", value):
                raise self.error(f"{key} is a list of {2 * size} hexadecimal digits each", key)
        return tuple(value.lower() for value in values)

    def optional_time(self, key: str) -> datetime | None:
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise self.error(f"{key} is a time with zone, such as 2026-11-23T00:00:00Z, without quotes", key)
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise self.error(f"{key} is a time that does not exist in UTC", key) from None

    def time(self, key: str) -> datetime:
        value = self.optional_time(key)
        if value is None:
            raise self.error(f"{key} is missing", None)
        return value


_HEADER_LINE = re.compile(r"\s*\[\[?\s*([A-Za-z0-9_.-]+)\s*\]\]?\s*(?:#.*)?$")
_KEY_LINE = re.compile(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*[.=]")


def _line_of(text: str, table: str, key: str | None) -> int | None:
    """Find the line of a field (tomllib does not tell): by header and by ``key =``, or the header itself."""
    name, _, number = table.partition("#")
    wanted = int(number or 0)
    current, seen, header_line = "", -1, None
    for line_number, line in enumerate(text.splitlines(), 1):
        header = _HEADER_LINE.match(line)
        if header:
            current = header.group(1)
            if current == name:
                seen += 1
                if seen == wanted:
                    header_line = line_number
            if key is not None and not name and current.partition(".")[0] == key:
                return line_number
            continue
        here = current == name and (not name or seen == wanted)
        match = _KEY_LINE.match(line)
        if here and key is not None and match and match.group(1) == key:
            return line_number
    return header_line


def _is_intels(certificate: x509.Certificate) -> bool:
    return _spki(certificate) == _spki(INTEL_ROOT.certificate)


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _unfit_root(certificate: x509.Certificate) -> str | None:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if not names or SIMULATED_MARK not in str(names[0].value):
        return f"a simulated root's common name must contain {SIMULATED_MARK}, so that nobody is misled"
    try:
        key = certificate.public_key()
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(certificate)
    except Exception:  # every way in which a certificate can be unfit has its own exception
        return "the root certificate is not a self-signed certificate authority"
    if not constraints.ca or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        return "the root certificate is not a certificate authority with a P-256 key"
    return None


def _outside(value: bytes, mask: bytes) -> bool:
    return bool(int.from_bytes(value, "little") & ~int.from_bytes(mask, "little"))


def _or(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} or {last}" if most else last
