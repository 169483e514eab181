"""The host sits between both ends while a kernel registers, and tries everything it can change."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from helpers import kernel, run
from jupyter_client.manager import KernelManager

from sealbook.attestation import Policy, policy_text
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.jupyter.curve import CurveKeys
from sealbook.jupyter.provisioner import AttestedProvisioner

Fields = dict[str, Any]


class ManInTheMiddle:
    """Forwards the registration's messages, changed as the test wants."""

    def __init__(self, real: str, change: Callable[[Fields], None]) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._back = self._context.socket(zmq.DEALER)
        self._change = change
        self.seen: list[Fields] = []
        port = self._front.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"
        self._back.connect(real)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        peer = b""
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        poller.register(self._back, zmq.POLLIN)
        with contextlib.suppress(zmq.ZMQError):
            while True:
                for socket, _ in poller.poll(200):
                    *envelope, frame = socket.recv_multipart()
                    fields = json.loads(frame)
                    self._change(fields)
                    self.seen.append(fields)
                    frame = json.dumps(fields).encode()
                    if socket is self._front:
                        peer = envelope[0]
                        self._back.send(
                            frame
                            if fields["type"] != "hello"
                            else frame.replace(b": ", b":").replace(b", ", b",")
                        )
                    else:
                        self._front.send_multipart([peer, frame])


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Fields], None]], list[ManInTheMiddle]]:
    """Install a man in the middle with the given change for the kernels started from now on."""

    def install(change: Callable[[Fields], None]) -> list[ManInTheMiddle]:
        men: list[ManInTheMiddle] = []
        real_pre_launch = AttestedProvisioner.pre_launch

        async def pre_launch(self: AttestedProvisioner, **kwargs: Any) -> dict[str, Any]:
            prepared = await real_pre_launch(self, **kwargs)
            man = ManInTheMiddle(prepared["cmd"][-1].partition("=")[2], change)
            men.append(man)
            prepared["cmd"][-1] = f"--registration={man.address}"
            return prepared

        monkeypatch.setattr(AttestedProvisioner, "pre_launch", pre_launch)
        return men

    return install


@contextlib.contextmanager
def refused_start(name: str, **kwargs: Any) -> Iterator[pytest.ExceptionInfo[SealbookError]]:
    """A start that must be refused, with one sentence, leaving no kernel process behind."""
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    manager = KernelManager(kernel_name=name)
    with pytest.raises(SealbookError) as refused:
        manager.start_kernel(**kwargs)
    yield refused
    assert "\n" not in str(refused.value)
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert [p for p in left if p.status() != psutil.STATUS_ZOMBIE] == []
    with contextlib.suppress(Exception):
        manager.cleanup_resources()


def test_a_host_that_only_forwards_is_not_noticed(kernel_name: str, between: Any) -> None:
    """The control of the tests below: the man in the middle itself breaks nothing."""
    men = between(lambda fields: None)
    with kernel(kernel_name) as (_, client):
        assert run(client, "6 * 7").result == "42"
    assert [m["type"] for m in men[0].seen] == ["hello", "challenge", "evidence", "verdict"]


def change_evidence(field: str, change: Callable[[Any], Any]) -> Callable[[Fields], None]:
    def apply(fields: Fields) -> None:
        if fields["type"] == "evidence":
            fields[field] = change(fields[field])

    return apply


def change_challenge(field: str, change: Callable[[Any], Any]) -> Callable[[Fields], None]:
    def apply(fields: Fields) -> None:
        if fields["type"] == "challenge":
            fields[field] = change(fields[field])

    return apply


def other_port(name: str) -> Callable[[Any], Any]:
    return lambda ports: ports | {name: 1 + ports[name] % 65000}


def flip_last_bit_of_report_data(quote: str) -> str:
    raw = bytearray(base64.b64decode(quote))
    raw[431] ^= 1
    return base64.b64encode(raw).decode()


UP = {
    "kernel key swapped for the host's own": ("kernel_key", lambda _: CurveKeys.generate().public.decode()),
    "other ip": ("ip", lambda _: "127.0.0.2"),
    "shell port": ("ports", other_port("shell_port")),
    "iopub port": ("ports", other_port("iopub_port")),
    "stdin port": ("ports", other_port("stdin_port")),
    "control port": ("ports", other_port("control_port")),
    "heartbeat port": ("ports", other_port("hb_port")),
    "one bit of REPORTDATA": ("quote", flip_last_bit_of_report_data),
    "truncated quote": ("quote", lambda q: base64.b64encode(base64.b64decode(q)[:-1]).decode()),
    "no quote": ("quote", lambda _: base64.b64encode(b"\0" * 432).decode()),
}


@pytest.mark.parametrize("what", UP)
def test_what_the_host_changes_in_the_evidence_is_refused(what: str, kernel_name: str, between: Any) -> None:
    between(change_evidence(*UP[what]))
    with refused_start(kernel_name) as refused:
        assert isinstance(refused.value, RefusedError)


DOWN = {
    "client key swapped for the host's own": ("client_key", lambda _: CurveKeys.generate().public.decode()),
    "other nonce": ("nonce", lambda n: n[:-1] + ("0" if n[-1] != "0" else "1")),
    "other audience": ("audience", lambda _: "someone-else"),
    "other broker": ("broker", lambda _: "tcp://127.0.0.1:9 tcp://127.0.0.1:9"),
}


@pytest.mark.parametrize("what", DOWN)
def test_what_the_host_changes_in_the_challenge_is_refused(what: str, kernel_name: str, between: Any) -> None:
    between(change_challenge(*DOWN[what]))
    with refused_start(kernel_name) as refused:
        assert isinstance(refused.value, RefusedError)


def test_the_quote_of_an_earlier_kernel_is_refused(kernel_name: str, between: Any) -> None:
    earlier: list[Fields] = []

    def replay(fields: Fields) -> None:
        if fields["type"] == "evidence":
            earlier.append(dict(fields))
            fields.update(earlier[0])

    between(replay)
    with kernel(kernel_name):
        pass
    with refused_start(kernel_name) as refused:
        assert isinstance(refused.value, RefusedError)
    assert len(earlier) == 2


def test_garbage_at_the_registration_address_does_not_disturb_a_start(kernel_name: str, between: Any) -> None:
    def shout(fields: Fields) -> None:
        pass

    men = between(shout)
    real_init = ManInTheMiddle.__init__

    def shouting_init(self: ManInTheMiddle, real: str, change: Any) -> None:
        context: zmq.Context[Any] = zmq.Context()
        noise = context.socket(zmq.DEALER)
        noise.connect(real)
        for frame in (
            b"",
            b"\xff" * 100,
            b"{}",
            b"[" * 1000,
            b'{"type":"evidence"}',
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            noise.send(frame)
        real_init(self, real, change)

    ManInTheMiddle.__init__ = shouting_init  # type: ignore[method-assign]
    try:
        with kernel(kernel_name) as (_, client):
            assert run(client, "6 * 7").result == "42"
    finally:
        ManInTheMiddle.__init__ = real_init  # type: ignore[method-assign]
    assert men


# -- policies and code the host would like ------------------------------------------------------


def kernel_under(policy: str | None, tmp_path: Path, name: str = "under-test") -> str:
    from sealbook.jupyter import kernelspec

    path = tmp_path / "policy.toml"
    if policy is not None:
        path.write_text(policy)
    kernelspec.install(policy=path, name=name)
    return name


def test_a_measurement_that_the_policy_does_not_list_is_refused(policy_file: Path, tmp_path: Path) -> None:
    text = re.sub(r'"[0-9a-f]{64}"', '"' + "00" * 32 + '"', policy_file.read_text(), count=1)
    assert text != policy_file.read_text()
    with refused_start(kernel_under(text, tmp_path)) as refused:
        assert isinstance(refused.value, RefusedError)
        assert "measurement" in str(refused.value).lower()


def test_a_policy_that_asks_for_hardware_refuses_the_simulated_kernel(
    policy_file: Path, tmp_path: Path
) -> None:
    admitted = Policy.load(policy_file).identities[0].mrenclave[0]
    text = policy_text(mrenclave=admitted, root=None, now=datetime.now(UTC))
    with refused_start(kernel_under(text, tmp_path)) as refused:
        assert "simulated" in str(refused.value).lower() or "Intel" in str(refused.value)


def test_a_missing_policy_is_one_sentence(tmp_path: Path) -> None:
    with refused_start(kernel_under(None, tmp_path)) as refused:
        assert isinstance(refused.value, InputError)


def test_extra_arguments_are_refused_before_anything_starts(kernel_name: str) -> None:
    with refused_start(kernel_name, extra_arguments=["--IPKernelApp.exec_lines=print('host')"]) as refused:
        assert isinstance(refused.value, InputError)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--IPKernelApp.exec_lines=print(1)"],
        ["--registration=tcp://127.0.0.1:1", "--IPKernelApp.code_to_run=print(1)"],
        ["--registration=ipc:///tmp/x"],
        ["-f", "connection.json"],
    ],
    ids=lambda a: " ".join(a) or "none",
)
def test_a_kernel_takes_no_argument_but_the_registration_address(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-m", "sealbook.jupyter.simulated_kernel", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("sealbook kernel: ")
    assert done.stderr.count("\n") == 1


def test_code_that_lies_about_on_the_host_does_not_run_in_the_kernel(
    kernel_name: str, user_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Startup files, configuration, PYTHONPATH, PYTHONSTARTUP and the working directory are not measured."""
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'a').write(__name__ + ' ')"
    profile = user_home / "ipython/profile_default"
    (profile / "startup").mkdir(parents=True, exist_ok=True)
    (profile / "startup/00-host.py").write_text(code)
    (profile / "ipython_kernel_config.py").write_text(
        f"{code}\nc.IPKernelApp.exec_lines = [{code!r}]\nc.InteractiveShellApp.extensions = ['host_module']\n"
    )
    (profile / "ipython_config.py").write_text(code)
    for name in ("sitecustomize.py", "usercustomize.py", "host_module.py"):
        (tmp_path / name).write_text(code)
    (tmp_path / "start.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "start.py"))
    with kernel(kernel_name, cwd=str(tmp_path)) as (_, client):
        assert run(client, "1 + 1").result == "2"
        assert (run(client, "import host_module").error or "").startswith("ModuleNotFoundError")
    for path in profile.rglob("*.py"):
        path.unlink()
    assert not ran.exists()
