"""`sealbook verify`: one piece of evidence, or a whole evidence file, against one policy."""

from __future__ import annotations

import binascii
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealbook.cli import console
from sealbook.cli.options import Json, time
from sealbook.cli.policy import _policy_names, find
from sealbook.errors import InputError
from sealbook.files import read_bounded

if TYPE_CHECKING:
    from sealbook.attestation import AttestationResult

_MAX_QUOTE = 64 * 1024
_MAX_COLLATERAL = 4 << 20
#: The word with which somebody asks for the time that an evidence file states.
_TIME_OF_FILE = "file"


def verify(
    quote: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="An evidence file, or a quote or what a kernel gave in its place, raw or hexadecimal.",
        ),
    ],
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            "-p",
            help="Name or file of the policy; default: the one in the evidence file.",
            autocompletion=_policy_names,
        ),
    ] = None,
    collateral: Annotated[
        Path | None,
        typer.Option(
            "--collateral",
            "-c",
            help="Collateral (JSON); default: of this machine's simulated platform, or fetched for hardware.",
        ),
    ] = None,
    report_data: Annotated[
        str | None,
        typer.Option("--report-data", metavar="HEX", help="What all 64 bytes of REPORTDATA must be."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            help="ISO 8601, or 'file': the time that an evidence file states, which is its maker's word. "
            "Default: now; 'file' where the file's own policy judges.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Verify evidence; exit status 0 if the policy accepts it, 1 with all reasons if not.

    An evidence file, as JupyterLab's trust panel exports it, is verified offline, from what is in it: under
    your policy as of now, without one under its own and at the time it states.
    """
    from sealbook import paths
    from sealbook.attestation import Collateral, Policy, Quote, Verifier, is_statement
    from sealbook.attestation.endorsements import user_endorsements
    from sealbook.attestation.evidence_file import MAX_EVIDENCE_FILE_BYTES, is_evidence_file
    from sealbook.attestation.simulated import SimulatedPlatform

    content = read_bounded(quote, "The evidence", max_bytes=MAX_EVIDENCE_FILE_BYTES)
    if is_evidence_file(content):
        if collateral is not None or report_data is not None:
            raise InputError("An evidence file brings its own collateral and report data: leave them out.")
        _verify_file(content, policy, at)
        return
    if at == _TIME_OF_FILE:
        raise InputError("'--at file' is for an evidence file: only there a time is stated.")
    if len(content) > 2 * _MAX_QUOTE:
        raise InputError(f"The quote is larger than the {2 * _MAX_QUOTE} bytes that are accepted.")
    raw = _quote_bytes(content)
    if policy is None:
        _check_evidence(raw, quote)
        raise InputError("Missing option '--policy': name the policy that the evidence must satisfy.")
    judged_by = Policy.load(find(policy))
    expected = _report_data(report_data)
    now = time(at)
    statements: Collateral | None
    if collateral is not None:
        # MalformedCollateralError is a refusal where a service sends collateral; here it is a bad argument.
        try:
            statements = Collateral.from_json(
                read_bounded(collateral, "The collateral", max_bytes=_MAX_COLLATERAL)
            )
        except InputError:
            raise
        except Exception as error:
            raise InputError(str(error)) from None
    elif is_statement(raw) or not judged_by.attested:
        statements = None  # nothing is signed, so nobody has to vouch for who signed it
    elif judged_by.simulated:
        statements = SimulatedPlatform.load_or_create(paths.simulated_platform_dir()).collateral()
    else:
        statements = user_endorsements().collateral_for(Quote.parse(raw))
    result = Verifier(judged_by).verify(raw, statements, now=now, expected_report_data=expected)
    if not console.emit(result.to_dict() | {"label": result.label, "ear": result.to_ear()}):
        console.line(result.summary(), "bold green" if result.attested else "bold red")
        console.table(["", ""], _rows(result))
        for refusal in result.refusals:
            console.line(f"- {refusal.reason} {refusal.remedy}")
    if not result.accepted:
        raise typer.Exit(1)


def _verify_file(content: bytes, policy: str | None, at: str | None) -> None:
    """Verify an evidence file from its own content; nothing is asked of a network or of this machine."""
    from sealbook.attestation import Policy
    from sealbook.attestation.chain_of_trust import chain_of_trust
    from sealbook.attestation.evidence_file import EvidenceFile
    from sealbook.attestation.meanings import described_claims

    file = EvidenceFile.from_json(content)
    judged_by = None if policy is None else Policy.load(find(policy))
    # Whoever made the file chose its time, perhaps one before something expired or was revoked. Who brings a
    # policy to judge by wants to know what holds, not what once held.
    stated = at == _TIME_OF_FILE or (at is None and judged_by is None)
    verdict = file.verify(policy=judged_by, at=None if stated else time(at))
    result = verdict.result
    chain = chain_of_trust(file.evidence, file.collateral, judged_by or file.policy, result)
    document = result.to_dict() | {
        "label": result.label,
        "ear": result.to_ear(),
        "file": {
            "good": verdict.good,
            "problems": list(verdict.problems),
            "policy_from": "file" if judged_by is None else "reader",
            "time_from": "file" if stated else "reader",
            "binds": verdict.binds,
            "same_result": verdict.same_result,
            "role": file.role,
            "audience": file.audience,
            "claims": described_claims(file.claims),
        },
        "chain": [link.to_dict() for link in chain],
    }
    if not console.emit(document):
        good = verdict.good and result.attested
        console.line(result.summary(), "bold green" if good else "bold red")
        console.table(["", ""], _rows(result))
        for link in chain:
            marks = {True: "passed", False: "REFUSED", None: "not reached in full"}
            console.line(f"{'  ' if link.side else ''}{link.name}: {marks[link.passed]}")
            for check in link.checks if link.passed is None else ():
                if check.passed is None:
                    console.line(f"    not reached: {check.title} {check.reason}")
        for refusal in result.refusals:
            console.line(f"- {refusal.reason} {refusal.remedy}")
        for problem in verdict.problems:
            console.line(f"- {problem}", "bold red")
        if judged_by is None:
            root = result.root_fingerprint or "none"
            console.line(
                f"Judged by the policy in the file (digest {result.policy_digest[:16]}...), whose author is "
                f"whoever made the file; its root is {root}. With --policy you judge by your own."
            )
        if stated:
            console.line("Judged at the time that the file states; with --at at another.")
    if not verdict.good:
        raise typer.Exit(1)


def _rows(result: AttestationResult) -> list[tuple[str, str]]:
    judged = ("judged at", f"{result.verified_at:%Y-%m-%d %H:%M:%S} UTC")
    if result.root == "none":
        return [("runs in", result.tee), ("root", "none: proves nothing"), judged]
    return [
        ("measurement", result.mrenclave or "-"),
        ("signer", result.mrsigner or "-"),
        ("product, version", f"{result.isv_prod_id}, {result.isv_svn}" if result.mrenclave else "-"),
        ("TCB status", result.tcb_status or "-"),
        ("advisories", ", ".join(result.advisories) or "-"),
        ("root", f"{result.root} ({result.root_fingerprint[:16]}...)"),
        ("report data", "compared" if result.bound else "not compared: proves no channel"),
        judged,
    ]


def _check_evidence(raw: bytes, path: Path) -> None:
    """Raise InputError unless it is evidence at all: most who bring no policy have an evidence file."""
    from sealbook.attestation import (
        MalformedQuoteError,
        MalformedStatementError,
        Quote,
        UnattestedStatement,
        is_statement,
    )

    try:
        if is_statement(raw):
            UnattestedStatement.parse(raw)
        else:
            Quote.parse(raw)
    except (MalformedQuoteError, MalformedStatementError):
        raise InputError(
            f"{path} is neither an evidence file nor a quote, or not the whole of one: export it again."
        ) from None


def _quote_bytes(content: bytes) -> bytes:
    """Take hexadecimal text for what it says; a raw quote begins with 03 00 and is no text."""
    if content and re.fullmatch(rb"[0-9a-fA-F\s]+", content):
        try:
            return binascii.unhexlify(b"".join(content.split()))
        except binascii.Error:
            raise InputError("The quote is hexadecimal with a digit missing.") from None
    return content


def _report_data(text: str | None) -> bytes | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{128}", text):
        raise InputError("--report-data takes 128 hexadecimal digits, all 64 bytes.")
    return bytes.fromhex(text)
