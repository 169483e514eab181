"""`sealbook verify`: one piece of evidence against one policy."""

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


def verify(
    quote: Annotated[
        Path, typer.Argument(help="The quote, or what a kernel gave in its place: raw bytes or hexadecimal.")
    ],
    policy: Annotated[
        str,
        typer.Option("--policy", "-p", help="Name or file of the policy.", autocompletion=_policy_names),
    ],
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
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="ISO 8601; default: now.")] = None,
    json: Json = False,
) -> None:
    """Verify evidence; exit status 0 if the policy accepts it, 1 with all reasons if not."""
    from sealbook import paths
    from sealbook.attestation import Collateral, Policy, Quote, Verifier, is_statement
    from sealbook.attestation.endorsements import user_endorsements
    from sealbook.attestation.simulated import SimulatedPlatform

    raw = _quote_bytes(read_bounded(quote, "The quote", max_bytes=2 * _MAX_QUOTE))
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
