"""Writes a commented policy file: for one measurement under one root, or for kernels without attestation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sealbook.attestation.policy import SCHEMA, UNATTESTED_TEES, Policy, PolicyError


def policy_text(
    *,
    mrenclave: bytes | None = None,
    root: x509.Certificate | None = None,
    now: datetime,
    tee: str = "sgx",
    id: str = "kernel",
    identity: str = "kernel",
    mrsigner: bytes | None = None,
    isv_prod_id: int | None = None,
    min_isv_svn: int | None = None,
    days: int = 365,
    keys: tuple[str, ...] = ("*",),
    allowed_statuses: tuple[str, ...] = ("UpToDate",),
    accepted_advisories: tuple[str, ...] = (),
) -> str:
    """Return the text of a policy; it is checked before it is returned.

    Parameters
    ----------
    mrenclave
        The admitted measurement, 32 bytes. None only where nothing is measured.
    root
        A simulated platform's root certificate, or None for Intel's.
    now
        Aware; the policy is in force from here for `days`.
    tee
        "sgx", or "gramine-direct" for kernels that are not attested: they have neither measurement nor
        root, and no other evidence passes.
    id, identity
        Names of the policy and of the one enclave it admits.
    mrsigner, isv_prod_id, min_isv_svn
        Asked for besides the measurement when given.
    keys
        Which of the keys this policy guards are released.

    Raises
    ------
    PolicyError
        An argument does not fit into a policy.
    """
    about_evidence = (mrenclave, root, mrsigner, isv_prod_id, min_isv_svn)
    if tee in UNATTESTED_TEES and (
        any(part is not None for part in about_evidence)
        or (allowed_statuses, accepted_advisories) != (("UpToDate",), ())
    ):
        raise PolicyError(
            f"Kernels of tee {tee!r} are not attested: a policy for them names no root, enclave or platform."
        )
    created = now.astimezone(UTC).replace(microsecond=0)
    lines = [
        "# Which evidence is good enough. `sealbook policy explain` says it in sentences.",
        "# Everything left out has its strictest value; an unknown field is refused.",
        f"schema = {SCHEMA}",
        f'id = "{id}"',
        "version = 1",
        f"created = {_time(created)}",
        f"expires = {_time(created + timedelta(days=days))}",
        f'tee = "{tee}"',
    ]
    if tee in UNATTESTED_TEES:
        lines += [
            "",
            "# NOT ATTESTED: admits kernels that prove nothing, and no others. Whoever controls the machine",
            "# they run on sees what they see, and every key that this policy guards.",
            'trust_root = "none"',
        ]
    else:
        if mrenclave is None:
            raise PolicyError("A policy for enclaves names the measurement that it admits.")
        lines += _root(root) + _enclave(identity, mrenclave, mrsigner, isv_prod_id, min_isv_svn)
        lines += _platform(allowed_statuses, accepted_advisories)
    lines += [
        "",
        "[freshness]",
        "nonce_ttl_seconds = 60",
        "",
        f"# What {'a kernel' if tee in UNATTESTED_TEES else 'evidence'} that passed may have.",
        "[release]",
        f'keys = {_list(keys)}  # of those this policy guards; "*" at the end stands for anything',
        "roles = []                   # empty: any",
        "audiences = []",
        "ttl_seconds = 43200          # then it must attest again",
        "",
    ]
    text = "\n".join(lines)
    Policy.parse(text, source="the new policy")
    return text


def _root(root: x509.Certificate | None) -> list[str]:
    if root is None:
        return ['trust_root = "intel"']
    pem = root.public_bytes(serialization.Encoding.PEM).decode()
    return [
        "",
        "# SIMULATED: the root of a platform without hardware. It shows how everything works and",
        "# protects nothing from whoever controls the machine.",
        "[trust_root]",
        "simulated = true",
        f'certificate = """\n{pem}"""',
    ]


def _enclave(
    identity: str,
    mrenclave: bytes,
    mrsigner: bytes | None,
    isv_prod_id: int | None,
    min_isv_svn: int | None,
) -> list[str]:
    lines = [
        "",
        "# The enclaves that are admitted. Every field that is given must match.",
        "[[identity]]",
        f'name = "{identity}"',
        f'mrenclave = ["{mrenclave.hex()}"]',
    ]
    if mrsigner is not None:
        lines.append(f'mrsigner = "{mrsigner.hex()}"')
    if isv_prod_id is not None:
        lines.append(f"isv_prod_id = {isv_prod_id}")
    if min_isv_svn is not None:
        lines.append(f"min_isv_svn = {min_isv_svn}")
    return [
        *lines,
        "# Instead of mrenclave: mrsigner_only = true with mrsigner, isv_prod_id and min_isv_svn.",
        "# Further: attributes_mask, attributes_value, misc_select_mask, misc_select_value, config_id.",
    ]


def _platform(allowed_statuses: tuple[str, ...], accepted_advisories: tuple[str, ...]) -> list[str]:
    return [
        "",
        "# The state of the platform.",
        "[tcb]",
        f"allowed_statuses = {_list(allowed_statuses)}",
        f"accepted_advisories = {_list(accepted_advisories)}  # any other advisory is refused",
        "rejected_advisories = []",
        "grace_seconds = 0            # for an allowed OutOfDate status, after the TCB level's date",
        "min_tcb_eval_data_number = 0",
        "equal_eval_data_numbers = true",
        "sgx_types = [0, 1, 2]        # standard, scalable, scalable with integrity",
        "allow_dynamic_platform = false",
        "allow_cached_keys = false",
        "allow_smt = false",
        "fmspc = []                   # empty: any processor",
        "ppid_allow = []              # empty: any machine",
        "ppid_deny = []",
        "platform_instance_allow = []",
        "platform_instance_deny = []",
        "",
        "# What the platform's maker says about it (TCB info, QE identity, revocation lists).",
        "[collateral]",
        "max_age_seconds = 2592000    # 30 days",
        "monotonic = true             # never older than what was seen before",
    ]


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


def _list(items: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{item}"' for item in items) + "]"
