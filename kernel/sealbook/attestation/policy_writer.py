"""Writes a policy object as TOML that reads back with the same digest; for people there is policy_text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives import serialization

from sealbook.attestation.policy import SCHEMA, CollateralRules, Policy, PolicyError, TcbRules


def write_policy(policy: Policy) -> str:
    """Return TOML that :meth:`Policy.parse` turns into a policy of the same digest.

    Comments and layout of the file that the policy was read from are not kept; they are not part of its
    digest either.

    Raises
    ------
    PolicyError
        The object was not made from a policy's text and has no such form.
    """
    text = "\n".join(_lines(policy)) + "\n"
    if Policy.parse(text, source="the written policy").digest != policy.digest:
        raise PolicyError(f"The policy {policy.id!r} cannot be written as a file.")
    return text


def _lines(policy: Policy) -> Iterator[str]:
    yield f"schema = {SCHEMA}"
    for name in ("id", "version", "created", "expires", "tee"):
        yield f"{name} = {_value(getattr(policy, name))}"
    tables: dict[str, Mapping[str, Any]] = {
        "freshness": asdict(policy.freshness),
        "release": asdict(policy.release),
    }
    if policy.attested:
        if policy.trust_root.kind == "intel":
            yield 'trust_root = "intel"'
        else:
            pem = policy.trust_root.certificate.public_bytes(serialization.Encoding.PEM).decode()
            tables["trust_root"] = {"simulated": True, "certificate": pem}
        tables |= {"tcb": asdict(policy.tcb), "collateral": asdict(policy.collateral)}
    else:
        yield 'trust_root = "none"'
        # Such a policy cannot say anything of evidence, so there must be nothing to say.
        if policy.tcb != TcbRules() or policy.collateral != CollateralRules():
            raise PolicyError(
                f"The policy {policy.id!r} asks for something of evidence that it does not admit."
            )
    for name, values in tables.items():
        yield f"[{name}]"
        yield from _pairs(values)
    for identity in policy.identities:
        yield "[[identity]]"
        yield from _pairs({part.name: getattr(identity, part.name) for part in fields(identity)})


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        # What is None is left out, and so is an empty list: both are what is read where nothing stands.
        if value is not None and value != ():
            yield f"{name} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return _value(value.hex())
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    # JSON's escapes are TOML's, but TOML wants DEL escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
