"""`sealbook install --tee gramine-...`: offer the kernel of an image to Jupyter, under its policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sealbook.errors import InputError, RefusedError, SealbookError


def ensure_gramine(
    tee: str,
    *,
    name: str | None = None,
    prefix: str | None = None,
    image: Path | None = None,
    policy: Path | None = None,
    data: Path | None = None,
    data_key: str | None = None,
) -> dict[str, Any]:
    """Install the kernelspec and, unless one is named, the policy that was built with the image.

    Raises
    ------
    InputError, RefusedError
        There is no image, it cannot run, or the policy is for another one. Nothing was installed.
    """
    from sealbook import paths
    from sealbook.attestation import Policy
    from sealbook.image import Image
    from sealbook.image.roles import ROLES
    from sealbook.jupyter import kernelspec

    opened = Image.open((image or paths.image_dir() / "kernel").absolute())
    if ROLES[opened.facts.role].node:
        raise InputError(
            f"The image {opened.path} is one of nodes, and no kernel runs in it: `sealbook cluster up "
            "--image` starts nodes, `sealbook image build` without --role makes an image of kernels."
        )
    problems = opened.problems(tee)
    if problems:
        raise RefusedError(problems[0])
    encrypted = opened.facts.work == "encrypted"
    if encrypted and data_key is None:
        raise InputError(
            f"The image {opened.path} encrypts the notebook's directory: say with --data-key under which key."
        )
    if (data is None) != (data_key is None) and not encrypted:
        raise InputError(
            "Say both or none of --data and --data-key: a directory and the key it is encrypted under."
        )
    if data is not None and not data.is_dir():
        raise InputError(f"There is no directory {data} for --data: make it first.")
    notes = _missing_for(opened, tee)
    if policy is not None:
        path = policy.absolute()
        _check_policy(Policy.load(path), path, opened, tee)
    else:
        # A kernel of another name is of another image, and each has the policy that admits it.
        path, replaced = _approve(opened, tee, tee if name in (None, f"sealbook-{tee}") else str(name))
        notes += replaced
    name = name or f"sealbook-{tee}"
    content = kernelspec.gramine_kernel_json(
        tee,
        policy=path,
        image=opened.path,
        data=data.absolute() if data else None,
        data_key=data_key,
        name=None if name == f"sealbook-{tee}" else name,
    )
    try:
        directory = kernelspec.install(content, user=prefix is None, prefix=prefix, name=name)
    except OSError as error:
        raise InputError(f"The kernelspec cannot be written: {error.filename}: {error.strerror}.") from None
    return {
        "kernel": name,
        "tee": tee,
        "image": str(opened.path),
        "kernelspec": str(directory),
        "policy": str(path),
        "simulated": False,
        "attested": tee == "gramine-sgx",
        "notes": notes,
    }


def _missing_for(image: Any, tee: str) -> list[str]:
    """Return what this machine lacks to start the kernel; it may be installed on another one."""
    try:
        image.check_machine(tee)
    except SealbookError as error:
        return [f"Installed, but it cannot start yet: {error}"]
    return []


def _approve(image: Any, tee: str, name: str) -> tuple[Path, list[str]]:
    """Write the policy that admits what was measured here; to install is to approve."""
    from sealbook.attestation import Policy
    from sealbook.broker import policy_file
    from sealbook.cli import machine
    from sealbook.cli.keyring_access import user_audit
    from sealbook.image.approval import approving_policy

    source = image.policy(tee)
    _check_policy(Policy.load(source), source, image, tee)
    path = policy_file(name)
    # Not a copy of the image's: that one could admit further enclaves, or release more.
    kept = machine.write_policy(path, approving_policy(image, tee, path))
    measured = image.facts.mrenclave if tee == "gramine-sgx" else "none"
    user_audit().append("policy", decision="approved", policy=str(path), measurement=measured)
    return path, [f"Replaced the policy; the old one is {kept}."] if kept else []


def _check_policy(policy: Any, path: Path, image: Any, tee: str) -> None:
    """Refuse a policy that this kernel could never pass.

    Raises
    ------
    RefusedError
        It is for another kind of kernel, or for another image.
    """
    if tee == "gramine-direct":
        if policy.attested or policy.tee != tee:
            raise RefusedError(
                f"The policy {path} asks for evidence, and a kernel in gramine-direct has none: "
                "`sealbook policy init NAME --tee gramine-direct` writes one that accepts it by name."
            )
        return
    if not policy.attested or policy.simulated:
        raise RefusedError(f"The policy {path} is not for hardware: name one under Intel's root.")
    if not any(_admits(identity, image.facts) for identity in policy.identities):
        raise RefusedError(
            f"The policy {path} is for another image than {image.path}, whose measurement is "
            f"{image.facts.mrenclave[:16]}...: use the policy {image.policy(tee)}, or the image it is for."
        )


def _admits(identity: Any, facts: Any) -> bool:
    """Tell whether an enclave of this image can pass; the rest of an identity is up to the machine."""
    return (
        (identity.mrsigner_only or bytes.fromhex(facts.mrenclave) in identity.mrenclave)
        and identity.mrsigner in (None, bytes.fromhex(facts.mrsigner))
        and identity.isv_prod_id in (None, facts.isv_prod_id)
        and (identity.min_isv_svn or 0) <= facts.isv_svn
    )
