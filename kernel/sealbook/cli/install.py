"""`sealbook install`: approve the code that is installed here and offer its kernel to Jupyter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sealbook.cli import console
from sealbook.cli.install_gramine import ensure_gramine
from sealbook.cli.options import Json
from sealbook.errors import InputError, RefusedError

#: Kind of kernel -> how it is called.
KINDS = {
    "simulated": "simulated enclave",
    "gramine-sgx": "SGX enclave",
    "gramine-direct": "in Gramine without SGX, not attested",
}


def install(
    user: Annotated[bool, typer.Option("--user", help="For this user (the default).")] = False,
    sys_prefix: Annotated[bool, typer.Option("--sys-prefix", help="Into this Python environment.")] = False,
    prefix: Annotated[Path | None, typer.Option(help="Into this environment.")] = None,
    tee: Annotated[
        str, typer.Option(help="simulated, gramine-sgx, or gramine-direct (for development, not attested).")
    ] = "simulated",
    name: Annotated[
        str | None, typer.Option(help="Name of the kernel.", show_default="sealbook- and the tee")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Use this policy instead of one for this machine or image.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="The image of a Gramine kernel.", show_default="the one `image build` made"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Directory that a Gramine kernel sees, encrypted, as /data.")
    ] = None,
    data_key: Annotated[str | None, typer.Option(help="Name of the key that opens --data.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing when all is well.")] = False,
    json: Json = False,
) -> None:
    """Install a kernel, with a policy that admits its code: the one installed here, or an image's."""
    if user + sys_prefix + (prefix is not None) > 1:
        raise InputError("Say one of --user, --sys-prefix and --prefix.")
    if tee not in KINDS:
        raise InputError(f"'{tee}' is not a kind of kernel: say {', '.join(KINDS)}.")
    where = sys.prefix if sys_prefix else str(prefix) if prefix else None
    name = name or f"sealbook-{tee}"
    _check_name(name)
    if tee == "simulated":
        if image or data or data_key:
            raise InputError("--image, --data and --data-key are for Gramine kernels: say which with --tee.")
        done = ensure(name=name, prefix=where, policy=policy, approve=True)
    else:
        done = ensure_gramine(
            tee, name=name, prefix=where, image=image, policy=policy, data=data, data_key=data_key
        )
    if console.emit(done):
        return
    # That other code is admitted now is said in any case.
    for sentence in done["notes"]:
        console.note(sentence)
    if quiet:
        return
    console.line(f"Kernel '{name}' ({KINDS[tee]}): {done['kernelspec']}")
    console.line(f"Policy: {done['policy']}")


def ensure(
    *, name: str, prefix: str | None = None, policy: Path | None = None, approve: bool = False
) -> dict[str, Any]:
    """Make policy and kernelspec fit this installation.

    Parameters
    ----------
    approve
        The person asked to install: replace a policy that does not admit the code installed now, and
        install the kernelspec also if one that fits is found somewhere.

    Raises
    ------
    RefusedError
        There is a policy, it does not fit, and nobody asked to replace it.
    """
    from sealbook.attestation import Policy
    from sealbook.cli import machine
    from sealbook.cli.keyring_access import user_audit
    from sealbook.jupyter import kernelspec

    _check_name(name)
    notes: list[str] = []
    if policy is not None:
        path = policy.absolute()
        if not Policy.load(path).simulated:
            raise InputError(
                f"The policy {path} is not for a simulated platform, and the kernel '{name}' is simulated."
            )
    else:
        path = machine.policy_path()
        fit = machine.check_policy(path, machine.measure_kernel())
        if not fit.ok and path.exists() and not approve:
            raise RefusedError(f"The policy does not fit this installation: {fit.detail}; {fit.remedy}.")
        if not fit.ok:
            measured = machine.measure_settled()
            kept = machine.write_policy(path, machine.simulated_policy_text(measured))
            user_audit().append(
                "policy", decision="approved", policy=str(path), measurement=measured.mrenclave.hex()
            )
            if kept is not None:
                notes.append(f"Replaced the policy, because {fit.detail}; the old one is {kept}.")
    if approve or not machine.check_kernelspec(name, path).ok:
        try:
            directory = kernelspec.install(
                kernelspec.kernel_json(path), user=prefix is None, prefix=prefix, name=name
            )
        except OSError as error:
            raise InputError(
                f"The kernelspec cannot be written: {error.filename}: {error.strerror}."
            ) from None
    else:
        directory = Path(machine.check_kernelspec(name, path).detail)
    return {
        "kernel": name,
        "kernelspec": str(directory),
        "policy": str(path),
        "simulated": True,
        "notes": notes,
    }


def _check_name(name: str) -> None:
    from jupyter_client.kernelspec import _is_valid_kernel_name

    if not _is_valid_kernel_name(name):
        raise InputError(f"'{name}' is not a kernel name: use letters, digits, '.', '_' and '-'.")
