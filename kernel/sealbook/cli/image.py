"""`sealbook image`: kernel images for Gramine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealbook.cli import console
from sealbook.cli.options import Force, Json, size
from sealbook.errors import InputError
from sealbook.image.roles import ROLES, role_named

if TYPE_CHECKING:
    from sealbook.image import Facts
    from sealbook.image.inspection import Inspection

#: Rows of a table that a person may still read.
_MOST_SHOWN = 100

app = typer.Typer(help="Kernel images for Gramine: what is measured, and what the host can see.")


@app.command()
def build(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory to make.", show_default="among your images, by name"),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the image.")] = "kernel",
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="kernel, data, learn or tensorflow; each brings those before it.",
            show_default="all that are installed",
        ),
    ] = None,
    package: Annotated[
        list[str] | None, typer.Option(help="One more installed package, with what it requires.")
    ] = None,
    lock: Annotated[
        Path | None, typer.Option(help="Lock file that the installed packages must agree with.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="RSA key that signs it; SGX runs only signed images.")
    ] = None,
    work: Annotated[
        str, typer.Option(help="host: the notebook's directory as it is; encrypted: only encrypted files.")
    ] = "host",
    owner: Annotated[
        str | None,
        typer.Option(
            help="Whom its kernels answer: me (your keyring), anyone, or a public key in hex.",
            show_default="me if it is signed, else anyone",
        ),
    ] = None,
    role: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(ROLES)}: a notebook's kernel, a node of a Spark cluster, or both sides."
        ),
    ] = "kernel",
    ca: Annotated[
        Path | None,
        typer.Option(
            help="Of --role spark-worker: the certificate of the authority of the broker whose clusters it "
            "joins, instead of --owner.",
        ),
    ] = None,
    tables: Annotated[
        str,
        typer.Option(
            help="Of --role spark-worker: where its nodes and their drivers have the sealed tables."
        ),
    ] = "/work",
    enclave_size: Annotated[str, typer.Option(help="Upper limit of the enclave's memory.")] = "64G",
    force: Force = False,
    json: Json = False,
) -> None:
    """Make an image from the packages installed here, and the policy that admits it."""
    from sealbook import paths
    from sealbook.image.build import Recipe
    from sealbook.image.build import build as build_image
    from sealbook.image.distributions import installed_layers

    recipe = Recipe(
        owner=_broker(owner, ca, signed=key is not None)
        if ROLES[role_named(role).name].node
        else _owner(owner or ("anyone" if key is None else "me")),
        role=role,
        tables=tables,
        name=name,
        layers=tuple(layer or installed_layers()),
        packages=tuple(package or ()),
        lock=lock,
        key=key,
        work=work,
        enclave_size=enclave_size,
    )
    image = build_image(recipe, output or paths.image_dir() / name, force=force, say=console.note)
    facts = image.facts
    if console.emit({"image": str(image.path), "mrenclave": facts.mrenclave, "mrsigner": facts.mrsigner}):
        return
    console.line(f"Image: {image.path} ({', '.join(facts.layers)}: {len(facts.packages)} packages)")
    console.line(f"Measurement: {facts.mrenclave}")
    console.line(f"Signer: {facts.mrsigner or 'not signed: say --key to run it on SGX'}")
    console.line(_answers(facts))
    console.line(f"Policies: {image.policy('gramine-sgx')}, {image.policy('gramine-direct')}")


def _answers(facts: Facts) -> str:
    """Return whom what runs in an image obeys."""
    if ROLES[facts.role].node:
        whose = (
            f"the broker with the authority {facts.owner}" if facts.owner else "any broker, also its host's"
        )
        return f"Joins the clusters of: {whose}"
    return f"Answers to: {f'the owner {facts.owner}' if facts.owner else 'anyone, also its host'}"


def _broker(owner: str | None, ca: Path | None, *, signed: bool) -> bytes | None:
    """Return the authority of the broker whose clusters a node may join."""
    from sealbook.broker.certificates import authority_id
    from sealbook.files import read_bounded

    if ca is not None:
        if owner is not None:
            raise InputError("Say --ca or --owner, not both: each names whose clusters the nodes join.")
        data = read_bounded(ca, "The authority's certificate", 16 * 1024, regular=True)
        return authority_id(data.decode("ascii", errors="replace"))
    if (owner or ("me" if signed else "anyone")) == "me":
        from sealbook.broker.certificates import Authority
        from sealbook.broker.reserved import BROKER_CA
        from sealbook.cli.keyring_access import user_keyring

        stored = user_keyring().make_reserved(
            BROKER_CA, guard=BROKER_CA, description="issues the broker's own certificate"
        )
        return authority_id(Authority(stored).pem)
    return _owner(owner or "anyone")


def _owner(text: str) -> bytes | None:
    """Return the public key of the owner that a person named."""
    from sealbook.broker.ownership import make_owner
    from sealbook.cli.keyring_access import user_keyring

    if text == "me":
        return make_owner(user_keyring())
    if text == "anyone":
        return None
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise InputError(f"'{text}' is no owner: say me, anyone, or 64 hexadecimal digits.")
    return bytes.fromhex(text)


@app.command()
def lint(
    path: Annotated[Path, typer.Argument(metavar="IMAGE_OR_MANIFEST", help="An image, or a manifest.")],
    json: Json = False,
) -> None:
    """Refuse every unsafe setting of a manifest, with its reason; exit status 1 if there is one."""
    from sealbook.image.lint import lint_path

    judged = lint_path(path)
    fine = not any(judged.values())
    document = {
        "ok": fine,
        "manifests": [
            {"path": str(each), "objections": [objection.to_dict() for objection in objections]}
            for each, objections in judged.items()
        ],
    }
    if not console.emit(document):
        for each, objections in judged.items():
            if objections:
                console.table(
                    ["setting", "found", "reason", "what to do"],
                    [(one.setting, one.found, one.reason, one.remedy) for one in objections[:_MOST_SHOWN]],
                    title=console.printable(str(each)),
                )
            if len(objections) > _MOST_SHOWN:
                console.line(f"and {len(objections) - _MOST_SHOWN} more; --json has all of them")
        if fine:
            console.line(f"{', '.join(map(str, judged))}: nothing unsafe.", "bold green")
    if not fine:
        raise typer.Exit(1)


@app.command()
def inspect(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image, as `build` makes it.")],
    json: Json = False,
) -> None:
    """Show what an image measures, what is mounted from the host, and why each is safe."""
    from sealbook.image.inspection import inspect_image

    found = inspect_image(image)
    if not console.emit(found.to_dict()):
        _show(found)


def _show(found: Inspection) -> None:
    facts = found.facts
    console.table(
        ["", ""],
        [
            ("image", f"{facts.name} ({', '.join(facts.layers) or 'no layers'})"),
            ("role", facts.role),
            ("Gramine, Python", f"{facts.gramine}, {facts.python}"),
            ("signed", "yes" if facts.signed else "no"),
            ("measurement", facts.mrenclave or "-"),
            ("signer", facts.mrsigner or "-"),
            ("product, version", f"{facts.isv_prod_id}, {facts.isv_svn}"),
            (*_answers(facts).split(": ", 1),),
            ("runs", found.entrypoint),
            ("arguments", " ".join(found.argv)),
            ("starts in", found.start_dir),
        ],
    )
    console.line("")
    console.table(
        ["measured", "files", "size"],
        [(name, group["files"], size(group["bytes"])) for name, group in sorted(facts.groups.items())]
        + [("in the manifest", found.trusted_files, "")],
    )
    packages = ", ".join(f"{name} {version}" for name, version in sorted(facts.packages.items()))
    console.line(f"packages: {packages or 'none'}")
    console.line(f"programs: {', '.join(facts.programs) or 'none'}")
    console.line("")
    console.table(["environment", "value"], sorted(found.environment.items()))
    console.line("")
    console.table(
        ["mount", "kind", "on the host", "host reads", "host changes", "why that is safe"],
        [
            (
                mount.path,
                mount.kind,
                mount.backing,
                "yes" if mount.host_reads else "no",
                "yes" if mount.host_changes else "no",
                mount.why,
            )
            for mount in found.mounts
        ],
    )
    console.line("")
    console.line("All of this holds with SGX; with gramine-direct the host can read and change everything.")
    for remark in found.remarks:
        console.line(f"- {remark}", "bold")
