"""The parts of the entry point inside Gramine that need no Gramine."""

from __future__ import annotations

import errno
import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sealbook.attestation.gramine import mount_key
from sealbook.encoding import canonical_json
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.jupyter import gramine_kernel, kernelapp
from sealbook.jupyter.gramine_kernel import (
    GramineHeartbeat,
    GramineKernel,
    GramineKernelApp,
    GramineShell,
    bind,
    read_parameters,
)
from sealbook.jupyter.handshake import Challenge

# -- launch parameters -----------------------------------------------------------------------------


@pytest.fixture
def parameters(tmp_path: Path) -> Path:
    return tmp_path / "registration"


def test_the_parameters_are_an_address(parameters):
    parameters.write_bytes(canonical_json({"registration": "tcp://127.0.0.1:1"}))
    assert read_parameters(parameters) == "tcp://127.0.0.1:1"


def test_without_parameters_it_is_said_how_such_a_kernel_is_started(parameters, tmp_path):
    for path in (parameters, tmp_path):
        with pytest.raises(InputError, match=r"runs inside Gramine.*papermill -k sealbook-gramine-sgx"):
            read_parameters(path)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "not valid JSON"),
        (b"tcp://127.0.0.1:1", "not valid JSON"),
        (b"\xff", "not valid"),
        (b"[]", "are not a registration address"),
        (b"null", "are not a registration address"),
        (b"{}", "are not a registration address"),
        (b'{"data_key": null}', "are not a registration address"),
        (b'{"registration": "x", "data_key": null, "exec_lines": "x"}', "are not a registration address"),
        (b'{"registration": 1}', "are not a registration address"),
        (b'{"registration": null}', "are not a registration address"),
        (b'{"registration": "x", "data_key": "study"}', "are not a registration address"),
        (b'{"registration": ["x"]}', "are not a registration address"),
        (b'{"registration": "x", "registration": "y"}', "The launch parameters"),
        (b'{"registration": "x"}' + b" " * 4096, "larger than the 4096 bytes"),
        (b"[" * 100, "nested deeper"),
    ],
)
def test_parameters_that_say_anything_else_are_refused_in_one_sentence(parameters, data, cause):
    parameters.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_parameters(parameters)
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_an_end_is_not_read_to_it():
    with pytest.raises(InputError, match="4096"):
        read_parameters(Path("/dev/zero"))


@given(data=st.binary(max_size=200))
def test_whatever_the_host_writes_there_is_read_or_refused(data):
    reader = SimpleNamespace(open=lambda mode: io.BytesIO(data))
    try:
        address, key = read_parameters(reader)
    except SealbookError:
        return
    assert isinstance(address, str)
    assert isinstance(key, str | None)


def app() -> GramineKernelApp:
    return GramineKernelApp(attester=None)


def test_the_app_takes_its_parameters_from_the_file_and_nothing_from_its_arguments(parameters, monkeypatch):
    parameters.write_bytes(canonical_json({"registration": "tcp://127.0.0.1:4711"}))
    monkeypatch.setattr(gramine_kernel, "PARAMETERS", parameters)
    started = app()
    started.parse_command_line(["--IPKernelApp.exec_lines=evil", "--registration=tcp://6.6.6.6:6"])
    assert started.registration == "tcp://127.0.0.1:4711"
    assert started.exec_lines == []


@pytest.mark.parametrize(
    "address",
    ["", "tcp://127.0.0.1:1 --debug", "tcp://127.0.0.1", "ipc://x", "tcp://127.0.0.1:1\n--debug", "--help"],
)
def test_an_address_that_is_none_ends_the_kernel_with_a_sentence(parameters, monkeypatch, address):
    parameters.write_bytes(canonical_json({"registration": address}))
    monkeypatch.setattr(gramine_kernel, "PARAMETERS", parameters)
    written: list[str] = []
    monkeypatch.setattr(sys, "__stderr__", SimpleNamespace(write=written.append))
    with pytest.raises(SystemExit) as end:
        app().parse_command_line([])
    assert end.value.code == 2
    assert "".join(written).startswith("sealbook kernel: ")


def test_missing_parameters_end_the_kernel_with_a_sentence(parameters, monkeypatch):
    monkeypatch.setattr(gramine_kernel, "PARAMETERS", parameters)
    written: list[str] = []
    monkeypatch.setattr(sys, "__stderr__", SimpleNamespace(write=written.append))
    with pytest.raises(SystemExit) as end:
        app().parse_command_line([])
    assert end.value.code == 2
    assert "runs inside Gramine" in "".join(written)


def test_the_entry_point_outside_of_gramine_is_one_sentence_and_no_kernel():
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-m", "sealbook.jupyter.gramine_kernel"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sealbook kernel: ")
    assert done.stderr.count("\n") == 1


# -- sockets ---------------------------------------------------------------------------------------


@pytest.fixture
def context():
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_a_bound_socket_is_at_its_address_and_answers(context):
    server = context.socket(zmq.REP)
    port = bind(server, "127.0.0.1", 0)
    assert server.getsockopt_string(zmq.LAST_ENDPOINT) == f"tcp://127.0.0.1:{port}"
    client = context.socket(zmq.REQ)
    client.connect(f"tcp://127.0.0.1:{port}")
    client.send(b"ping")
    assert server.poll(5000)
    server.send(server.recv() + b"!")
    assert client.poll(5000)
    assert client.recv() == b"ping!"


def test_a_bound_socket_listens_on_no_other_address(context):
    server = context.socket(zmq.REP)
    port = bind(server, "127.0.0.1", 0)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=2)


def test_a_port_that_is_asked_for_is_taken(context):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert bind(context.socket(zmq.ROUTER), "127.0.0.1", port) == port


def test_a_port_in_use_is_the_error_that_ipykernel_tries_again_on(context):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = context.socket(zmq.ROUTER)
        with pytest.raises(zmq.ZMQError) as caught:
            bind(server, "127.0.0.1", taken.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE == zmq.EADDRINUSE


def test_a_closed_socket_gives_its_port_back(context):
    server = context.socket(zmq.ROUTER)
    port = bind(server, "127.0.0.1", 0)
    server.close(linger=0)
    context.destroy(linger=0)
    with socket.create_server(("127.0.0.1", port)):
        pass


#: As in Gramine: no netlink sockets, by which getifaddrs asks for interfaces. A filter of the host's kernel
#: (seccomp) refuses them to this process.
_NO_NETLINK = """
import ctypes, errno, os, socket, struct, sys
import zmq

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

def statement(code, jt, jf, k):
    return struct.pack("<HBBI", code, jt, jf, k)

filters = ctypes.create_string_buffer(
    statement(0x20, 0, 0, 0)  # the number of the call
    + statement(0x15, 0, 3, 41)  # socket, on x86-64
    + statement(0x20, 0, 0, 16)  # its first argument
    + statement(0x15, 0, 1, int(socket.AF_NETLINK))
    + statement(0x06, 0, 0, 0x00050000 | errno.EAFNOSUPPORT)
    + statement(0x06, 0, 0, 0x7FFF0000)
)
program = Program(6, ctypes.addressof(filters))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit(77)
try:
    socket.socket(socket.AF_NETLINK)
    sys.exit(77)
except OSError:
    pass
server = zmq.Context().socket(zmq.REP)
"""

_NO_FILTERS = 77


def without_netlink(code: str) -> subprocess.CompletedProcess[str]:
    if os.uname().machine != "x86_64":
        pytest.skip("the filter that stands for Gramine is written for x86-64")
    done = subprocess.run(
        [sys.executable, "-c", _NO_NETLINK + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == _NO_FILTERS:
        pytest.skip("this machine takes no seccomp filters")
    return done


def test_binding_asks_for_no_network_interfaces():
    done = without_netlink(
        """
        from sealbook.jupyter.gramine_kernel import bind
        port = bind(server, "127.0.0.1", 0)
        client = zmq.Context.instance().socket(zmq.REQ)
        client.connect(f"tcp://127.0.0.1:{port}")
        client.send(b"x")
        print(server.recv(), flush=True)
        os._exit(0)
        """
    )
    assert done.stdout.strip() == "b'x'", done.stderr


def test_every_socket_of_the_kernel_binds_so():
    """The heartbeat and the four others; the stock way ends a process in Gramine."""
    server = SimpleNamespace(calls=[])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gramine_kernel, "bind", lambda *arguments: server.calls.append(arguments) or 4711)
        started = app()
        assert started._try_bind_socket("socket", 5) == 4711
        heartbeat = SimpleNamespace(socket="heartbeat", ip="127.0.0.1", port=6)
        GramineHeartbeat._try_bind_socket(heartbeat)
    assert server.calls == [("socket", "127.0.0.1", 5), ("heartbeat", "127.0.0.1", 6)]
    assert GramineKernelApp.heartbeat_class is GramineHeartbeat


def test_the_address_is_not_looked_for_among_the_interfaces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jupyter_client.localinterfaces.localhost", lambda: pytest.fail("looked up"))
        patch.setattr("ipykernel.kernelapp.localhost", lambda: pytest.fail("looked up"), raising=False)
        assert app().ip == "127.0.0.1"


# -- shell and interrupts --------------------------------------------------------------------------


def test_commands_run_without_a_pseudo_terminal():
    ran: list[str] = []
    GramineShell.system(SimpleNamespace(system_raw=ran.append), "ls")
    assert ran == ["ls"]
    assert app().kernel_class is GramineKernel
    assert GramineKernel.shell_class.default_value is GramineShell


def test_a_command_that_could_not_be_started_is_a_sentence_and_an_exit_status(capsys):
    def fail(command: str) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    shell = SimpleNamespace(system_raw=fail, user_ns={})
    GramineShell.system(shell, "ls")
    assert shell.user_ns == {"_exit_code": 126}
    said = capsys.readouterr().err
    assert said.startswith("The command was not run (Cannot allocate memory)")
    assert "vm.max_map_count" in said
    assert said.count("\n") == 1


_INTERRUPTED = """
import os, signal, subprocess, sys, threading, time
from sealbook.jupyter.gramine_kernel import GramineKernel

kernel = GramineKernel.__new__(GramineKernel)
#: A process of the same group that is no child: stock would signal it, too.
bystander = int(sys.argv[1])

def interrupt():
    time.sleep(0.3)
    kernel._signal_interrupt()

threading.Thread(target=interrupt, daemon=True).start()
start = time.monotonic()
try:
    {busy}
    print("not interrupted")
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - start < 5)
os.kill(bystander, 0)
"""


@pytest.mark.parametrize(
    "busy",
    [
        "time.sleep(30)",
        "threading.Event().wait(30)",
        "while time.monotonic() - start < 30: pass",
        "subprocess.run(['sleep', '30'])",
        "os.read(os.pipe()[0], 1)",
    ],
    ids=["sleep", "lock", "python", "subprocess", "read"],
)
def test_an_interrupt_wakes_the_main_thread_whatever_it_waits_for(busy):
    with subprocess.Popen(["sleep", "60"], process_group=0) as bystander:
        try:
            done = subprocess.run(
                [sys.executable, "-c", _INTERRUPTED.format(busy=busy), str(bystander.pid)],
                capture_output=True,
                text=True,
                timeout=60,
                process_group=bystander.pid,
                check=False,
            )
            assert done.stdout.strip() == "interrupted True", done.stderr
            # Stock signals the process group, which in Gramine is every process.
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_an_interrupt_reaches_children_and_their_children():
    code = _INTERRUPTED.replace("    {busy}\n", "    {busy}\n    time.sleep(30)\n", 1).format(
        # A shell runs its trap only when what it waits for has ended.
        busy="""child = subprocess.Popen(["sh", "-c", "trap 'exit 7' INT; sleep 30; exit 8"])"""
    )
    code += "print(child.wait(10))\n"
    done = subprocess.run(
        [sys.executable, "-c", code, str(os.getpid())],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["interrupted True", "7"], done.stderr


def test_a_child_that_ended_meanwhile_is_no_error(monkeypatch):
    class Gone:
        def send_signal(self, number):
            raise psutil.NoSuchProcess(1)

    sent: list[Any] = []
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [Gone(), Gone()])
    monkeypatch.setattr(signal, "pthread_kill", lambda *arguments: sent.append(arguments))
    GramineKernel._signal_interrupt(SimpleNamespace(spark=None))
    assert sent == [(threading.main_thread().ident, signal.SIGINT)]


# -- the data mount --------------------------------------------------------------------------------


class Keys:
    def __init__(self, error: SealbookError | None = None) -> None:
        self.error = error
        self.asked: list[tuple[str, int]] = []

    def get(self, name: str, version: int) -> Any:
        self.asked.append((name, version))
        if self.error is not None:
            raise self.error
        return SimpleNamespace(secret=bytes(range(32)))


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Open an image's mounts with these keys; returns what Gramine was given and what was logged."""

    def open_with(keys: Keys, *mounts: str) -> tuple[list[tuple[str, bytes]], list[str]]:
        given: list[tuple[str, bytes]] = []
        logged: list[str] = []
        (tmp_path / "keys").mkdir()
        for mount in mounts:
            (tmp_path / "keys" / mount).touch()
        monkeypatch.setattr(gramine_kernel, "DIRECTORY", tmp_path)
        monkeypatch.setattr(gramine_kernel.session, "current", lambda: SimpleNamespace(keys=keys))
        monkeypatch.setattr(gramine_kernel, "set_mount_key", lambda *arguments: given.append(arguments))
        log = SimpleNamespace(warning=lambda text, *values: logged.append(text % values))
        GramineKernelApp._open_mounts(SimpleNamespace(log=log), "mine")
        return given, logged

    return open_with


@pytest.mark.parametrize("mounts", [("data",), ("data", "work")])
def test_the_mounts_are_opened_with_derived_keys_of_the_first_version(opened, mounts):
    keys = Keys()
    wanted = [(mount, mount_key(bytes(range(32)), mount)) for mount in mounts]
    assert opened(keys, "scratch", *mounts) == (wanted, [])
    assert keys.asked == [("mine", 1)]


def test_each_mount_has_a_key_of_its_own(opened):
    given, _ = opened(Keys(), "data", "work")
    assert len({key for _, key in given}) == 2


def test_without_its_key_a_mount_stays_closed_and_the_kernel_goes_on(opened):
    given, logged = opened(Keys(RefusedError("the key is for other code.")), "data")
    assert given == []
    assert len(logged) == 1
    assert "stays closed: the key is for other code." in logged[0]


def challenge(**changed: Any) -> Challenge:
    asked = Challenge(
        client_key="rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
        nonce=bytes(32),
        audience="jupyter-client",
        broker="tcp://127.0.0.1:1",
    )
    return replace(asked, **changed)


def test_the_kernel_asks_for_the_key_only_after_it_was_accepted(monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(
        gramine_kernel.AttestedKernelApp, "write_connection_file", lambda self: order.append("registered")
    )
    monkeypatch.setattr(GramineKernelApp, "_open_mounts", lambda self, name: order.append(name))
    started = app()
    started._challenge = challenge()
    started.write_connection_file()
    assert order == ["registered"]
    started._challenge = challenge(data_key="mine")
    started.write_connection_file()
    assert order == ["registered", "registered", "mine"]


def test_a_refused_kernel_never_asks(monkeypatch):
    def refuse(self: Any) -> None:
        sys.exit(2)

    monkeypatch.setattr(gramine_kernel.AttestedKernelApp, "write_connection_file", refuse)
    monkeypatch.setattr(GramineKernelApp, "_open_mounts", lambda self, name: pytest.fail("asked"))
    started = app()
    started._challenge = challenge(data_key="mine")
    with pytest.raises(SystemExit):
        started.write_connection_file()


# -- the owner of the image --------------------------------------------------------------------------


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ed25519PrivateKey:
    """The owner of the image that the kernel under test runs in."""
    key = Ed25519PrivateKey.generate()
    (tmp_path / "owner").write_text(key.public_key().public_bytes_raw().hex())
    monkeypatch.setattr(gramine_kernel, "OWNER", tmp_path / "owner")
    return key


def test_a_challenge_that_the_owner_signed_is_answered(owner):
    app().check_challenge(Challenge.decode(challenge(data_key="study").signed(owner).encode()))


@pytest.mark.parametrize(
    "change",
    [
        {"signature": b""},
        {"signature": bytes(64)},
        {"nonce": bytes([1] * 32)},
        {"client_key": "B8#JLSzfxjyGWzlLZ]$[%?)Wd6@$h7Q-8Ne]r2hX"},
        {"audience": "another"},
        {"broker": "tcp://127.0.0.1:2"},
        {"data_key": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_challenge_that_is_not_word_for_word_the_owners_is_not_answered(owner, change):
    with pytest.raises(RefusedError, match="answers only to its owner"):
        app().check_challenge(replace(challenge().signed(owner), **change))


def test_a_stranger_is_not_answered(owner):
    with pytest.raises(RefusedError, match="answers only to its owner"):
        app().check_challenge(challenge().signed(Ed25519PrivateKey.generate()))


def test_an_image_that_says_so_answers_anyone(tmp_path, monkeypatch):
    (tmp_path / "owner").write_text("anyone")
    monkeypatch.setattr(gramine_kernel, "OWNER", tmp_path / "owner")
    app().check_challenge(challenge())


@pytest.mark.parametrize("content", [None, "", "nobody", "ab"])
def test_a_host_that_hides_the_owner_gets_no_answer(tmp_path, monkeypatch, content):
    if content is not None:
        (tmp_path / "owner").write_text(content)
    monkeypatch.setattr(gramine_kernel, "OWNER", tmp_path / "owner")
    with pytest.raises(RefusedError):
        app().check_challenge(challenge())


def test_the_challenge_is_checked_before_anything_is_bound(owner, monkeypatch):
    class Registrar:
        def close(self) -> None: ...

    monkeypatch.setattr(kernelapp.socket, "create_connection", lambda *_: Registrar())
    monkeypatch.setattr(kernelapp, "send_message", lambda *_: None)
    monkeypatch.setattr(kernelapp, "receive_message", lambda *_: challenge().encode())
    ended: list[str] = []

    def end(self: Any, sentence: str) -> None:
        ended.append(sentence)
        raise SystemExit(2)

    monkeypatch.setattr(GramineKernelApp, "_end", end)
    started = app()
    started.registration = "tcp://127.0.0.1:1"
    with pytest.raises(SystemExit):
        started.init_connection_file()
    assert "answers only to its owner" in ended[0]
