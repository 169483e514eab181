"""The policy and the kernelspec of this machine: whether they are there, fit, and how they are made."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256

from sealbook import files, paths
from sealbook.attestation import Policy, policy_text
from sealbook.attestation.simulated import (
    ISV_PROD_ID,
    ISV_SVN,
    Measurement,
    SimulatedPlatform,
    settle_bytecode,
)
from sealbook.errors import SealbookError
from sealbook.simulated_loader import measure_kernel

#: Name of the policy of this machine's simulated platform, as guards of keys name it.
SIMULATED_POLICY = "simulated"


@dataclass(frozen=True)
class Fit:
    """Whether something is as it must be, why not, and what to do."""

    ok: bool
    detail: str
    remedy: str = ""


def policy_path() -> Path:
    """Return where the policy of this machine's simulated platform lies."""
    return paths.policy_dir() / f"{SIMULATED_POLICY}.toml"


def measure_settled() -> Measurement:
    """Compile what has no byte code yet, then measure what a kernel of this installation runs."""
    settle_bytecode()
    return measure_kernel()


def simulated_policy_text(
    measurement: Measurement, *, name: str = SIMULATED_POLICY, days: int = 365, keys: tuple[str, ...] = ("*",)
) -> str:
    """Return the text of a policy for `measurement` under this machine's simulated root."""
    platform = SimulatedPlatform.load_or_create(paths.simulated_platform_dir())
    return policy_text(
        id=name,
        mrenclave=measurement.mrenclave,
        mrsigner=platform.mrsigner,
        isv_prod_id=ISV_PROD_ID,
        min_isv_svn=ISV_SVN,
        root=platform.root_certificate,
        now=datetime.now(UTC),
        days=days,
        keys=keys,
    )


def check_policy(path: Path, measurement: Measurement) -> Fit:
    """Tell whether the policy at `path` admits the kernel of this installation, now."""
    remedy = "`sealbook install` writes one"
    if not path.is_file():
        return Fit(False, f"{path} is missing", remedy)
    try:
        policy = Policy.load(path)
        policy.check_valid(datetime.now(UTC))
    except SealbookError as error:
        return Fit(False, str(error), remedy)
    platform = SimulatedPlatform.load_or_create(paths.simulated_platform_dir())
    if policy.trust_root.fingerprint != platform.root_certificate.fingerprint(SHA256()).hex():
        return Fit(False, f"{path} is for another platform", remedy)
    admitted = {mrenclave for identity in policy.identities for mrenclave in identity.mrenclave}
    if measurement.mrenclave not in admitted:
        return Fit(
            False,
            f"installed code changed: measurement {measurement.mrenclave.hex()[:16]}... is not in {path}",
            "if you changed it, `sealbook install` approves it",
        )
    return Fit(True, f"{path}, measurement {measurement.mrenclave.hex()[:16]}... (simulated)")


def write_policy(path: Path, text: str) -> Path | None:
    """Write a policy; returns where the one before it was kept, if it was another."""
    before = path.read_bytes() if path.exists() else None
    kept = None
    if before is not None and before != text.encode():
        kept = path.with_name(path.name + ".old")
        files.write_bytes(kept, before, mode=0o600)
    files.write_bytes(path, text.encode(), mode=0o600)
    return kept


def check_kernelspec(name: str, policy: Path) -> Fit:
    """Tell whether the kernelspec `name` starts this installation's kernel under `policy`."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    remedy = "`sealbook install` makes it"
    try:
        spec = KernelSpecManager().get_kernel_spec(name)
    except NoSuchKernel:
        return Fit(False, f"there is no kernelspec '{name}'", remedy)
    except (json.JSONDecodeError, OSError):
        return Fit(False, f"the kernelspec '{name}' is damaged", remedy)
    provisioner = spec.metadata.get("kernel_provisioner", {})
    if not spec.argv or spec.argv[0] != sys.executable:
        return Fit(False, f"{spec.resource_dir} starts another Python, {spec.argv[:1]}", remedy)
    if provisioner.get("config", {}).get("policy") != str(policy):
        return Fit(False, f"{spec.resource_dir} names another policy", remedy)
    return Fit(True, spec.resource_dir)
