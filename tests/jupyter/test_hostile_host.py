"""The host sits between both ends while a kernel registers, and tries everything it can change."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import kernel, run
from jupyter_client.manager import KernelManager

from sealbook.attestation import Policy, policy_text
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.jupyter.curve import CurveKeys
from sealbook.jupyter.handshake import PORTS, Registration, decode_hello, hello
from sealbook.jupyter.provisioner import AttestedProvisioner
from sealbook.jupyter.registration import RegistrationDesk, receive_message, send_message

Fields = dict[str, Any]


class ManInTheMiddle:
    """Forwards the registration's messages, changed as the test wants."""

    def __init__(self, real: str, change: Callable[[Fields], None]) -> None:
        host, _, port = real.removeprefix("tcp://").rpartition(":")
        self._real = (host, int(port))
        self._change = change
        self.seen: list[Fields] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        front, _ = self._listener.accept()
        back = socket.create_connection(self._real, timeout=60)
        with front, back, contextlib.suppress(InputError, OSError):
            while True:
                for source, target in ((front, back), (back, front)):
                    fields = json.loads(receive_message(source))
                    self._change(fields)
                    self.seen.append(fields)
                    send_message(target, json.dumps(fields).encode())


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
    "one bit of REPORTDATA": ("evidence", flip_last_bit_of_report_data),
    "truncated quote": ("evidence", lambda q: base64.b64encode(base64.b64decode(q)[:-1]).decode()),
    "no quote": ("evidence", lambda _: base64.b64encode(b"\0" * 432).decode()),
}


OTHER_CHANNEL = "made for another challenge, channel or purpose"
#: What the refusal says where it is not that the quote binds something else.
SAID = {
    "one bit of REPORTDATA": f"signature|{OTHER_CHANNEL}",
    "truncated quote": "quote",
    "no quote": "quote",
}


@pytest.mark.parametrize("what", UP)
def test_what_the_host_changes_in_the_evidence_is_refused(what: str, kernel_name: str, between: Any) -> None:
    between(change_evidence(*UP[what]))
    with refused_start(kernel_name) as refused:
        assert isinstance(refused.value, RefusedError)
        assert re.search(SAID.get(what, OTHER_CHANNEL), str(refused.value))


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
        assert re.search(OTHER_CHANNEL, str(refused.value))


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


def bogus_evidence() -> bytes:
    """A message that is evidence in every way but that its quote is none."""
    return Registration(
        kernel_key=CurveKeys.generate().public.decode(),
        ip="127.0.0.1",
        transport="tcp",
        ports=dict.fromkeys(PORTS, 1),
        evidence=b"no quote",
    ).encode()


def test_a_kernel_of_the_protocol_before_is_refused_and_not_misread() -> None:
    with pytest.raises(InputError, match="another protocol than sealbook-kernel/2"):
        decode_hello(hello().replace(b"kernel/2", b"kernel/1"))
    assert Registration.decode(bogus_evidence()).evidence == b"no quote"
    with pytest.raises(InputError, match=r"not an? evidence"):
        Registration.decode(bogus_evidence().replace(b'"evidence":', b'"quote":'))


STRANGERS: dict[str, Callable[[socket.socket], None]] = {
    "says nothing": lambda s: None,
    "hangs up": lambda s: s.close(),
    "speaks http": lambda s: s.sendall(b"GET / HTTP/1.1\r\n\r\n"),
    "announces a huge message": lambda s: s.sendall(b"\x7f\xff\xff\xff" + b"x" * 100_000),
    "sends nonsense": lambda s: send_message(s, b"\xff" * 100),
    "sends deep json": lambda s: send_message(s, b"[" * 10_000),
    "sends quotes that are slow to parse": lambda s: send_message(s, b'"\\' * 32_000),
    "sends evidence without a hello": lambda s: send_message(s, bogus_evidence()),
    "sends evidence that is none": lambda s: (send_message(s, hello()), send_message(s, bogus_evidence())),
    "sends an address that is no text": lambda s: (
        send_message(s, hello()),
        send_message(s, bogus_evidence().replace(b"127.0.0.1", b"\\ud800")),
    ),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_a_stranger_at_the_registration_address_does_not_end_a_start(
    what: str, kernel_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody on the host can connect there, before the kernel does."""
    opened: list[socket.socket] = []
    real_pre_launch = AttestedProvisioner.pre_launch

    async def pre_launch(self: AttestedProvisioner, **kwargs: Any) -> dict[str, Any]:
        prepared = await real_pre_launch(self, **kwargs)
        port = int(prepared["cmd"][-1].rpartition(":")[2])
        for _ in range(3):
            stranger = socket.create_connection(("127.0.0.1", port), timeout=10)
            opened.append(stranger)
            STRANGERS[what](stranger)
        return prepared

    monkeypatch.setattr(AttestedProvisioner, "pre_launch", pre_launch)
    with kernel(kernel_name) as (_, client):
        assert run(client, "6 * 7").result == "42"
    assert len(opened) == 3
    for stranger in opened:
        stranger.close()


def test_an_endless_message_is_cut_off_and_not_kept() -> None:
    desk = RegistrationDesk(lambda: pytest.fail("no hello was said"), lambda *_: None)
    port = int(desk.address.rpartition(":")[2])
    done = threading.Event()

    def serve() -> None:
        with contextlib.suppress(RefusedError):
            desk.serve(seconds=60, alive=lambda: True, stopped=done.is_set)

    served = threading.Thread(target=serve)
    served.start()
    before = psutil.Process().memory_info().rss
    with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger, pytest.raises(OSError):
        for _ in range(2000):
            stranger.sendall(b"\x7f\xff\xff\xff" + b"x" * 100_000)
    assert psutil.Process().memory_info().rss - before < 50 << 20
    done.set()
    served.join(timeout=30)
    desk.close()


# -- policies and code the host would like ------------------------------------------------------


def kernel_under(policy: str | None, tmp_path: Path, name: str = "under-test") -> str:
    from sealbook.jupyter import kernelspec

    path = tmp_path / "policy.toml"
    if policy is not None:
        path.write_text(policy)
    kernelspec.install(kernelspec.kernel_json(path), name=name)
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
