"""Bad input of every command: one line with the cause, exit status 2, no traceback, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sealbook.cli.app import app

from .conftest import run_process

#: Command line, and what its one line must say. `{data}` is a plain file, `{sealed}` a sealed one.
CASES = [
    ("bogus", "No such command 'bogus'"),
    ("--bogus", "No such option"),
    ("keys", "Missing command"),
    ("keys bogus", "No such command"),
    ("keys create", "Missing argument"),
    ("keys create K --guard none", "not a key name"),
    ("keys create ../x --guard none", "not a key name"),
    ("keys create session/x --guard none", "cannot be stored"),
    ("keys create mine --guard none", "already"),
    ("keys create k --guard missing", "no policy 'missing'"),
    ("keys create k --guard ../x", "names no policy"),
    ("keys create k --guard {data}", "not TOML"),
    ("keys create k --guard none --description \x1b[2J", "one line"),
    ("keys rotate unknown", "no key 'unknown'; there are: free, guarded, mine"),
    ("keys rotate", "Missing argument"),
    ("keys guard mine missing", "no policy 'missing'"),
    ("keys guard unknown none", "no key 'unknown'"),
    ("keys guard mine", "Missing argument"),
    ("keys delete unknown --yes", "no key 'unknown'"),
    ("keys delete mine", "--yes"),
    ("keys list extra", "unexpected extra argument"),
    ("seal", "Missing argument"),
    ("seal {data}", "--key NAME"),
    ("seal {data} --key K", "not a key name"),
    ("seal missing --key mine", "missing"),
    ("seal . new.sealed --key mine", "not a regular file"),
    ("seal {data} {data} --key mine", "source itself"),
    ("seal {data} {data} --key mine --force", "source itself"),
    ("seal {data} {sealed} --key mine", "--force"),
    ("seal {data} . --key mine", "is a directory"),
    ("seal {data} missing/x --key mine", "no directory missing"),
    ("seal {data} x --key mine --context a", "NAME=VALUE"),
    ("seal {data} x --key mine --context =b", "NAME=VALUE"),
    ("seal {data} x --key mine -c a=1 -c a=2", "twice"),
    ("seal {data} x --key mine --threads 0", "--threads"),
    ("seal {data} x --key mine --threads many", "--threads"),
    ("unseal", "Missing argument"),
    ("unseal missing.sealed", "missing.sealed"),
    ("unseal {data} x", "not a file sealed by sealbook"),
    ("unseal {data}", "where its content shall go"),
    ("unseal {sealed} {data}", "--force"),
    ("unseal {sealed} {sealed} --force", "source itself"),
    ("unseal {sealed} missing/x", "no directory missing"),
    ("unseal {sealed} x -c a", "NAME=VALUE"),
    ("inspect", "Missing argument"),
    ("inspect missing", "missing"),
    ("inspect {data}", "not a file sealed by sealbook"),
    ("inspect .", "not a regular file"),
    ("rekey {sealed}", "--to NAME"),
    ("rekey {sealed} --to K", "not a key name"),
    ("rekey missing --to mine", "missing"),
    ("rekey {data} --to mine", "not a file sealed by sealbook"),
    ("verify", "Missing argument"),
    ("verify {data}", "neither an evidence file nor a quote"),
    ("verify missing --policy sim", "cannot be read"),
    ("verify {data} --policy missing", "no policy 'missing'"),
    ("verify {data} --policy missing.toml", "no policy missing.toml"),
    ("verify {data} --policy {data}", "not TOML"),
    ("verify {data} --policy sim --collateral missing", "cannot be read"),
    ("verify {data} --policy sim --collateral {data}", "not valid JSON"),
    ("verify {data} --policy sim --report-data 00", "128 hexadecimal"),
    ("verify {data} --policy sim --at yesterday", "not a time"),
    ("verify {data} --policy sim --at file", "for an evidence file"),
    ("verify {odd} --policy sim", "digit missing"),
    ("policy", "Missing command"),
    ("policy init none --mrenclave " + "0" * 64, "not a policy name"),
    ("policy init ../x --mrenclave " + "0" * 64, "not a policy name"),
    ("policy init x --mrenclave 00", "64 hexadecimal"),
    ("policy init x --intel", "--mrenclave"),
    ("policy init x --days 0", "--days"),
    ("policy init sim --mrenclave " + "0" * 64, "--force"),
    ("policy init x -o missing/x.toml --mrenclave " + "0" * 64, "no directory"),
    ("policy init x --key a*b --mrenclave " + "0" * 64, "only stand at the end"),
    ("policy explain missing", "no policy 'missing'; there are: intel, sim"),
    ("policy explain ../../x", "no policy"),
    ("policy explain {data}", "not TOML"),
    ("policy show missing", "no policy"),
    ("policy show {data}", "not TOML"),
    ("audit", "Missing command"),
    ("audit show --last 0", "--last"),
    ("audit show --last x", "--last"),
    ("audit verify --head xyz", "64 lower-case"),
    ("image", "Missing command"),
    ("image build --owner nobody", "'nobody' is no owner"),
    ("image build extra", "unexpected extra argument"),
    ("image build --name ../x", "not an image name"),
    ("image build --work bogus -o x", "say host or encrypted"),
    ("image build --enclave-size many -o x", "not a size"),
    ("image build --output {data}", "--force"),
    ("image build --output {data} --force", "exists"),
    ("image build --output . --force", "exists"),
    ("image lint", "Missing argument"),
    ("image lint missing", "cannot be read"),
    ("image lint .", "is no kernel image"),
    ("image lint {data}", "not TOML"),
    ("image inspect", "Missing argument"),
    ("image inspect missing", "no directory"),
    ("image inspect {data}", "no directory"),
    ("image inspect .", "cannot be read"),
    ("install --user --sys-prefix", "one of"),
    ("install --name a/b", "not a kernel name"),
    ("install --tee sgx", "not a kind of kernel"),
    ("install --image .", "are for Gramine kernels"),
    ("install --tee gramine-direct", "no kernel image"),
    ("install --tee gramine-sgx --image .", "no kernel image"),
    ("install --tee gramine-direct --image {data}", "no kernel image"),
    ("install --policy missing.toml", "cannot be read"),
    ("install --policy {data}", "not TOML"),
    ("install --policy {intel}", "is not for a simulated platform"),
    ("doctor extra", "unexpected extra argument"),
    ("demo missing.ipynb", "no notebook missing.ipynb"),
    ("demo {data} --output {data}", "would replace"),
    ("demo {data} --output {data}/x/y.ipynb", "cannot be made"),
]


@pytest.fixture
def files(run, home, tmp_path) -> dict[str, Path]:
    work = Path.cwd()
    (work / "data.csv").write_text("a,b\n1,2\n")
    (work / "odd.hex").write_text("030")
    run("policy", "init", "sim", "--mrenclave", "11" * 32)
    run("policy", "init", "intel", "--intel", "--mrenclave", "11" * 32)
    for name, guard in {"mine": "none", "free": "none", "guarded": "sim"}.items():
        run("keys", "create", name, "--guard", guard)
    run("seal", "data.csv", "x.sealed", "--key", "mine")
    names = {"data": "data.csv", "sealed": "x.sealed", "odd": "odd.hex"}
    return {name: work / file for name, file in names.items()} | {"intel": home / "policies" / "intel.toml"}


def snapshot(*directories: Path) -> dict[Path, bytes]:
    """Everything a person could lose; locks and the log of decisions are none of it."""
    return {
        path: path.read_bytes()
        for directory in directories
        for path in directory.rglob("*")
        if path.is_file()
        and not path.name.endswith(".lock")
        and not path.name.startswith("audit.jsonl")
        and "simulated-platform" not in path.parts
    }


def keys_of(run) -> object:
    return run("keys", "list", "--json").json


def arguments_of(line: str, files: dict[str, Path]) -> list[str]:
    return [part.format(**files) for part in line.split(" ")]


def test_bad_input_is_one_line_with_the_cause_and_status_2_and_loses_nothing(run, files, home):
    kept, keys = snapshot(home, Path.cwd()), keys_of(run)
    wrong = []
    for line, cause in CASES:
        outcome = run(*arguments_of(line, files), status=None)
        if (
            outcome.status != 2
            or outcome.out
            or not outcome.err.startswith("sealbook: ")
            or outcome.err.count("\n") != 1
            or "Traceback" in outcome.err
            or cause not in outcome.err
            or snapshot(home, Path.cwd()) != kept
        ):
            wrong.append((line, cause, outcome))
    assert not wrong
    assert keys_of(run) == keys


def test_with_json_the_cause_is_a_document_too(run, files):
    for line, cause in CASES:
        outcome = run(*arguments_of(line, files), "--json", status=2)
        # A group without a command takes no --json: that is its cause then.
        cause = "No such option: --json" if cause == "Missing command" else cause
        assert cause in json.loads(outcome.out)["error"], line


def test_every_command_has_a_case_of_bad_input():
    tested = {tuple(line.split(" ")[:2]) for line, _ in CASES} | {(line.split(" ")[0],) for line, _ in CASES}
    commands = {(command.name,) for command in app.registered_commands}
    for group in app.registered_groups:
        commands |= {
            (group.name, command.name) for command in group.typer_instance.registered_commands if command.name
        }
    missing = {command for command in commands if command not in tested}
    # They take no argument that can be wrong.
    assert missing <= {("lab",), ("policy", "list")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bogus"],
        ["keys", "create", "K", "--guard", "none"],
        ["inspect", "missing"],
        ["verify", "x", "-p", "y"],
    ],
    ids=["option", "name", "file", "policy"],
)
def test_a_process_ends_with_status_2_and_one_line(home, arguments):
    outcome = run_process(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.startswith("sealbook: ")
    assert outcome.err.count("\n") == 1


def test_an_error_inside_a_command_is_one_line_without_a_traceback(run, home, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret is 1234")

    monkeypatch.setattr("sealbook.broker.keyring.Keyring.list", fail)
    outcome = run("keys", "list", status=1)
    assert outcome.err.count("\n") == 1
    assert "RuntimeError" in outcome.err
    assert "1234" not in outcome.err


def test_a_developer_can_see_the_traceback(run, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("here")

    monkeypatch.setenv("SEALBOOK_TRACEBACK", "1")
    monkeypatch.setattr("sealbook.broker.keyring.Keyring.list", fail)
    from sealbook.cli import main

    with pytest.raises(RuntimeError, match="here"):
        main(["keys", "list"])


def test_ctrl_c_ends_a_command_without_a_traceback(run, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sealbook.broker.keyring.Keyring.list", interrupt)
    assert run("keys", "list", status=130).err == "sealbook: Interrupted.\n"


def test_a_reader_that_has_seen_enough_is_no_error(run, home):
    import subprocess
    import sys

    run("keys", "create", "k", "--guard", "none")
    process = subprocess.Popen(
        [sys.executable, "-m", "sealbook", "audit", "show", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr.read() == b""
    process.stderr.close()
