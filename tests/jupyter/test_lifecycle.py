"""What people do to kernels: interrupt, restart, crash, answer, run beside, debug."""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path

import pytest
from helpers import connected, kernel, run, wait_until
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager


def test_the_kernel_says_what_it_is(manager: KernelManager, client: BlockingKernelClient) -> None:
    result = manager.provisioner.attestation
    assert result.accepted
    assert result.simulated
    assert "simulated" in result.summary()
    assert client.kernel_info(reply=True, timeout=30)["content"]["implementation"] == "sealbook"


def test_the_magics_are_there_without_being_loaded(client: BlockingKernelClient) -> None:
    assert "simulated" in run(client, "%attest").text


def test_stdin_works(client: BlockingKernelClient) -> None:
    asked = []

    def answer(message: dict) -> None:
        asked.append(message["content"]["prompt"])
        client.input("Ada")

    ran = run(client, "input('Who? ')", allow_stdin=True, stdin_hook=answer)
    assert (asked, ran.result) == (["Who? "], "'Ada'")


@pytest.mark.parametrize(
    "busy",
    [
        "while True: pass",
        "import time; time.sleep(600)",
        "import subprocess; subprocess.run(['sleep', '600'])",
    ],
    ids=["python", "sleep", "subprocess"],
)
def test_an_interrupt_ends_the_cell_and_not_the_kernel(
    busy: str, manager: KernelManager, client: BlockingKernelClient
) -> None:
    message = client.execute(busy)
    time.sleep(1)
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=30)
    assert reply["parent_header"]["msg_id"] == message
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    # Stock ipykernel aborts what is queued right behind an error; the client asks again.
    assert wait_until(lambda: run(client, "6 * 7").result == "42")


def test_the_heart_beats(client: BlockingKernelClient) -> None:
    assert wait_until(client.hb_channel.is_beating)
    assert client.is_alive()


def test_two_subshells_run_beside_each_other(manager: KernelManager, client: BlockingKernelClient) -> None:
    client.control_channel.send(client.session.msg("create_subshell_request"))
    subshell = client.get_control_msg(timeout=30)["content"]["subshell_id"]
    blocked = client.execute("import time\nwhile not globals().get('released'): time.sleep(0.05)\n'done'")
    beside = client.session.msg("execute_request", {"code": "released = True", "silent": False})
    beside["header"]["subshell_id"] = subshell
    client.shell_channel.send(beside)
    parents = {client.get_shell_msg(timeout=30)["parent_header"]["msg_id"] for _ in range(2)}
    assert parents == {blocked, beside["header"]["msg_id"]}


def test_the_debugger_is_refused_in_a_sentence_and_not_claimed(client: BlockingKernelClient) -> None:
    features = client.kernel_info(reply=True, timeout=30)["content"]["supported_features"]
    assert "debugger" not in features
    assert "kernel subshells" in features
    request = client.session.msg("debug_request", {"type": "request", "seq": 7, "command": "initialize"})
    client.control_channel.send(request)
    content = client.get_control_msg(timeout=30)["content"]
    assert (content["success"], content["request_seq"]) == (False, 7)
    assert "TCP port" in content["message"]


def test_connect_info_says_that_no_second_client_can_connect(client: BlockingKernelClient) -> None:
    assert "one client" in run(client, "%connect_info").text


def test_history_works_and_stays_in_memory(client: BlockingKernelClient) -> None:
    run(client, "remembered = 1")
    assert "remembered = 1" in run(client, "%history -n").text
    assert ":memory:" in run(client, "print(get_ipython().history_manager.hist_file)").text


def test_a_restart_makes_new_keys_at_both_ends(kernel_name: str) -> None:
    with kernel(kernel_name) as (manager, client):
        run(client, "x = 1")
        before = (
            manager.provisioner._registration.kernel_key,
            manager.provisioner._keys.public,
            manager.session.key,
            manager.provisioner.attestation.evidence_id,
        )
        client.stop_channels()
        manager.restart_kernel(now=False)
        after = (
            manager.provisioner._registration.kernel_key,
            manager.provisioner._keys.public,
            manager.session.key,
            manager.provisioner.attestation.evidence_id,
        )
        assert not set(before) & set(after)
        with connected(manager) as again:
            assert (run(again, "x").error or "").startswith("NameError")
        assert b'"key": ""' in Path(manager.connection_file).read_bytes()


def test_a_crashed_kernel_is_seen_as_dead_and_starts_again(kernel_name: str) -> None:
    with kernel(kernel_name) as (manager, client):
        client.execute("import os; os._exit(3)")
        assert wait_until(lambda: not manager.is_alive())
        client.stop_channels()
        manager.restart_kernel(now=True)
        with connected(manager) as again:
            assert run(again, "6 * 7").result == "42"


def test_a_shut_down_kernel_leaves_no_process(kernel_name: str) -> None:
    import psutil

    with kernel(kernel_name) as (manager, client):
        run(client, "import subprocess; child = subprocess.Popen(['sleep', '300'])")
        process = psutil.Process(manager.provisioner.pid)
        family = [process, *process.children(recursive=True)]
        client.stop_channels()
        manager.shutdown_kernel(now=False)
    assert wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in family))


def test_two_kernels_of_one_process_do_not_disturb_each_other(kernel_name: str) -> None:
    with kernel(kernel_name) as (_, one), kernel(kernel_name) as (_, two):
        run(one, "x = 1")
        run(two, "x = 2")
        assert (run(one, "x").result, run(two, "x").result) == ("1", "2")


def test_output_of_forked_children_arrives_over_what_they_inherited(kernel_name: str) -> None:
    # ipykernel does not take over the descriptors when it believes to run below pytest.
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    code = """
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=print, args=("from a child",))
        child.start(); child.join()
        import time; time.sleep(0.5)
    """
    with kernel(kernel_name, env=environment) as (_, client):
        assert "from a child" in run(client, textwrap.dedent(code)).text
        assert run(client, "6 * 7").result == "42"


def test_the_attestation_of_a_kernel_that_ended_is_not_shown_any_more(kernel_name: str) -> None:
    with kernel(kernel_name) as (manager, client):
        assert manager.provisioner.attestation.accepted
        client.execute("import os; os._exit(3)")
        assert wait_until(lambda: not manager.is_alive())
        assert manager.provisioner.attestation is None


def test_completion_opens_no_pickle_of_the_hosts(kernel_name: str, user_home: Path) -> None:
    """jedi and IPython keep syntax trees and module names as pickles, where the host can replace them."""
    before = set(user_home.rglob("*.pkl"))  # of other tests, which complete in this process
    with kernel(kernel_name) as (_, client):
        run(client, "import json")
        for text in ("json.dum", "import pan", "from os imp", "%conf"):
            client.complete(text, len(text), reply=True, timeout=60)
        assert "dumps" in str(client.complete("json.dum", 8, reply=True, timeout=60)["content"]["matches"])
        profile = run(client, "import IPython; print(IPython.paths.get_ipython_dir())").text.strip()
        loaded = run(
            client, "import sys; print('jedi' in sys.modules, 'pickleshare' in str(type(get_ipython().db)))"
        )
        assert loaded.text == "False False\n"
        assert not (Path(profile) / "db").exists()
    assert set(user_home.rglob("*.pkl")) == before


def test_openssl_takes_no_configuration_from_the_host(
    kernel_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "openssl.cnf"
    config.write_text("openssl_conf = nothing\n")
    monkeypatch.setenv("OPENSSL_CONF", str(config))
    with kernel(kernel_name) as (_, client):
        assert run(client, "import os; os.environ['OPENSSL_CONF']").result == "'/dev/null'"
