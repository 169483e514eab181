"""Who is let in on the five channels of a kernel, and what the host gets to see of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import zmq
from helpers import kernel, raw_socket, run
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from sealbook.jupyter.curve import CurveKeys

CHANNELS = {
    "shell": zmq.DEALER,
    "control": zmq.DEALER,
    "stdin": zmq.DEALER,
    "iopub": zmq.SUB,
    "hb": zmq.REQ,
}
MARKER = "marker-7c0f63d1-plaintext"


def what_a_stranger_gets(
    channel: str, manager: KernelManager, client: BlockingKernelClient, **curve: bytes
) -> list[bytes]:
    """Listen and ask on one channel while the kernel is busy, and return every frame that came."""
    with raw_socket(CHANNELS[channel], getattr(manager, f"{channel}_port"), **curve) as socket:
        if channel == "hb":
            socket.send(b"are you there?", zmq.NOBLOCK) if socket.poll(500, zmq.POLLOUT) else None
        elif channel in ("shell", "control"):
            request = client.session.msg("kernel_info_request")
            frames = client.session.serialize(request)
            if socket.poll(500, zmq.POLLOUT):
                # Who is refused in between has nobody any more to send it to.
                with contextlib.suppress(zmq.Again):
                    socket.send_multipart(frames, zmq.NOBLOCK)
        else:
            socket.poll(500)  # a subscription needs its time to arrive
        run(client, f"print('{MARKER}')")
        if channel == "stdin" and socket.poll(500, zmq.POLLOUT):
            socket.send(b"hello", zmq.NOBLOCK)
        got = []
        while socket.poll(700):
            got += socket.recv_multipart()
        return got


@pytest.mark.parametrize("channel", [c for c in CHANNELS if c != "stdin"])
def test_the_one_admitted_client_gets_an_answer(
    channel: str, manager: KernelManager, client: BlockingKernelClient
) -> None:
    """The control of the tests below: the same questions, asked with the right keys, are answered."""
    provisioner = manager.provisioner
    got = what_a_stranger_gets(
        channel,
        manager,
        client,
        curve_serverkey=provisioner._registration.kernel_key.encode(),
        curve_publickey=provisioner._keys.public,
        curve_secretkey=provisioner._keys.secret,
    )
    assert got


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_plain_zmq_client_gets_nothing(
    channel: str, manager: KernelManager, client: BlockingKernelClient
) -> None:
    assert what_a_stranger_gets(channel, manager, client) == []


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_stranger_with_all_public_material_gets_nothing(
    channel: str, manager: KernelManager, client: BlockingKernelClient
) -> None:
    """The quote publishes the kernel's public key: knowing it must not be enough."""
    own = CurveKeys.generate()
    got = what_a_stranger_gets(
        channel,
        manager,
        client,
        curve_serverkey=manager.provisioner._registration.kernel_key.encode(),
        curve_publickey=own.public,
        curve_secretkey=own.secret,
    )
    assert got == []


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_stranger_who_claims_the_clients_public_key_gets_nothing(
    channel: str, manager: KernelManager, client: BlockingKernelClient
) -> None:
    """Public keys are public: without the secret half the CURVE handshake does not complete."""
    provisioner = manager.provisioner
    got = what_a_stranger_gets(
        channel,
        manager,
        client,
        curve_serverkey=provisioner._registration.kernel_key.encode(),
        curve_publickey=provisioner._keys.public,
        curve_secretkey=CurveKeys.generate().secret,
    )
    assert got == []


@pytest.mark.parametrize("which", [0, 1], ids=["requests", "pings"])
def test_a_stranger_gets_nothing_from_the_broker_channel(
    which: int, manager: KernelManager, client: BlockingKernelClient
) -> None:
    provisioner = manager.provisioner
    port = int(provisioner._broker_server.address.split()[which].rpartition(":")[2])
    own = CurveKeys.generate()
    for curve in (
        {},
        {
            "curve_serverkey": provisioner._keys.public,
            "curve_publickey": own.public,
            "curve_secretkey": own.secret,
        },
    ):
        with raw_socket(zmq.REQ, port, **curve) as socket:
            if socket.poll(500, zmq.POLLOUT):
                socket.send(b'{"op":"ping"}', zmq.NOBLOCK)
            assert not socket.poll(700)


def test_the_kernel_listens_on_its_five_registered_ports_and_no_other(
    manager: KernelManager, client: BlockingKernelClient
) -> None:
    run(client, "print('busy', flush=True)")
    process = psutil.Process(manager.provisioner.pid)
    listening = {c.laddr.port for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening == set(manager.provisioner._registration.ports.values())


def test_no_client_that_the_manager_makes_speaks_without_encryption(manager: KernelManager) -> None:
    for client in (manager.client(), manager.blocking_client()):
        try:
            client.start_channels(stdin=False, hb=False)
            for channel in (client.shell_channel, client.iopub_channel, client.control_channel):
                assert channel.socket.getsockopt(zmq.MECHANISM) == zmq.CURVE
        finally:
            client.stop_channels()


def secrets_of(manager: KernelManager, client: BlockingKernelClient) -> dict[str, bytes]:
    """Return what must not be found on the host: keys of both ends and what a cell printed."""
    run(
        client,
        "from sealbook import session as _s\n_k = _s.current().keys.current('session/secret-marker')",
    )
    in_kernel = run(
        client,
        "import json; json.dumps([get_ipython().parent.parent._keys.secret.decode(), "
        "get_ipython().kernel.session.key.decode(), _k.secret.hex()])",
    ).result
    assert in_kernel is not None
    kernel_curve, hmac, data_key = json.loads(in_kernel.strip("'"))
    assert hmac == manager.session.key.decode()
    return {
        "the kernel's CURVE secret": kernel_curve.encode(),
        "the client's CURVE secret": manager.provisioner._keys.secret,
        "the HMAC key": hmac.encode(),
        "a data key": data_key.encode(),
        "a data key, raw": bytes.fromhex(data_key),
        "a cell's text and output": MARKER.encode(),
    }


def test_no_secret_is_in_a_file_a_command_line_an_environment_or_a_log(
    kernel_name: str, user_home: Path, tmp_path: Path
) -> None:
    log = tmp_path / "kernel.log"
    with (
        log.open("wb") as output,
        kernel(kernel_name, stdout=output, stderr=output, cwd=str(tmp_path)) as (
            manager,
            client,
        ),
    ):
        run(client, f"print('{MARKER}')")
        run(client, f"raise ValueError('{MARKER}')")
        secrets = secrets_of(manager, client)
        pid = manager.provisioner.pid
        places = {
            "command line": Path(f"/proc/{pid}/cmdline").read_bytes(),
            "environment": Path(f"/proc/{pid}/environ").read_bytes(),
            "own environment": Path("/proc/self/environ").read_bytes(),
            "own command line": Path("/proc/self/cmdline").read_bytes(),
        }
        for root in (user_home, tmp_path):
            places |= {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        profile = run(client, "import IPython; print(IPython.paths.get_ipython_dir())").text.strip()
        places |= {str(p): p.read_bytes() for p in Path(profile).rglob("*") if p.is_file()}
        connection_file = Path(manager.connection_file)
        assert json.loads(connection_file.read_text())["key"] == ""
        places["connection file"] = connection_file.read_bytes()
        found = [(name, place) for place, data in places.items() for name, s in secrets.items() if s in data]
        assert found == []


def test_the_search_for_secrets_finds_one_that_is_there(kernel_name: str, tmp_path: Path) -> None:
    """The control of the test above, for the places where a slip is likeliest."""
    log = tmp_path / "kernel.log"
    with log.open("wb") as output, kernel(kernel_name, stdout=output, stderr=output) as (_, client):
        run(client, f"import sys; print('{MARKER}', file=sys.__stderr__, flush=True)")
        run(client, f"import os; os.write(2, b'{MARKER}')")
        run(client, f"open({str(tmp_path / 'left-behind')!r}, 'w').write('{MARKER}')")
        assert MARKER.encode() in (tmp_path / "left-behind").read_bytes()


def test_a_kernel_that_lost_its_client_ends_by_itself(kernel_name: str) -> None:
    script = f"""
        import os, signal, sys
        from jupyter_client.manager import KernelManager
        manager = KernelManager(kernel_name={kernel_name!r})
        manager.start_kernel()
        client = manager.client(); client.start_channels(); client.wait_for_ready(timeout=60)
        client.execute("import subprocess, time; subprocess.Popen(['sleep', '300']); time.sleep(300)")
        print(manager.provisioner.pid, flush=True)
        sys.stdin.read()
    """
    from helpers import wait_until

    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    ) as user:
        assert user.stdout is not None
        process = psutil.Process(int(user.stdout.readline()))
        assert wait_until(lambda: process.children())
        family = [process, *process.children(recursive=True)]
        user.kill()
    assert wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in family), seconds=90)


def test_what_cells_and_their_processes_print_does_not_reach_the_host(
    kernel_name: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file, kernel(kernel_name, stdout=file, stderr=file) as (_, client):
        run(client, "import os, subprocess, sys, time; os.write(1, b'printed-1')")
        # What processes print comes over a pipe, a moment later.
        text = run(client, "subprocess.run(['echo', 'printed-2'], stdout=sys.stdout); time.sleep(1)").text
        text += run(client, "os.system('echo printed-3 >&2'); time.sleep(1)").text
        text += run(client, "!echo printed-4").text
    assert b"printed" not in log.read_bytes()
    assert [number for number in (2, 3, 4) if f"printed-{number}" not in text] == []
