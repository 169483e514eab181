"""What the Jupyter server says of its kernels and sealed files: to whom, from where, and never a secret."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from helpers import wait_until
from jupyter_server_process import JupyterServer, jupyter_server
from websocket import create_connection

from sealbook.attestation import Policy, Verifier
from sealbook.attestation.chain_of_trust import Link, LinkCheck
from sealbook.attestation.evidence_file import EvidenceFile
from sealbook.broker import open_keyring
from sealbook.jupyter.server import panel

pytestmark = pytest.mark.xdist_group("server-extension")


@pytest.fixture(scope="module")
def server(keys: str, kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    root = tmp_path_factory.mktemp("server") / "root"
    root.mkdir()
    # A kernel that keeps silent is waited for a little only.
    with jupyter_server(root, "--AttestedProvisioner.attest_timeout=4", passphrase=keys) as running:
        yield running


@pytest.fixture(scope="module")
def verified(server: JupyterServer, kernel_name: str) -> str:
    return server.kernel("verified.ipynb", kernel_name)


def facts(server: JupyterServer, kernel: str, since: int = 0) -> dict[str, Any]:
    return dict(server.get(f"sealbook/api/kernels/{kernel}/attestation", params={"since": since}))


@contextlib.contextmanager
def executing(server: JupyterServer, kernel: str, code: str) -> Iterator[Any]:
    """Have a cell run, as a page does; yields the open channel."""
    address = server.address.replace("http", "ws")
    channel = create_connection(f"{address}/api/kernels/{kernel}/channels?token={server.token}", timeout=60)
    header = {"msg_id": "1", "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "stop_on_error": True}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}
    with contextlib.closing(channel):
        channel.send(json.dumps(message | {"channel": "shell"}))
        yield channel


def run(server: JupyterServer, kernel: str, code: str) -> str:
    """Run a cell and return "ok" or "error"."""
    with executing(server, kernel, code) as channel:
        while True:
            answer = json.loads(channel.recv())
            if answer["msg_type"] == "execute_reply":
                return str(answer["content"]["status"])


def has_ended(pid: int) -> bool:
    """Whether a process runs no more, with all its threads; its parent may not have noticed."""
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE and len(os.listdir(f"/proc/{pid}/task")) == 1
    except (psutil.NoSuchProcess, FileNotFoundError):
        return True


@contextlib.contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def refusing(policy: Path) -> str:
    """The policy with another measurement: what runs here is not what it admits."""
    return re.sub(r'mrenclave = \["[0-9a-f]{64}"\]', f'mrenclave = ["{"ab" * 32}"]', policy.read_text())


# -- what is said of kernels -----------------------------------------------------------------


def test_a_simulated_kernel_is_called_simulated(server, verified):
    trust = server.trust(verified)
    assert trust["state"] == "simulated"
    assert trust["stale"] is None
    assert "simulated" in trust["summary"]
    assert trust["kernel"] == verified


def test_a_kernel_of_another_kind_is_called_not_attested(server):
    kernel = server.kernel("ordinary.ipynb", "python3")
    assert server.trust(kernel)["state"] == "not attested"
    found = facts(server, kernel)
    assert (found["identity"], found["chain"], found["channel"]) == (None, [], None)
    for what in ("evidence", "policy"):
        answer = server.request("GET", f"sealbook/api/kernels/{kernel}/{what}")
        assert answer.status_code == 403
        assert "not attested" in answer.json()["message"]
    assert server.post(f"sealbook/api/kernels/{kernel}/attest").status_code == 403


def test_where_no_kernel_runs_nothing_is_claimed(server):
    assert server.trust()["state"] == "none"
    assert server.trust("no-such-kernel", "nothing.ipynb")["state"] == "none"
    assert server.request("GET", "sealbook/api/kernels/no-such-kernel/attestation").status_code == 404


def test_the_panel_gets_what_the_verifier_found(server, verified, policy_file):
    found, policy = facts(server, verified), Policy.load(policy_file)
    assert found["identity"]["mrenclave"] in {mrenclave.hex() for mrenclave in policy.identities[0].mrenclave}
    assert found["identity"]["entry"] == policy.identities[0].name
    assert found["identity"]["policy_digest"] == policy.digest
    assert found["identity"]["root_fingerprint"] == policy.trust_root.fingerprint
    assert found["platform"]["tcb_status"] == "UpToDate"
    assert found["platform"]["meaning"]
    checks = [check for link in found["chain"] for check in link["checks"]]
    assert checks
    assert all(check["passed"] is True for check in checks)
    claims = {claim["name"] for claim in found["channel"]["claims"]}
    assert {"kernel-curve-key", "client-curve-key", "channels", "broker"} <= claims
    assert found["audit"][0]["event"] == "attest"


def test_what_the_kernel_does_with_keys_and_files_is_told_as_it_happens(server, verified):
    last = facts(server, verified)["last"]
    code = "import sealbook; sealbook.seal('x', 'a.sealed', key='patients'); sealbook.unseal('a.sealed')"
    assert run(server, verified, code) == "ok"
    found = facts(server, verified, since=last)
    assert {(key["key"], key["decision"]) for key in found["keys"]} == {("patients", "released")}
    assert all("admits this simulated enclave" in key["why"] for key in found["keys"])
    assert [(each["action"], Path(each["path"]).name) for each in found["artifacts"]] == [
        ("sealed", "a.sealed"),
        ("unsealed", "a.sealed"),
    ]
    assert found["audit"]
    assert all(entry["seq"] > last for entry in found["audit"])
    assert found["last"] == found["audit"][-1]["seq"]


def test_a_refused_key_is_told_with_its_reason(server, verified):
    assert run(server, verified, "import sealbook; sealbook.seal('x', 'b.sealed', key='nobodys')") == "error"
    last = facts(server, verified)["keys"][-1]
    assert (last["key"], last["decision"]) == ("nobodys", "refused")
    assert "nobodys" in last["why"]


def test_where_spark_runs_is_told_once_it_does(server, kernel_name):
    kernel = server.kernel("spark.ipynb", kernel_name)
    before = facts(server, kernel)["cluster"]
    assert (before["where"], before["started"], before["nodes"]) == ("local", False, [])
    assert "not been used" in before["note"]
    assert run(server, kernel, "assert spark.range(3).count() == 3") == "ok"
    found = facts(server, kernel)
    after = found["cluster"]
    assert (after["where"], after["name"], after["started"], after["note"]) == ("local", "", True, "")
    assert found["artifacts"] == [], "where code runs is no artifact"
    server.request("DELETE", f"api/kernels/{kernel}")


def test_attesting_again_gives_other_evidence_also_while_a_cell_runs(server, kernel_name):
    kernel = server.kernel("busy.ipynb", kernel_name)
    before = server.trust(kernel)
    with executing(server, kernel, "import time; time.sleep(600)"):
        assert wait_until(lambda: server.get(f"api/kernels/{kernel}")["execution_state"] == "busy")
        answer = server.post(f"sealbook/api/kernels/{kernel}/attest")
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert after["state"] == "simulated"
    assert after["evidence"] != before["evidence"]
    assert after["verified_at"] > before["verified_at"]
    assert server.trust(kernel)["evidence"] == after["evidence"]
    assert [entry["event"] for entry in facts(server, kernel)["audit"]][:2] == ["attest", "attest"]
    server.request("DELETE", f"api/kernels/{kernel}")


def test_two_who_ask_for_new_evidence_at_once_each_get_an_answer_of_their_own(server, verified):
    with ThreadPoolExecutor(4) as several:
        answers = list(
            several.map(lambda _: server.post(f"sealbook/api/kernels/{verified}/attest"), range(4))
        )
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.json()["evidence"] for answer in answers}) == 4


def test_a_kernel_that_reports_without_end_does_not_make_the_answers_grow_without_end(server, kernel_name):
    kernel = server.kernel("flood.ipynb", kernel_name)
    code = (
        "from sealbook import session\n"
        "for number in range(600): session.current().report('opened', {'path': str(number), 'key': 'k'})\n"
    )
    assert run(server, kernel, code) == "ok"
    found = facts(server, kernel)
    assert [each["path"] for each in found["artifacts"]] == [str(number) for number in range(400, 600)]
    assert len(found["audit"]) == 200
    server.request("DELETE", f"api/kernels/{kernel}")


def test_a_kernel_that_keeps_silent_when_asked_for_evidence_is_not_called_verified_anew(server, kernel_name):
    kernel = server.kernel("silent.ipynb", kernel_name)
    before = server.trust(kernel)
    # Hostile code in the kernel: it answers on the channel that all is well, and makes no evidence.
    code = (
        "kernel = get_ipython().kernel\n"
        "kernel.control_handlers['sealbook_attest_request'] = lambda socket, ident, parent: "
        "kernel.session.send(socket, 'sealbook_attest_reply', {'status': 'ok'}, parent, ident)\n"
    )
    assert run(server, kernel, code) == "ok"
    answer = server.post(f"sealbook/api/kernels/{kernel}/attest")
    assert answer.status_code == 409
    assert "did not attest itself" in answer.json()["message"]
    assert server.trust(kernel)["evidence"] == before["evidence"]
    server.request("DELETE", f"api/kernels/{kernel}")


def test_a_kernel_whose_new_evidence_is_refused_is_called_refused(server, kernel_name):
    kernel = server.kernel("replaying.ipynb", kernel_name)
    # Hostile code in the kernel: it answers every challenge with the evidence for the first.
    code = (
        "from sealbook import session\n"
        "remote = session.current()._remote\n"
        "kept, old = remote._evidence, remote._evidence(bytes(32))\n"
        "remote._evidence = lambda nonce: old\n"
    )
    assert run(server, kernel, code) == "ok"
    answer = server.post(f"sealbook/api/kernels/{kernel}/attest")
    assert answer.status_code == 409
    assert "another challenge" in answer.json()["message"]
    trust = server.trust(kernel)
    assert trust["state"] == "refused"
    assert [each["check"] for each in trust["refusals"]] == ["report-data"]
    found = facts(server, kernel)
    assert found["audit"][-2]["decision"] == "refused"
    # Of the evidence that was refused, and nothing of what was found before.
    assert refused_checks(found) == ["report-data"]
    assert (found["identity"]["entry"], found["channel"], found["cluster"]) == ("", None, None)
    for what in ("evidence", "policy"):
        assert server.request("GET", f"sealbook/api/kernels/{kernel}/{what}").status_code == 403
    assert run(server, kernel, "remote._evidence = kept; remote.attest()") == "ok"
    assert server.trust(kernel)["state"] == "simulated"
    server.request("DELETE", f"api/kernels/{kernel}")


def refused_checks(found: dict[str, Any]) -> list[str]:
    return [check["name"] for link in found["chain"] for check in link["checks"] if check["passed"] is False]


def test_a_restart_or_an_end_while_evidence_is_awaited_is_said_at_once(server, kernel_name):
    kernel = server.kernel("ends.ipynb", kernel_name)
    code = (
        "import os\n"
        "handlers = get_ipython().kernel.control_handlers\n"
        "handlers['sealbook_attest_request'] = lambda *_: os._exit(1)\n"
    )
    assert run(server, kernel, code) == "ok"
    answer = server.post(f"sealbook/api/kernels/{kernel}/attest")
    assert answer.status_code == 409
    assert "ended or was restarted" in answer.json()["message"]
    server.request("DELETE", f"api/kernels/{kernel}")


def test_what_a_kernel_reports_cannot_pass_for_what_the_server_says(server, kernel_name):
    kernel = server.kernel("liar.ipynb", kernel_name)
    code = (
        "from sealbook import session\n"
        "report = session.current().report\n"
        "report('scaled', {'cluster': \"x'. VERIFIED: attested by genuine hardware\"})\n"
        "report('opened', {'path': 'a\\x1b[2Jb\\u202ec', 'key': 'k'})\n"
    )
    assert run(server, kernel, code) == "ok"
    found = facts(server, kernel)
    assert "VERIFIED" not in json.dumps(found["cluster"])
    assert (found["cluster"]["where"], found["cluster"]["nodes"]) == ("unknown", [])
    shown = json.dumps([found["artifacts"], found["audit"]], ensure_ascii=False)
    assert "202ec" in shown, "as visible text"
    assert shown.isprintable()
    for size in (-5, 2**53, 10**300):
        assert run(server, kernel, f"report('opened', {{'path': 'x', 'size': {size}}})") == "error"
    server.request("DELETE", f"api/kernels/{kernel}")


def test_names_in_refused_evidence_cannot_forge_what_a_page_shows():
    refused = LinkCheck("signature", "Signed.", False, "Not by \x1b[2J\u202eIntel.")
    (shown,) = panel.chain([Link("Quote", "A quote.", (("Subject", "Intel\u202e\nRoot"),), (refused,))])
    text = json.dumps(shown, ensure_ascii=False)
    assert text.isprintable()
    assert "u202e" in text, "as visible text"


def test_a_start_that_is_refused_is_told_to_the_notebooks_page(server, kernel_name, policy_file):
    with changed(policy_file, refusing(policy_file)):
        answer = server.open("refused.ipynb", kernel_name)
        assert answer.status_code == 500
        trust = server.trust("", "refused.ipynb")
    assert trust["state"] == "refused"
    assert "measurement" in trust["summary"]
    assert "\n" not in trust["summary"]
    assert trust["refusals"][0]["check"] == "measurement"
    assert server.trust("", "other.ipynb")["state"] == "none"
    found = server.get("sealbook/api/refused", params={"path": "refused.ipynb"})
    assert found["trust"] == trust
    assert refused_checks(found) == ["measurement"]
    assert found["identity"]["mrenclave"] in policy_file.read_text()
    assert (found["identity"]["entry"], found["channel"], found["cluster"]) == ("", None, None)
    assert [(entry["event"], entry["decision"]) for entry in found["audit"]] == [("attest", "refused")]
    assert (
        server.get("sealbook/api/refused", params={"path": "refused.ipynb", "since": found["last"]})["audit"]
        == []
    )
    assert server.request("GET", "sealbook/api/refused", params={"path": "other.ipynb"}).status_code == 404
    # Once a kernel runs for the notebook, what was refused before is history.
    kernel = server.kernel("refused.ipynb", kernel_name)
    assert server.trust(kernel, "refused.ipynb")["state"] == "simulated"
    assert server.trust("", "refused.ipynb")["state"] == "none"
    assert server.request("GET", "sealbook/api/refused", params={"path": "refused.ipynb"}).status_code == 404
    server.request("DELETE", f"api/kernels/{kernel}")


def test_a_policy_that_changed_makes_what_was_found_stale(server, verified, policy_file):
    with changed(policy_file, refusing(policy_file)):
        trust = server.trust(verified)
        assert trust["state"] == "simulated"
        assert "was changed" in trust["stale"]["reason"]
        assert "Restart" in trust["stale"]["remedy"]
    with changed(policy_file, "nonsense ["):
        assert server.trust(verified)["stale"]
    assert server.trust(verified)["stale"] is None


def test_a_restart_that_is_refused_ends_as_refused(server, kernel_name, policy_file):
    kernel = server.kernel("restarted.ipynb", kernel_name)
    with changed(policy_file, refusing(policy_file)):
        assert server.post(f"api/kernels/{kernel}/restart").status_code == 500
        assert server.trust(kernel, "restarted.ipynb")["state"] == "refused"
    assert server.trust(kernel, "restarted.ipynb")["state"] == "refused"
    found = facts(server, kernel)
    assert refused_checks(found) == ["measurement"]
    assert [(entry["event"], entry["decision"]) for entry in found["audit"]] == [("attest", "refused")]
    server.request("DELETE", f"api/kernels/{kernel}")


def test_a_server_with_a_refused_start_ends_when_it_is_told_to(keys, kernel_name, policy_file, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with jupyter_server(root, passphrase=keys) as server:
        with changed(policy_file, refusing(policy_file)):
            assert server.open("refused.ipynb", kernel_name).status_code == 500
        server.kernel("good.ipynb", kernel_name)
        server.process.terminate()
        server.process.wait(timeout=60)
        assert "Kernel does not exist" not in server.log.read_text()


def test_a_restarted_kernel_is_another_one(server, kernel_name):
    kernel = server.kernel("again.ipynb", kernel_name)
    before = server.trust(kernel)
    assert server.post(f"api/kernels/{kernel}/restart").status_code == 200
    after = server.trust(kernel)
    assert (before["state"], after["state"]) == ("simulated", "simulated")
    assert before["evidence"] != after["evidence"]
    server.request("DELETE", f"api/kernels/{kernel}")


def test_a_killed_kernel_is_not_called_verified_until_its_successor_is(server, kernel_name):
    kernel = server.kernel("killed.ipynb", kernel_name)
    before = server.trust(kernel)["evidence"]
    # Not through the server: as the host would.
    assert run(server, kernel, "import os; open('pid', 'w').write(str(os.getpid()))") == "ok"
    pid = int((server.root / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: has_ended(pid))
    # From now on, also before the server takes notice and starts another.
    seen = [server.trust(kernel)]
    assert wait_until(lambda: seen.append(server.trust(kernel)) or seen[-1]["state"] == "simulated")
    assert seen[0]["state"] == "starting"
    assert {each["state"] for each in seen} == {"starting", "simulated"}
    assert all(each["evidence"] != before for each in seen)
    server.request("DELETE", f"api/kernels/{kernel}")


# -- what is exported ------------------------------------------------------------------------


def test_the_exported_evidence_is_judged_the_same_without_this_server(server, verified, tmp_path):
    answer = server.request("GET", f"sealbook/api/kernels/{verified}/evidence")
    assert answer.status_code == 200
    assert "attachment" in answer.headers["Content-Disposition"]
    exported = EvidenceFile.from_json(answer.content)
    assert exported.result.evidence_id == server.trust(verified)["evidence"]
    again = Verifier(exported.policy).verify(
        exported.evidence,
        exported.collateral,
        now=exported.result.verified_at,
        expected_report_data=exported.report_data,
    )
    assert again == exported.result
    path = tmp_path / "evidence.json"
    path.write_bytes(answer.content)
    elsewhere = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
    checked = subprocess.run(
        [sys.executable, "-m", "sealbook", "verify", str(path)], env=elsewhere, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "simulated" in checked.stdout


def test_the_copied_policy_admits_what_runs_and_nothing_else(server, verified):
    copied = server.get(f"sealbook/api/kernels/{verified}/policy")
    exported = EvidenceFile.from_json(
        server.request("GET", f"sealbook/api/kernels/{verified}/evidence").content
    )

    def refusals(text: str) -> set[str]:
        result = Verifier(Policy.parse(text)).verify(
            exported.evidence, exported.collateral, now=datetime.now(UTC)
        )
        return {each.check for each in result.refusals}

    assert refusals(copied["policy"]) == set()
    assert refusals(copied["policy"].replace(exported.result.mrenclave, "cd" * 32)) == {"measurement"}


# -- sealed files ----------------------------------------------------------------------------


def test_a_file_is_sealed_inspected_moved_to_another_key_and_unsealed(server):
    (server.root / "plain.txt").write_text("the content")
    answer = server.post("sealbook/api/sealed/seal", path="plain.txt", key="letters")
    assert answer.json()["path"] == "plain.txt.sealed", answer.text
    inspected = server.get("sealbook/api/sealed", params={"path": "plain.txt.sealed"})
    assert inspected["keys"] == [{"name": "letters", "version": 1}]
    assert inspected["size"] == len("the content")
    assert "not authenticated" in inspected["note"]
    assert (
        server.post("sealbook/api/sealed/rekey", path="plain.txt.sealed", to="more/letters").status_code
        == 200
    )
    inspected = server.get("sealbook/api/sealed", params={"path": "plain.txt.sealed"})
    assert inspected["keys"] == [{"name": "more/letters", "version": 1}]
    answer = server.post("sealbook/api/sealed/unseal", path="plain.txt.sealed", target="back.txt")
    assert answer.status_code == 200, answer.text
    assert (server.root / "back.txt").read_text() == "the content"


def test_a_file_whose_key_demands_attestation_is_not_unsealed_here(server):
    (server.root / "guarded.txt").write_text("for the enclave")
    assert server.post("sealbook/api/sealed/seal", path="guarded.txt", key="patients").status_code == 200
    answer = server.post("sealbook/api/sealed/unseal", path="guarded.txt.sealed", target="leak.txt")
    assert answer.status_code == 403
    assert "attested sealbook kernel" in answer.json()["message"]
    assert not (server.root / "leak.txt").exists()
    answer = server.post("sealbook/api/sealed/rekey", path="guarded.txt.sealed", to="letters")
    assert answer.status_code == 403, "a key with another guard"


def test_nothing_is_overwritten_unless_that_is_asked_for(server):
    (server.root / "one.txt").write_text("new")
    (server.root / "one.txt.sealed").write_text("in the way")
    answer = server.post("sealbook/api/sealed/seal", path="one.txt", key="letters")
    assert answer.status_code == 409
    assert (server.root / "one.txt.sealed").read_text() == "in the way"
    assert (
        server.post("sealbook/api/sealed/seal", path="one.txt", key="letters", force=True).status_code == 200
    )
    answer = server.post(
        "sealbook/api/sealed/unseal", path="one.txt.sealed", target="one.txt.sealed", force=True
    )
    assert answer.status_code == 400, "never onto itself"


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "/../outside.txt",
        "a/../../outside.txt",
        "..",
        "",
        ".hidden",
        "x\0y",
        "folder",
        "n" * 5000,
    ],
)
def test_only_files_below_the_servers_root_can_be_named(server, path):
    (server.root / "folder").mkdir(exist_ok=True)
    (server.root / ".hidden").write_text("hidden")
    (server.root.parent / "outside.txt").write_text("outside")
    for answer in (
        server.post("sealbook/api/sealed/seal", path=path, key="letters", target="stolen.sealed"),
        server.request("GET", "sealbook/api/sealed", params={"path": path}),
        server.post("sealbook/api/sealed/rekey", path=path, to="letters"),
    ):
        assert answer.status_code in (400, 404), answer.text
    assert not (server.root / "stolen.sealed").exists()
    (server.root / "in.txt").write_text("in")
    if path != "folder":
        answer = server.post(
            "sealbook/api/sealed/seal", path="in.txt", key="letters", target=path, force=True
        )
        assert path == "" or answer.status_code in (400, 404), answer.text
    assert (server.root.parent / "outside.txt").read_text() == "outside"


@pytest.mark.parametrize(
    "body",
    [
        [],
        ["path", "key"],
        "text",
        {"path": 1, "key": "letters"},
        {"path": "shape.txt", "key": "letters", "more": "y"},
        {"path": "shape.txt", "key": ["letters"]},
        {"path": "shape.txt", "key": "letters", "force": 1},
        {"path": "shape.txt", "key": "letters", "target": None},
    ],
)
def test_requests_of_another_shape_are_refused(server, body):
    (server.root / "shape.txt").write_text("sealed by nobody")
    answer = server.request("POST", "sealbook/api/sealed/seal", json=body)
    assert answer.status_code == 400
    assert "Traceback" not in answer.text


def test_names_of_keys_are_listed_and_no_key(server):
    listed = server.get("sealbook/api/keys")["keys"]
    assert {(key["name"], key["guard"]) for key in listed} >= {("letters", "none"), ("patients", "simulated")}
    assert all(set(key) == {"name", "guard", "version", "description"} for key in listed)


# -- who may ask -----------------------------------------------------------------------------

GETS = [
    "trust",
    "kernels/{}/attestation",
    "kernels/{}/evidence",
    "kernels/{}/policy",
    "refused?path=refused.ipynb",
    "keys",
    "sealed?path=x.sealed",
]
POSTS = ["kernels/{}/attest", "sealed/seal", "sealed/unseal", "sealed/rekey"]


@pytest.mark.parametrize("token", [None, "", "another-users-token", "a-token-of-the-test"])
@pytest.mark.parametrize(("method", "path"), [*(("GET", p) for p in GETS), *(("POST", p) for p in POSTS)])
def test_another_users_token_gets_nothing(server, verified, method, path, token):
    answer = server.request(method, f"sealbook/api/{path.format(verified)}", token=token, json={})
    assert answer.status_code == 403
    assert set(answer.json()) <= {"message", "reason", "traceback"}


@pytest.mark.parametrize("path", POSTS)
def test_another_sites_page_cannot_have_anything_done_with_the_users_cookie(server, verified, path):
    browser = requests.Session()
    browser.get(f"{server.address}/tree?token={server.token}", timeout=60)
    address = f"{server.address}/sealbook/api/{path.format(verified)}"
    assert any("username" in name for name in browser.cookies.keys())  # noqa: SIM118 - a jar, not a dict
    forged = browser.post(address, json={}, timeout=60)
    assert forged.status_code == 403, "a form of another site sends the cookie and no XSRF token"
    foreign = browser.post(
        address,
        json={},
        headers={"X-XSRFToken": browser.cookies["_xsrf"], "Origin": "http://elsewhere.example"},
        timeout=60,
    )
    assert foreign.status_code in (403, 404)
    own = browser.post(address, json={}, headers={"X-XSRFToken": browser.cookies["_xsrf"]}, timeout=60)
    assert own.status_code not in (403, 404) or "XSRF" not in own.text


def test_no_answer_has_a_secret(server, verified, keys):
    run(server, verified, "import sealbook; sealbook.seal('x', 'c.sealed', key='letters')")
    ring = open_keyring(passphrase=lambda: keys)
    raw = [ring.find(name).version().secret for name in ("letters", "more/letters", "patients")]
    secrets = {key.hex() for key in raw} | {base64.b64encode(key).decode() for key in raw}
    secrets |= {keys, server.token}
    for path in GETS:
        text = server.request("GET", f"sealbook/api/{path.format(verified)}").text
        assert not [secret for secret in secrets if secret in text]
    log = server.log.read_text()
    assert not [secret for secret in secrets - {server.token} if secret in log]
    assert "jupyter/server/" not in log, "a traceback of ours"
