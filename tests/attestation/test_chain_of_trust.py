"""The chain of trust as it is drawn: every check has a place, and what broke is what is shown broken."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import sealbook.attestation
from sealbook.attestation import Collateral, CollateralMemory, Policy, Refusal, UnattestedAttester, Verifier
from sealbook.attestation import policy_text as write_policy
from sealbook.attestation.chain_of_trust import Link, chain_of_trust
from sealbook.attestation.chain_places import LINKS, PLACES
from sealbook.attestation.checks import CHECKS
from sealbook.attestation.meanings import (
    described_claims,
    meaning_of_advisory,
    meaning_of_claim,
    meaning_of_status,
)
from sealbook.attestation.policy import TCB_STATUSES
from sealbook.attestation.signatures import _SENTENCES
from sealbook.attestation.simulated import CertificateSpec, Forge, QuoteSpec
from sealbook.attestation.simulated.forge import PCK_NAME, new_key, pem, tcb_level

SOURCES = Path(sealbook.attestation.__file__).parent
#: Where the name is no constant: the loop over CHECKS and over _SENTENCES, both read below.
COMPUTED = {("checks.py", "run"), ("signatures.py", "_refusal"), ("verifier.py", "verify")}


def names_in_the_sources() -> set[str]:
    """Return every name with which the verifier can refuse, from the sources of all of its modules."""
    names = {check.__name__.removeprefix("check_").replace("_", "-") for check in CHECKS}
    names |= {check for _, check, _, _ in _SENTENCES}
    for module in sorted(SOURCES.glob("*.py")):
        tree = ast.parse(module.read_text())
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "Refusal" and call.args):
                    continue
                name = call.args[0]
                if isinstance(name, ast.Constant):
                    names.add(name.value)
                elif isinstance(name, ast.Name) and name.id in constants:
                    names.add(constants[name.id])
                else:
                    assert (module.name, function.name) in COMPUTED, ast.unparse(call)
                    names |= {
                        part.value
                        for each in ast.walk(function)
                        if isinstance(each, ast.Assign)
                        and isinstance(name, ast.Name)
                        and any(isinstance(t, ast.Name) and t.id == name.id for t in each.targets)
                        for part in ast.walk(each.value)
                        if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    }
    return names


def draw(scene: Any, **arguments: Any) -> tuple[Link, ...]:
    quote = arguments.pop("quote", None) or scene.quote()
    collateral = arguments.pop("collateral", None) or scene.forge.collateral()
    policy = arguments.pop("policy", None) or scene.policy()
    result = scene.verify(quote, collateral=collateral, policy=policy, **arguments)
    return chain_of_trust(quote, collateral, policy, result, memory=scene.memory is not None)


def failed(chain: tuple[Link, ...]) -> set[tuple[str, str]]:
    return {(link.name, each.name) for link in chain for each in link.checks if each.passed is False}


def test_every_name_the_verifier_can_refuse_by_has_a_place_in_the_drawing() -> None:
    found = names_in_the_sources()
    assert {"measurement", "quote-format", "collateral-format", "chains", "signature", "tee"} <= found
    assert found == {place.check for place in PLACES}
    assert {place.link for place in PLACES} == {name for name, _ in LINKS}


def test_an_honest_quote_passes_every_check_on_every_link(scene: Any, tmp_path: Path) -> None:
    scene.memory = CollateralMemory(tmp_path / "seen.json")
    chain = draw(scene)
    assert [link.name for link in chain] == [name for name, _ in LINKS]
    assert all(link.passed for link in chain), [link for link in chain if not link.passed]
    assert [link.name for link in chain if not link.side] == [
        "Quote",
        "Quoting enclave",
        "PCK certificate",
        "PCK CA",
        "Root",
    ]
    facts = dict(chain[0].facts)
    assert facts["Measurement (MRENCLAVE)"] == scene.report.mrenclave.hex()
    assert facts["Report data"] == scene.report.report_data.hex()
    assert all(link.facts for link in chain)
    assert dict(chain[4].facts)["Fingerprint (SHA-256)"] == scene.policy().trust_root.fingerprint


def test_a_check_the_verifier_did_not_run_is_not_said_to_have_passed(scene: Any) -> None:
    named = {each.name: each for link in draw(scene, expected=None) for each in link.checks}
    assert named["report-data"].passed is None
    assert named["collateral-rollback"].passed is None
    assert named["report-data"].reason
    assert "pck-copy" not in named


def test_a_genuine_quote_of_intels_passes_up_to_intels_root(real_quotes: Path) -> None:
    folder = real_quotes / "phala_sgx"
    quote = (folder / "quote.bin").read_bytes()
    collateral = Collateral.from_json((folder / "collateral.json").read_bytes())
    now = datetime.fromtimestamp(1750330571, UTC)
    policy = Policy.parse(
        write_policy(
            mrenclave=quote[112:144],
            now=now,
            allowed_statuses=("UpToDate", "ConfigurationAndSWHardeningNeeded"),
            accepted_advisories=("INTEL-SA-00289", "INTEL-SA-00615"),
        )
    )
    result = Verifier(policy).verify(
        quote, collateral, now=now, expected_report_data=b"Hello, world!".ljust(64, b"\0")
    )
    chain = chain_of_trust(quote, collateral, policy, result)
    undecided = {each.name for link in chain for each in link.checks if each.passed is not True}
    assert undecided == {"collateral-rollback"}
    assert dict(chain[4].facts)["Subject"] == "Intel SGX Root CA"
    assert dict(chain[2].facts)["Processor (FMSPC)"] == "00a067110000"
    # Today its collateral has expired: that, and no signature, is what is shown.
    late = Verifier(replace(policy, expires=now + timedelta(days=9999))).verify(
        quote, collateral, now=now + timedelta(days=400)
    )
    broken = chain_of_trust(quote, collateral, replace(policy, expires=now + timedelta(days=9999)), late)
    assert {link for link, _ in failed(broken)} <= {"TCB info", "QE identity", "Revocation lists"}
    assert failed(broken)


def test_a_genuine_debug_quote_fails_at_the_quote(real_quotes: Path) -> None:
    quote = (real_quotes / "debug_trustee_occlum" / "quote.bin").read_bytes()
    collateral = Collateral.from_json((real_quotes / "phala_sgx" / "collateral.json").read_bytes())
    now = datetime.fromtimestamp(1750330571, UTC)
    policy = Policy.parse(write_policy(mrenclave=quote[112:144], now=now))
    chain = chain_of_trust(quote, collateral, policy, Verifier(policy).verify(quote, collateral, now=now))
    assert ("Quote", "debug") in failed(chain)


def _statement(name: str, **changes: Any) -> Callable[[Any], dict[str, Any]]:
    def change(scene: Any) -> dict[str, Any]:
        getattr(scene.forge, name).update(changes)
        return {}

    return change


def _dates(name: str, days: int) -> Callable[[Any], dict[str, Any]]:
    def change(scene: Any) -> dict[str, Any]:
        issued = scene.now + timedelta(days=days)
        until = issued + timedelta(days=30)
        getattr(scene.forge, name).update(
            issueDate=f"{issued:%Y-%m-%dT%H:%M:%SZ}", nextUpdate=f"{until:%Y-%m-%dT%H:%M:%SZ}"
        )
        return {}

    return change


def _revoke(name: str) -> Callable[[Any], dict[str, Any]]:
    def change(scene: Any) -> dict[str, Any]:
        forge = scene.forge
        serial = getattr(forge, name).serial_number
        if name == "pck":
            forge.pck_crl = forge.make_crl(forge.pck_ca_name, forge.pck_ca_key, revoked=[serial])
        else:
            forge.root_crl = forge.make_crl(forge.root_name, forge.root_key, revoked=[serial])
        return {}

    return change


def _future_list(scene: Any) -> dict[str, Any]:
    forge, issued = scene.forge, scene.now + timedelta(days=2)
    forge.pck_crl = forge.make_crl(forge.pck_ca_name, forge.pck_ca_key, issued=issued)
    return {}


def _edited(name: str) -> Callable[[Any], dict[str, Any]]:
    def change(scene: Any) -> dict[str, Any]:
        text = getattr(scene.forge.collateral(), name).replace(":17", ":18")
        return {"collateral": scene.forge.collateral(**{name: text})}

    return change


def _flipped(offset: int) -> Callable[[Any], dict[str, Any]]:
    def change(scene: Any) -> dict[str, Any]:
        raw = bytearray(scene.quote())
        raw[offset] ^= 1
        return {"quote": bytes(raw)}

    return change


def _late_pck(scene: Any) -> dict[str, Any]:
    forge = scene.forge
    spec = CertificateSpec(PCK_NAME, scene.now - timedelta(days=500), days=365, sgx=forge.sgx)
    forge.pck = spec.issue(forge.pck_key, issuer=forge.pck_ca_name, issuer_key=forge.pck_ca_key)
    return {}


def _level(status: str, above: int = 0, advisories: tuple[str, ...] = ()) -> Callable[[Any], dict[str, Any]]:
    def change(scene: Any) -> dict[str, Any]:
        sgx = scene.forge.sgx
        level = tcb_level(sgx.cpu_svn, sgx.pce_svn + above, status=status, advisories=advisories)
        scene.forge.tcb_info["tcbLevels"] = [level]
        return {}

    return change


def _stranger_pck(scene: Any) -> dict[str, Any]:
    other = Forge.create(scene.now)
    return {"quote": scene.quote(QuoteSpec(chain=pem(other.pck, scene.forge.pck_ca, scene.forge.root)))}


def _other_root(scene: Any) -> dict[str, Any]:
    other = Forge.create(scene.now)
    return {"quote": scene.quote(QuoteSpec(chain=pem(scene.forge.pck, scene.forge.pck_ca, other.root)))}


BREAKS: dict[str, tuple[Callable[[Any], dict[str, Any]], set[tuple[str, str]]]] = {
    "a byte of the report": (_flipped(48 + 320), {("Quote", "signature"), ("Quote", "report-data")}),
    "its signature": (_flipped(440), {("Quote", "signature")}),
    "another measurement": (
        lambda scene: {"quote": scene.quote(mrenclave=bytes(32))},
        {("Quote", "measurement")},
    ),
    "another product": (lambda scene: {"quote": scene.quote(isv_prod_id=9)}, {("Quote", "identity")}),
    "another challenge": (lambda scene: {"expected": bytes(64)}, {("Quote", "report-data")}),
    "the attestation key": (
        lambda scene: {"quote": scene.quote(QuoteSpec(qe_report_data=bytes(64)))},
        {("Quoting enclave", "qe-binding")},
    ),
    "the quoting enclave's report": (
        lambda scene: {"quote": scene.quote(QuoteSpec(pck_key=new_key()))},
        {("Quoting enclave", "qe-signature")},
    ),
    "another quoting enclave": (
        _statement("qe_identity", mrsigner="00" * 32),
        {("Quoting enclave", "quoting-enclave")},
    ),
    "an expired PCK": (_late_pck, {("PCK certificate", "certificate-time")}),
    "a revoked PCK": (_revoke("pck"), {("PCK certificate", "revoked")}),
    "a PCK of a stranger": (_stranger_pck, {("PCK CA", "chain")}),
    "a revoked authority": (_revoke("pck_ca"), {("PCK CA", "revoked")}),
    "another root": (_other_root, {("Root", "trust-root")}),
    "a revoked root": (_revoke("root"), {("Root", "revoked")}),
    "an edited TCB info": (_edited("tcb_info"), {("TCB info", "collateral-signature")}),
    "a TCB info from the future": (_dates("tcb_info", 1), {("TCB info", "collateral-time")}),
    "another processor's TCB info": (_statement("tcb_info", fmspc="00A067110001"), {("TCB info", "fmspc")}),
    "another PCE": (_statement("tcb_info", pceId="0001"), {("TCB info", "pce-id")}),
    "a platform below every level": (_level("UpToDate", above=1), {("TCB info", "tcb-level")}),
    "a revoked level": (_level("Revoked"), {("TCB info", "revoked")}),
    "an old platform": (_level("OutOfDate"), {("TCB info", "tcb-status")}),
    "an advisory": (_level("UpToDate", advisories=("INTEL-SA-00334",)), {("TCB info", "advisory")}),
    "another evaluation": (
        _statement("qe_identity", tcbEvaluationDataNumber=3),
        {("TCB info", "tcb-evaluation")},
    ),
    "an edited QE identity": (_edited("qe_identity"), {("QE identity", "collateral-signature")}),
    "a QE identity from the future": (_dates("qe_identity", 1), {("QE identity", "collateral-time")}),
    "a revoked signer": (_revoke("tcb_signer"), {("TCB signer", "revoked")}),
    "a list from the future": (_future_list, {("Revocation lists", "collateral-time")}),
    "lists of another authority": (
        lambda scene: {
            "collateral": scene.forge.collateral(
                pck_crl_issuer_chain=pem(scene.forge.tcb_signer, scene.forge.root).decode()
            )
        },
        {("Revocation lists", "crl-issuer")},
    ),
    "a missing list": (
        lambda scene: {"collateral": scene.forge.collateral(root_ca_crl=b"")},
        {("Revocation lists", "revocation-list")},
    ),
    "a policy of another year": (
        lambda scene: {"policy": replace(scene.policy(), expires=scene.now)},
        {("Policy", "policy")},
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_the_link_that_was_broken_is_the_one_that_is_shown_broken(scene: Any, how: str) -> None:
    change, expected = BREAKS[how]
    chain = draw(scene, **change(scene))
    assert failed(chain) == expected
    for link in chain:
        for each in link.checks:
            assert each.passed is True or each.reason.endswith("."), (link.name, each)


def test_every_link_can_be_shown_broken() -> None:
    assert {link for _, broken in BREAKS.values() for link, _ in broken} == {name for name, _ in LINKS}


def test_where_the_quote_cannot_be_read_nothing_counts_as_passed(scene: Any) -> None:
    raw = scene.quote() + b"\0"
    chain = draw(scene, quote=raw)
    assert failed(chain) == {("Quote", "quote-format")}
    assert not any(each.passed for link in chain for each in link.checks)


def test_where_the_collateral_cannot_be_read_only_the_quotes_form_counts_as_passed(scene: Any) -> None:
    chain = draw(scene, collateral=scene.forge.collateral(tcb_info="[]"))
    assert failed(chain) == {("TCB info", "collateral-format")}
    assert {each.name for link in chain for each in link.checks if each.passed} == {"quote-format"}


def test_a_check_whose_function_could_not_run_is_not_said_to_have_passed(scene: Any) -> None:
    garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 3
    chain = draw(scene, quote=scene.quote(QuoteSpec(chain=garbage)))
    assert {("TCB info", "pce"), ("PCK CA", "pck-chain")} <= failed(chain)
    checks = {(link.name, each.name): each.passed for link in chain for each in link.checks}
    assert checks["TCB info", "pce-id"] is None
    assert checks["PCK certificate", "pck-role"] is None
    assert checks["Root", "trust-root"] is None


def test_what_a_maker_or_a_forger_writes_at_length_is_cut(scene: Any) -> None:
    scene.forge.tcb_info["fmspc"] = "A" * 5000
    assert max(len(value) for link in draw(scene) for _, value in link.facts) < 250


def test_a_result_about_other_evidence_says_nothing_about_this(scene: Any) -> None:
    quote, policy, collateral = scene.quote(), scene.policy(), scene.forge.collateral()
    result = scene.verify(quote)
    for given, judged in (
        (scene.quote(isv_svn=4), policy),
        (quote, replace(policy, version=2)),
        (b"no quote", policy),
    ):
        chain = chain_of_trust(given, collateral, judged, result)
        assert not any(each.passed for link in chain for each in link.checks)


def test_what_is_no_evidence_has_no_chain(scene: Any) -> None:
    statement = UnattestedAttester().quote(bytes(64))
    policy = Policy.parse(write_policy(tee="gramine-direct", now=scene.now))
    result = Verifier(policy).verify(statement, None, now=scene.now)
    assert result.accepted
    assert chain_of_trust(statement, None, policy, result) == ()
    # A quote under a policy that wants none: refused, and no signature is said to be good.
    quote = scene.quote()
    chain = chain_of_trust(quote, None, policy, Verifier(policy).verify(quote, None, now=scene.now))
    assert failed(chain) == {("Policy", "tee")}
    assert {each.name for link in chain for each in link.checks if each.passed} == {"quote-format", "policy"}


def test_a_refusal_by_a_name_nobody_knows_is_drawn_all_the_same(scene: Any) -> None:
    result = scene.verify(expected=bytes(64))
    odd = replace(result, refusals=(Refusal("from-the-future", "It is odd.", "Ask."),))
    chain = chain_of_trust(scene.quote(), scene.forge.collateral(), scene.policy(), odd)
    assert ("Quote", "from-the-future") in failed(chain)


def test_a_refusal_that_names_no_link_counts_against_all_that_it_may_concern(scene: Any) -> None:
    result = scene.verify(expected=bytes(64))
    odd = replace(result, refusals=(Refusal("revoked", "Something was withdrawn.", "Ask."),))
    chain = chain_of_trust(scene.quote(), scene.forge.collateral(), scene.policy(), odd)
    assert {link for link, _ in failed(chain)} == {
        "PCK certificate",
        "PCK CA",
        "Root",
        "TCB info",
        "TCB signer",
    }


def test_forged_bytes_never_raise_and_what_the_verifier_refused_is_always_drawn(scene: Any) -> None:
    generator = random.Random(5)
    quote, collateral, policy = scene.quote(), scene.forge.collateral(), scene.policy()
    parts = json.loads(collateral.to_json())
    for _ in range(150):
        raw = bytearray(quote)
        for _ in range(generator.randint(1, 3)):
            raw[generator.randrange(len(raw))] ^= 1 << generator.randrange(8)
        given = dict(parts)
        name = generator.choice(sorted(given))
        if generator.random() < 0.5:
            given[name] = given[name][: generator.randrange(len(given[name]) // 2) * 2]
        evidence, statements = bytes(raw), Collateral.from_json(json.dumps(given))
        result = scene.verify(evidence, collateral=statements, policy=policy)
        chain = chain_of_trust(evidence, statements, policy, result)
        drawn = {name for _, name in failed(chain)}
        assert drawn == {refusal.check for refusal in result.refusals}
        assert len(json.dumps([link.to_dict() for link in chain])) < 60_000
    assert chain_of_trust(quote, None, policy, scene.verify(quote))


def test_every_status_a_policy_can_allow_has_a_meaning() -> None:
    unknown = meaning_of_status("SomethingNew")
    for status in (*TCB_STATUSES, "Revoked"):
        assert meaning_of_status(status) != unknown
        assert meaning_of_status(status).endswith(".")
    assert "not determined" in meaning_of_status("")


def test_an_unknown_advisory_says_where_to_read_and_invents_nothing() -> None:
    assert "Plundervolt" in meaning_of_advisory("INTEL-SA-00289")
    assert "intel-sa-99999.html" in meaning_of_advisory("INTEL-SA-99999")
    assert "Not a name" in meaning_of_advisory("<b>INTEL</b>")


def test_claims_are_described_as_text_or_in_hexadecimal() -> None:
    shown = described_claims({"kernel-curve-key": b"abc", "z": b"\x00\xff", "long": b"x" * 1000})
    assert [each["name"] for each in shown] == ["kernel-curve-key", "long", "z"]
    assert shown[0]["value"] == "abc"
    assert shown[0]["meaning"] == meaning_of_claim("kernel-curve-key")
    assert shown[2]["value"] == "00ff"
    assert len(shown[1]["value"]) < 500
