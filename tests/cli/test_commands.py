"""Each command's main job."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

import pytest

from sealbook import __version__
from sealbook.attestation import Policy, report_data
from sealbook.attestation.simulated import Measurement, SimulatedPlatform
from sealbook.broker import AuditLog
from sealbook.sealing import inspect as inspect_file

from .conftest import PASSPHRASE, run_process

MEASUREMENT = "11" * 32


def test_without_arguments_the_help_is_shown(run):
    assert "Commands:" in run().out
    assert run("--version").out == f"sealbook {__version__}\n"


@pytest.mark.parametrize(
    "command", ["install", "doctor", "seal", "unseal", "inspect", "rekey", "verify", "lab", "demo"]
)
def test_every_command_explains_itself(run, command):
    assert f"Usage: sealbook {command}" in run(command, "--help").out


# -- keys ----------------------------------------------------------------------------------------


def test_keys_are_made_listed_rotated_guarded_and_deleted(run):
    run("policy", "init", "sim", "--mrenclave", MEASUREMENT)
    assert "guarded by policy 'sim'" in run("keys", "create", "team/data", "--guard", "sim").out
    run("keys", "create", "free", "--guard", "none", "--description", "for all")
    assert run("keys", "rotate", "free", "--json").json["current"] == 2
    assert run("keys", "guard", "team/data", "none", "--json").json["guard"] == "none"
    listed = run("keys", "list", "--json").json["keys"]
    assert {(key["name"], key["guard"], key["current"]) for key in listed} == {
        ("free", "none", 2),
        ("team/data", "none", 1),
    }
    shown = run("keys", "list").out
    assert "team/data" in shown
    assert "for all" in shown
    assert run("keys", "delete", "free", "--yes", "--json").json == {"deleted": "free"}
    assert [key["name"] for key in run("keys", "list", "--json").json["keys"]] == ["team/data"]
    decisions = [
        (entry["decision"], entry["key"]) for entry in run("audit", "show", "--json").json["entries"]
    ]
    assert decisions == [
        ("created", "team/data"),
        ("created", "free"),
        ("rotated", "free"),
        ("guard changed", "team/data"),
        ("deleted", "free"),
    ]


def test_no_command_shows_a_secret(run, home):
    from sealbook.broker import open_keyring

    run("keys", "create", "k", "--guard", "none")
    secret = open_keyring().key("k").secret
    import base64

    forms = (secret.hex(), base64.b64encode(secret).decode())
    for command in (
        ("keys", "list"),
        ("keys", "list", "--json"),
        ("audit", "show"),
        ("audit", "show", "--json"),
    ):
        out = run(*command).out
        assert not any(form in out for form in forms)
    # The service has it; no file of ours does.
    for path in home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret not in content
            assert not any(form.encode() in content for form in forms)


def test_a_keyring_file_is_made_and_opened_through_an_inherited_pipe(home):
    environment = {"SEALBOOK_HOME": str(home), "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    made = run_process(
        "keys", "create", "k", "--guard", "none", passphrase=PASSPHRASE, environment=environment
    )
    assert made.status == 0, made
    assert stat.S_IMODE((home / "keyring.sealbook").stat().st_mode) == 0o600
    listed = run_process("keys", "list", "--json", passphrase=PASSPHRASE, environment=environment)
    assert [key["name"] for key in listed.json["keys"]] == ["k"]
    wrong = run_process("keys", "list", passphrase="wrong passphrase", environment=environment)
    assert wrong.status == 1
    assert "does not open" in wrong.err
    nobody = run_process("keys", "list", environment=environment)
    assert nobody.status == 1
    assert "no terminal" in nobody.err


# -- sealed files --------------------------------------------------------------------------------


@pytest.fixture
def data(run) -> Path:
    path = Path("data.bin")
    path.write_bytes(os.urandom(100_000))
    run("policy", "init", "sim", "--mrenclave", MEASUREMENT)
    run("policy", "init", "other", "--mrenclave", MEASUREMENT)
    for name, guard in {"free": "none", "guarded": "sim", "alike": "sim", "other": "other"}.items():
        run("keys", "create", name, "--guard", guard)
    return path


def test_a_file_is_sealed_inspected_and_unsealed(run, data):
    sealed = run("seal", data, "--key", "free", "-c", "study=7", "--json").json
    assert sealed["path"] == "data.bin.sealed"
    (shown,) = run("inspect", "data.bin.sealed", "--json").json
    assert shown["context"] == {"study": "7"}
    assert shown["size"] == 100_000
    assert "not authenticated" in run("inspect", "data.bin.sealed").out
    run("unseal", "data.bin.sealed", "copy.bin", "-c", "study=7")
    assert Path("copy.bin").read_bytes() == data.read_bytes()
    assert run("audit", "verify", "--json").json["ok"]


def test_the_default_target_of_unsealing_is_the_name_without_its_suffix(run, data):
    run("seal", data, "--key", "free")
    content = data.read_bytes()
    data.unlink()
    run("unseal", "data.bin.sealed")
    assert data.read_bytes() == content


@pytest.mark.parametrize("context", [["-c", "study=8"], ["-c", "study=7", "-c", "more=1"]])
def test_a_wrong_context_is_refused_and_nothing_is_written(run, data, context):
    run("seal", data, "--key", "free", "-c", "study=7")
    outcome = run("unseal", "data.bin.sealed", "copy.bin", *context, status=1)
    assert outcome.err.count("\n") == 1
    assert not Path("copy.bin").exists()


def test_a_damaged_file_is_refused_and_the_existing_target_stays(run, data):
    run("seal", data, "--key", "free")
    sealed = bytearray(Path("data.bin.sealed").read_bytes())
    sealed[-1] ^= 1
    Path("data.bin.sealed").write_bytes(sealed)
    Path("copy.bin").write_text("mine")
    outcome = run("unseal", "data.bin.sealed", "copy.bin", "--force", status=1)
    assert "not unsealed" in outcome.err
    assert Path("copy.bin").read_text() == "mine"
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["copy.bin", "data.bin", "data.bin.sealed"]


def test_the_owner_seals_with_a_guarded_key_and_only_an_enclave_unseals(run, data):
    run("seal", data, "--key", "guarded")
    outcome = run("unseal", "data.bin.sealed", "copy.bin", status=1)
    assert "demands attestation (policy 'sim')" in outcome.err
    assert not Path("copy.bin").exists()
    last = run("audit", "show", "--json").json["entries"][-1]
    assert (last["event"], last["decision"], last["key"]) == ("owner", "refused", "guarded")


def test_files_move_to_another_version_and_another_key_with_the_same_guard(run, data):
    run("seal", data, "--key", "guarded")
    run("keys", "rotate", "guarded")
    run("rekey", "data.bin.sealed", "--to", "guarded")
    assert inspect_file("data.bin.sealed").keys == (("guarded", 2),)
    run("rekey", "data.bin.sealed", "--to", "alike")
    assert inspect_file("data.bin.sealed").keys == (("alike", 1),)


@pytest.mark.parametrize("to", ["free", "other"])
def test_a_guarded_file_does_not_move_to_a_key_with_another_guard(run, data, to):
    run("seal", data, "--key", "guarded")
    before = Path("data.bin.sealed").read_bytes()
    outcome = run("rekey", "data.bin.sealed", "--to", to, status=1)
    assert "another guard" in outcome.err
    assert Path("data.bin.sealed").read_bytes() == before


def test_of_several_files_the_good_ones_are_moved_and_the_others_named(run, data):
    run("seal", data, "--key", "free")
    outcome = run("rekey", "data.bin.sealed", data, "--to", "guarded", status=2)
    assert "data.bin.sealed opens with key guarded" in outcome.out
    assert outcome.err.startswith(f"sealbook: {data}: ")
    assert run("rekey", "data.bin.sealed", data, "--to", "guarded", "--json", status=2).json["failed"][0][
        "path"
    ] == str(data)


def test_nothing_is_sealed_when_the_use_of_the_key_cannot_be_recorded(run, data, home):
    (home / "audit.jsonl.head").write_text("x")
    outcome = run("seal", data, "--key", "free", status=1)
    assert "audit log" in outcome.err
    assert not Path("data.bin.sealed").exists()


def test_keys_of_a_running_server_are_out_of_the_command_line_s_reach(run, data):
    assert "sealbook kernel" in run("seal", data, "--key", "session/default", status=1).err


# -- policies and quotes -------------------------------------------------------------------------


def test_a_policy_is_written_explained_shown_and_listed(run, home):
    made = run(
        "policy", "init", "strict", "--mrenclave", MEASUREMENT, "--key", "team/*", "--days", "10", "--json"
    ).json
    policy = Policy.load(made["path"])
    assert (policy.id, policy.simulated, policy.release.keys) == ("strict", True, ("team/*",))
    assert (policy.expires - policy.created).days == 10
    assert stat.S_IMODE(Path(made["path"]).stat().st_mode) == 0o600
    assert "SIMULATED" in run("policy", "explain", "strict").out
    assert run("policy", "explain", "strict", "--json").json["digest"] == policy.digest
    assert run("policy", "show", "strict").out == Path(made["path"]).read_text()
    assert run("policy", "show", made["path"], "--json").json["policy"]["id"] == "strict"
    (home / "policies" / "broken.toml").write_text("schema = 9")
    rows = {row["name"]: row for row in run("policy", "list", "--json").json["policies"]}
    assert rows["strict"]["root"] == "simulated"
    assert "schema" in rows["broken"]["problem"]


def test_a_policy_for_hardware_names_intels_root(run):
    made = run("policy", "init", "hw", "--intel", "--mrenclave", MEASUREMENT, "--json").json
    assert not Policy.load(made["path"]).simulated
    assert "Intel" in run("policy", "explain", "hw").out


def test_a_replaced_policy_is_kept_beside_the_new_one(run, home):
    run("policy", "init", "p", "--mrenclave", MEASUREMENT)
    before = (home / "policies" / "p.toml").read_text()
    run("policy", "init", "p", "--mrenclave", "22" * 32, "--force")
    assert (home / "policies" / "p.toml.old").read_text() == before
    assert (home / "policies" / "p.toml").read_text() != before


@pytest.fixture
def quote(run, home) -> Path:
    run("policy", "init", "sim", "--mrenclave", MEASUREMENT)
    platform = SimulatedPlatform.load_or_create(home / "simulated-platform")
    bound = report_data(role="kernel", audience="a", nonce=bytes(32), claims={})
    path = Path("quote.bin")
    path.write_bytes(platform.attester(Measurement(bytes.fromhex(MEASUREMENT))).quote(bound))
    Path("collateral.json").write_bytes(platform.collateral().to_json())
    Path("bound.hex").write_text(bound.hex())
    return path


@pytest.mark.parametrize("form", ["raw", "hex", "hex with line breaks"])
def test_a_good_quote_is_accepted_and_called_simulated(run, quote, form):
    if form != "raw":
        digits = quote.read_bytes().hex()
        quote.write_text(digits if form == "hex" else "\n".join(re.findall(".{1,64}", digits)) + "\n")
    outcome = run("verify", quote, "--policy", "sim", "--collateral", "collateral.json")
    assert "simulated" in outcome.out
    assert MEASUREMENT in outcome.out


def test_a_quote_for_this_machine_needs_no_collateral_file(run, quote):
    document = run(
        "verify", quote, "--policy", "sim", "--report-data", Path("bound.hex").read_text(), "--json"
    ).json
    assert (document["label"], document["bound"]) == ("simulated", True)
    assert document["ear"]["submods"]["kernel"]["sealbook.simulated"] is True


def test_a_refused_quote_ends_with_status_1_and_every_reason(run, quote):
    run("policy", "init", "other", "--mrenclave", "22" * 32)
    outcome = run("verify", quote, "-p", "other", "--report-data", "00" * 64, status=1)
    document = run("verify", quote, "-p", "other", "--report-data", "00" * 64, "--json", status=1).json
    assert {refusal["check"] for refusal in document["refusals"]} >= {"measurement", "report-data"}
    for refusal in document["refusals"]:
        assert refusal["reason"] in outcome.out


@pytest.mark.parametrize("at", ["2020-01-01T00:00:00Z", "2099-01-01"])
def test_a_quote_is_judged_at_the_given_time(run, quote, at):
    document = run("verify", quote, "-p", "sim", "--at", at, "--json", status=1).json
    assert not document["accepted"]
    assert document["verified_at"].startswith(at[:10])


def test_attack_54_a_simulated_quote_is_never_accepted_under_intels_root(run, quote):
    run("policy", "init", "hw", "--intel", "--mrenclave", MEASUREMENT)
    document = run("verify", quote, "-p", "hw", "-c", "collateral.json", "--json", status=1).json
    assert document["label"] == "refused"


def test_what_is_no_quote_is_refused_with_a_reason(run, quote):
    quote.write_bytes(b"\x03\x00nonsense")
    assert run("verify", quote, "-p", "sim", "--json", status=1).json["refusals"]


def test_evidence_for_hardware_is_judged_by_collateral_from_the_configured_service(run, monkeypatch):
    quote = Path(__file__).parents[1] / "data/sgx-quotes/phala_sgx/quote.bin"
    run("policy", "init", "hw", "--intel", "--mrenclave", "ab" * 32)
    monkeypatch.setenv("SEALBOOK_PCCS", "http://127.0.0.1:9")  # discard: nobody answers there
    outcome = run("verify", quote, "-p", "hw", status=1)
    assert "127.0.0.1:9" in outcome.err


def test_the_quote_command_runs_as_a_process(home, quote):
    outcome = run_process("verify", quote, "-p", "sim")
    assert outcome.status == 0, outcome
    assert "simulated" in outcome.out


# -- the audit log -------------------------------------------------------------------------------


def test_the_log_is_shown_filtered_and_verified(run, home):
    for name in ("a", "b", "c"):
        run("keys", "create", name, "--guard", "none")
    assert [entry["key"] for entry in run("audit", "show", "-n", "2", "--json").json["entries"]] == ["b", "c"]
    assert [entry["seq"] for entry in run("audit", "show", "--key", "b", "--json").json["entries"]] == [2]
    assert run("audit", "show", "--event", "release", "--json").json["entries"] == []
    assert "created" in run("audit", "show").out
    head = run("audit", "show", "--json").json["head"]
    run("keys", "create", "d", "--guard", "none")
    assert "4 entries" in run("audit", "verify", "--head", head).out


def test_a_changed_log_is_reported_with_status_1(run, home):
    run("keys", "create", "a", "--guard", "none")
    path = home / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"created"', b'"deleted"'))
    outcome = run("audit", "verify", status=1)
    assert "Line 1 was changed" in outcome.out
    assert run("audit", "verify", "--json", status=1).json["ok"] is False
    assert "not whole" in run("audit", "show").err


def test_a_head_that_is_not_in_the_log_is_reported(run):
    run("keys", "create", "a", "--guard", "none")
    assert "does not contain" in run("audit", "verify", "--head", "0" * 63 + "1", status=1).out


def test_an_entry_cannot_move_the_terminals_cursor(run, home):
    home.mkdir()
    AuditLog(home / "audit.jsonl").append(
        "artifact", decision="reported", key="\x1b[2J\x9b2J", path="\u202egnp"
    )
    out = run("audit", "show").out
    assert not set(out) & set("\x1b\x9b\u202e")


# -- lab -----------------------------------------------------------------------------------------


@pytest.fixture
def laboratory(tmp_path):
    """A stand-in for JupyterLab, which would stay: says what it was given, and reads the passphrase."""
    package = tmp_path / "stand-in" / "jupyterlab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import os, sys\n"
        "from sealbook.broker import passphrase, open_keyring\n"
        "print(sys.argv[1:], passphrase.DESCRIPTOR_VARIABLE in os.environ)\n"
        "seen = open('/proc/self/environ').read() + open('/proc/self/cmdline').read()\n"
        f"print({PASSPHRASE!r} in seen, [record.name for record in open_keyring().list()])\n"
    )
    places = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(places), "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}


def test_lab_hands_the_passphrase_to_jupyterlab_through_a_pipe_only(home, laboratory):
    made = run_process(
        "keys", "create", "k", "--guard", "none", passphrase=PASSPHRASE, environment=laboratory
    )
    assert made.status == 0, made
    outcome = run_process("lab", "notebooks", "--no-browser", passphrase=PASSPHRASE, environment=laboratory)
    assert outcome.out == "['notebooks', '--no-browser'] True\nFalse ['k']\n", outcome


def test_lab_starts_without_a_keyring_and_without_asking(home, laboratory):
    outcome = run_process("lab", environment=laboratory)
    assert outcome.out == "[] False\nFalse []\n", outcome


def test_lab_says_so_when_nobody_can_be_asked(home, laboratory):
    run_process("keys", "create", "k", "--guard", "none", passphrase=PASSPHRASE, environment=laboratory)
    outcome = run_process("lab", environment=laboratory)
    assert outcome.out.startswith("[] False\n")
    assert "stay locked" in outcome.err


def test_lab_finds_a_typing_error_before_it_starts(home, laboratory):
    run_process("keys", "create", "k", "--guard", "none", passphrase=PASSPHRASE, environment=laboratory)
    outcome = run_process("lab", passphrase="wrong passphrase", environment=laboratory)
    assert (outcome.status, outcome.out) == (1, "")
    assert "does not open" in outcome.err


def test_lab_without_jupyterlab_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'sealbook[lab]'" in run("lab", status=1).err


def test_the_passphrase_is_asked_for_at_the_terminal_without_showing_it(home, laboratory):
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(laboratory)
        arguments = ["-m", "sealbook", "keys", "create", "k", "--guard", "none"]
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606
    shown = b""
    for _ in range(2):
        while not shown.endswith(b": "):
            shown += os.read(terminal, 1000)
        os.write(terminal, PASSPHRASE.encode() + b"\n")
        shown += os.read(terminal, 1)
    try:
        while piece := os.read(terminal, 1000):
            shown += piece
    except OSError:  # how Linux says that the other end is gone
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    assert PASSPHRASE.encode() not in shown
    assert b"Created key 'k'" in shown
