"""The policy that approves an image, written from what was measured here and not from what the image says."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sealbook.attestation import Policy, policy_text
from sealbook.errors import RefusedError, SealbookError
from sealbook.files import read_bounded
from sealbook.image.image import PROGRAM, Image
from sealbook.image.lint import lint
from sealbook.image.manifest import ANYONE, IMAGE, OWNER
from sealbook.image.measuring import measure
from sealbook.image.reading import (
    MAX_MANIFEST_BYTES,
    SIGNED_MANIFEST,
    parse_manifest,
)
from sealbook.image.sigstruct import SIGSTRUCT_BYTES, Sigstruct

#: A policy that is there and says the same is left alone while it has so long to live: its keys are bound
#: to its text.
_RENEW_BEFORE = timedelta(days=30)
_OWNER = f"file:{IMAGE}/root/{OWNER}"


def measured(image: Image) -> Sigstruct:
    """Measure an image anew, and compare that with its signature and its record.

    Returns
    -------
    Sigstruct
        Who is recorded as its signer, with the measurement that was made here.

    Raises
    ------
    RefusedError
        Gramine is missing here, the manifest is unsafe, or the measurement is another one.
    InputError
        A file of the image cannot be read.
    """
    if shutil.which("gramine-sgx-sign") is None:
        raise RefusedError(
            f"The image {image.path} cannot be measured here, for there is no gramine-sgx-sign on the PATH, "
            "and what it says of itself is no reason to approve it: install Gramine, or name with --policy "
            "a policy whose measurement you know to be right."
        )
    source = image.path / SIGNED_MANIFEST
    # Read once: what is judged is what is measured.
    manifest = read_bounded(source, "The manifest", MAX_MANIFEST_BYTES, regular=True)
    content = parse_manifest(manifest, str(source))
    objections = lint(content)
    if objections:
        raise RefusedError(f"The image {image.path} is unsafe: {objections[0]}.")
    _check_owner(image, content)
    path = image.path / f"{PROGRAM}.sig"
    signed = Sigstruct.parse(read_bounded(path, "The signature", SIGSTRUCT_BYTES, regular=True))
    found = measure(manifest)
    facts = image.facts
    recorded = (facts.mrenclave, facts.mrsigner, facts.isv_prod_id, facts.isv_svn)
    for said, is_same in (
        (path, _enclave(signed) == _enclave(found)),
        (
            image.path / "image.json",
            recorded == (found.mrenclave.hex(), signed.mrsigner.hex(), found.isv_prod_id, found.isv_svn),
        ),
    ):
        if not is_same:
            raise RefusedError(
                f"{said} says another identity than this machine's Gramine measures "
                f"({found.mrenclave.hex()[:16]}...): the image was changed, or built with another Gramine "
                f"than this ({facts.gramine}, it says); build it again with `sealbook image build --force`."
            )
    return signed


def policy_of(name: str, tee: str, enclave: Sigstruct | None, *, signed: bool, now: datetime) -> str:
    """Return the text of the policy that admits one image as a kernel of that kind, and nothing else.

    Parameters
    ----------
    name
        The image's.
    enclave
        What runs on SGX; None for a kernel that is not attested.
    signed
        Whether the policy also asks for the signer.
    """
    if enclave is None:
        return policy_text(id=f"{name}-direct", tee=tee, now=now)
    return policy_text(
        id=name,
        mrenclave=enclave.mrenclave,
        mrsigner=enclave.mrsigner if signed else None,
        isv_prod_id=enclave.isv_prod_id,
        min_isv_svn=enclave.isv_svn,
        root=None,
        now=now,
    )


def approving_policy(image: Image, tee: str, before: Path) -> str:
    """Return the text of the policy that admits an image, and nothing else.

    Parameters
    ----------
    before
        Where it will be written; what is there is kept if it says the same and is in force.

    Raises
    ------
    RefusedError, InputError
        As :func:`measured`.
    """
    enclave = measured(image) if tee == "gramine-sgx" else None

    def text(now: datetime) -> str:
        return policy_of(image.facts.name, tee, enclave, signed=True, now=now)

    now = datetime.now(UTC)
    try:
        policy = Policy.load(before)
        policy.check_valid(now)
        policy.check_valid(now + _RENEW_BEFORE)
        same = text(policy.created)
    except SealbookError:
        return text(now)
    return same if same.encode() == before.read_bytes() else text(now)


def _check_owner(image: Image, manifest: dict[str, Any]) -> None:
    """Compare the recorded owner with the measured file that the kernel reads."""
    said = hashlib.sha256((image.facts.owner or ANYONE).encode()).hexdigest()
    if {"uri": _OWNER, "sha256": said} not in manifest["sgx"]["trusted_files"]:
        raise RefusedError(
            f"The kernel of {image.path} answers to somebody else than image.json says: find out who changed "
            "it, and build the image again with `sealbook image build --force`."
        )


def _enclave(identity: Sigstruct) -> tuple[bytes, int, int, bool]:
    return identity.mrenclave, identity.isv_prod_id, identity.isv_svn, identity.debug
