"""What people do to a kernel in Gramine: the same as to any other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from helpers import connected, kernel, run, wait_until
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager
from launched import launch_directory


def test_it_is_shown_as_not_attested_and_runs_nevertheless(
    manager: KernelManager, client: BlockingKernelClient
) -> None:
    result = manager.provisioner.attestation
    assert result.accepted
    assert not result.attested
    assert not result.simulated
    assert "not attested" in result.summary()
    assert "Not attested" in run(client, "%attest").text


def test_it_runs_where_the_notebook_lies(manager: KernelManager, client: BlockingKernelClient) -> None:
    run(client, "from pathlib import Path; Path('beside.txt').write_text('seen by the host')")
    assert Path(manager._launch_args["cwd"], "beside.txt").read_text() == "seen by the host"


@pytest.mark.parametrize(
    "busy",
    [
        "while True: pass",
        "import time; time.sleep(600)",
        "import threading; threading.Event().wait()",
        "import asyncio; await asyncio.sleep(600)",
        "import subprocess; subprocess.run(['sleep', '600'])",
    ],
    ids=["python", "sleep", "lock", "await", "subprocess"],
)
def test_an_interrupt_ends_the_cell_and_not_the_kernel(
    busy: str, manager: KernelManager, client: BlockingKernelClient
) -> None:
    message = client.execute(busy)
    time.sleep(3)
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=30)
    assert reply["parent_header"]["msg_id"] == message
    assert reply["content"]["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert wait_until(lambda: run(client, "6 * 7").result == "42")


def test_a_command_that_waits_is_interrupted(manager: KernelManager, client: BlockingKernelClient) -> None:
    client.execute("!sleep 600")
    time.sleep(3)
    manager.interrupt_kernel()
    assert client.get_shell_msg(timeout=30)["content"]["status"] == "ok"
    assert wait_until(lambda: run(client, "6 * 7").result == "42")


def test_commands_and_subprocesses_run(client: BlockingKernelClient) -> None:
    assert run(client, "!echo one; exit 3").text == "one\n"
    assert run(client, "_exit_code").result == "3"
    assert run(client, "out = !ls -d /work\nlist(out)").result == "['/work']"
    assert run(
        client, "import subprocess; subprocess.run(['cat'], input=b'x', capture_output=True).stdout"
    ).result
    assert "two" in run(client, "%%bash\necho two").text


def test_a_python_that_a_cell_starts_is_the_images_own(client: BlockingKernelClient) -> None:
    ran = run(client, "import sys\n!{sys.executable} -c 'import json; print(json.__file__)'")
    assert ran.text.startswith("/python/lib/")


def test_packages_cannot_be_added_and_it_says_how(client: BlockingKernelClient) -> None:
    for magic in ("pip", "conda", "uv"):
        assert "sealbook image build" in run(client, f"%{magic} install six").text


def test_cells_are_timed(client: BlockingKernelClient) -> None:
    assert "Wall time" in run(client, "%time sum(range(1000))").text
    assert "per loop" in run(client, "%timeit -n1 -r1 sum(range(1000))").text


def test_threads_run(client: BlockingKernelClient) -> None:
    code = """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(20) as pool:
            total = sum(pool.map(lambda n: n * n, range(100)))
        total
    """
    assert run(client, textwrap.dedent(code)).result == str(sum(n * n for n in range(100)))


def test_stdin_works(client: BlockingKernelClient) -> None:
    ran = run(client, "input('Who? ')", allow_stdin=True, stdin_hook=lambda _: client.input("Ada"))
    assert ran.result == "'Ada'"


def test_tracebacks_and_questions_show_the_source_of_packages(client: BlockingKernelClient) -> None:
    failing = "import json, traceback\ntry: json.loads('x')\nexcept ValueError: traceback.print_exc()"
    assert "raise JSONDecodeError" in run(client, failing).text
    code = "import inspect, sealbook.session; 'class' in inspect.getsource(sealbook.session)"
    assert run(client, code).result == "True"


def test_a_restart_makes_a_new_kernel(installed: str) -> None:
    with kernel(installed) as (manager, client):
        run(client, "x = 1")
        before = manager.provisioner._registration.kernel_key
        client.stop_channels()
        manager.restart_kernel(now=False)
        assert manager.provisioner._registration.kernel_key != before
        with connected(manager) as again:
            assert (run(again, "x").error or "").startswith("NameError")


def test_a_crashed_kernel_is_seen_as_dead_and_starts_again(installed: str) -> None:
    with kernel(installed) as (manager, client):
        client.execute("import os; os._exit(3)")
        assert wait_until(lambda: not manager.is_alive())
        client.stop_channels()
        manager.restart_kernel(now=True)
        with connected(manager) as again:
            assert run(again, "6 * 7").result == "42"


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    def running(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    return not any(map(running, processes))


@pytest.mark.parametrize("now", [False, True], ids=["asked", "killed"])
def test_a_shut_down_kernel_leaves_no_process_and_no_directory(installed: str, now: bool) -> None:
    with kernel(installed) as (manager, client):
        run(client, "import subprocess; child = subprocess.Popen(['sleep', '300'])")
        processes = family(manager.provisioner.pid)
        assert len(processes) >= 3
        directory = launch_directory(manager)
        assert directory.is_dir()
        client.stop_channels()
        manager.shutdown_kernel(now=now)
    assert wait_until(lambda: gone(processes))
    if now:  # the launcher was killed, too: the next one cleans up
        with kernel(installed):
            pass
    assert wait_until(lambda: not directory.exists())


def test_a_kernel_whose_client_was_killed_ends_with_all_it_started(installed: str, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path[:0] = {[str(Path(__file__).parents[1] / "jupyter")]!r}
            import time
            from helpers import kernel, run
            with kernel({installed!r}) as (manager, client):
                run(client, "import subprocess; child = subprocess.Popen(['sleep', '300'])")
                print(manager.provisioner.pid, flush=True)
                time.sleep(600)
            """
        )
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    processes = family(int(process.stdout.readline()))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert wait_until(lambda: gone(processes), seconds=60)
