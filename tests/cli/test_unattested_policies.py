"""The commands about kernels that are not attested say so, each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealbook.attestation import Policy, UnattestedAttester

from .test_commands import MEASUREMENT

WANTED = bytes(range(64))


@pytest.fixture
def statement(run, home) -> Path:
    path = Path("evidence.json")
    path.write_bytes(UnattestedAttester().quote(WANTED))
    return path


def test_a_policy_for_such_kernels_is_written_and_says_what_it_admits(run, home):
    outcome = run("policy", "init", "dev", "--tee", "gramine-direct", "--key", "dev/*")
    assert "not attested" in outcome.err
    policy = Policy.load(home / "policies" / "dev.toml")
    assert (policy.id, policy.tee, policy.attested) == ("dev", "gramine-direct", False)
    assert policy.release.keys == ("dev/*",)
    assert "NOT ATTESTED" in run("policy", "explain", "dev").out
    document = run("policy", "explain", "dev", "--json").json
    assert (document["attested"], document["simulated"], document["tee"]) == (False, False, "gramine-direct")
    run("policy", "init", "sim", "--mrenclave", MEASUREMENT)
    rows = {row["name"]: row for row in run("policy", "list", "--json").json["policies"]}
    assert (rows["dev"]["root"], rows["dev"]["tee"]) == ("none", "gramine-direct")
    assert (rows["sim"]["root"], rows["sim"]["tee"]) == ("simulated", "sgx")
    assert "none: not attested" in run("policy", "list").out


def test_it_is_named_after_its_tee_when_no_name_is_given(run, home):
    made = run("policy", "init", "--tee", "gramine-direct", "--json").json
    assert made["path"] == str(home / "policies" / "gramine-direct.toml")
    assert (made["attested"], made["simulated"]) == (False, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--intel", "--mrenclave", MEASUREMENT), "leave out --intel and --mrenclave"),
        (("--mrenclave", MEASUREMENT), "leave out --intel and --mrenclave"),
    ],
)
def test_nothing_about_evidence_goes_into_it(run, home, arguments, said):
    assert said in run("policy", "init", "dev", "--tee", "gramine-direct", *arguments, status=2).err
    assert not (home / "policies" / "dev.toml").exists()


@pytest.mark.parametrize("tee", ["gramine-sgx", "none", "", "SGX"])
def test_another_tee_is_refused(run, tee):
    assert "is not a tee: say sgx or gramine-direct" in run("policy", "init", "x", "--tee", tee, status=2).err


def test_the_policy_of_the_simulated_kernel_does_not_become_one_of_them(run, home):
    run("policy", "init", "simulated", "--mrenclave", MEASUREMENT)
    before = (home / "policies" / "simulated.toml").read_text()
    outcome = run("policy", "init", "simulated", "--tee", "gramine-direct", "--force", status=2)
    assert "choose another name" in outcome.err
    assert (home / "policies" / "simulated.toml").read_text() == before


def test_evidence_that_is_none_is_admitted_by_name_and_never_called_attested(run, statement):
    run("policy", "init", "dev", "--tee", "gramine-direct")
    outcome = run("verify", statement, "-p", "dev")
    assert "not attested" in outcome.out
    assert "none: proves nothing" in outcome.out
    document = run("verify", statement, "-p", "dev", "--report-data", WANTED.hex(), "--json").json
    assert (document["label"], document["attested"], document["accepted"]) == ("not attested", False, True)
    assert document["ear"]["eat_profile"] == "urn:sealbook:ear:not-attested:1"
    assert run("verify", statement, "-p", "dev", "--report-data", "00" * 64, "--json", status=1)


@pytest.mark.parametrize("kind", ["sim", "hw"])
def test_evidence_that_is_none_is_refused_by_every_other_policy(run, statement, kind):
    run("policy", "init", kind, "--mrenclave", MEASUREMENT, *(["--intel"] if kind == "hw" else []))
    outcome = run("verify", statement, "-p", kind, status=1)
    assert "not attested: it runs in Gramine without SGX" in " ".join(outcome.out.split())
    assert run("verify", statement, "-p", kind, "--json", status=1).json["label"] == "refused"


def test_a_quote_is_refused_by_a_policy_for_such_kernels(run, home):
    run("policy", "init", "dev", "--tee", "gramine-direct")
    quote = Path(__file__).parents[1] / "data" / "sgx-quotes" / "phala_sgx" / "quote.bin"
    document = run("verify", quote, "-p", "dev", "--json", status=1).json
    assert [refusal["check"] for refusal in document["refusals"]] == ["tee"]


def test_a_key_that_such_kernels_get_is_pointed_out(run):
    run("policy", "init", "dev", "--tee", "gramine-direct")
    run("policy", "init", "sim", "--mrenclave", MEASUREMENT)
    run("policy", "init", "hw", "--intel", "--mrenclave", MEASUREMENT)
    said = "Kernels that are not attested"
    assert said in run("keys", "create", "a", "--guard", "dev").err
    assert said not in run("keys", "create", "b", "--guard", "sim").err
    assert said not in run("keys", "create", "d", "--guard", "hw").err
    assert said not in run("keys", "create", "c", "--guard", "none").err
    assert said in run("keys", "guard", "b", "dev").err
    assert said not in run("keys", "guard", "b", "none").err
