"""A real cluster on this machine: what it tells, what it survives, and that nothing of it stays."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sealbook.spark import cluster_state, profiles
from sealbook.spark.processes import Process, belonging

HERE = Path(__file__).parent
NAME = "trial"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("spark")]

#: How the DER of a P-256 private key (PKCS#8) begins, in base64.
PRIVATE_KEY = b"MIGHAgEAMBMGByqGSM49"


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Trial:
    """A user's cluster, and jobs on it."""

    name = NAME

    def __init__(self, user) -> None:
        self.user = user
        self.ports = free(), free()
        self.work = Path(user.environment["TMPDIR"]) / "work"
        self.work.mkdir()

    def up(self, *arguments):
        outcome = self.user.run(
            *("cluster", "up", NAME, "--port", self.ports[0], "--broker-port", self.ports[1]),
            *("--memory", "800m", "--timeout", 150, *arguments),
        )
        assert outcome.status == 0, outcome
        return outcome

    def down(self):
        outcome = self.user.run("cluster", "down", NAME)
        assert outcome.status == 0, outcome
        return outcome

    @property
    def state(self):
        os.environ["SEALBOOK_HOME"], before = str(self.user.home), os.environ["SEALBOOK_HOME"]
        try:
            return cluster_state.load(NAME)
        finally:
            os.environ["SEALBOOK_HOME"] = before

    def pid(self, role: str, number: int = 0) -> int:
        return [m.pid for m in self.state.members if m.role == role][number]

    def status(self):
        return json.loads(self.user.run("cluster", "status", NAME, "--json").out)

    @contextlib.contextmanager
    def job(self, settings=None, **arguments):
        """Start a driver with a job; it is ended in the end."""
        told = self.work / "told.json"
        told.write_text(
            json.dumps(
                {
                    "profile": self.name,
                    "host": "127.0.0.1",
                    "directory": str(self.work),
                    "job": str(HERE / "jobs.py"),
                    "arguments": arguments,
                    "settings": settings or {},
                }
            )
        )
        program = subprocess.Popen(
            [sys.executable, "-I", "-B", str(HERE / "driver_program.py"), str(told)],
            env=os.environ | self.user.environment,
            cwd=self.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield program
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            if not program.stderr.closed:
                print(program.communicate()[1][-5000:])  # pytest shows it where the test failed

    def result(self, program, timeout=200):
        out, errors = program.communicate(timeout=timeout)
        assert program.returncode == 0, errors[-3000:]
        return json.loads(out)


@pytest.fixture(scope="module")
def trial(owner):
    """A cluster that these tests share."""
    trial = Trial(owner)
    trial.up()
    yield trial
    trial.down()
    assert owner.left() == []


@pytest.fixture
def cluster(trial):
    """The shared cluster, made whole again where a test before broke it."""
    if not all(process["alive"] for process in trial.status()["processes"]):
        trial.down()
        trial.up()
    return trial


def started(flag: Path, count: int = 1, seconds: float = 240) -> None:
    """Wait until tasks of a slow job run."""
    deadline = time.monotonic() + seconds
    while len(list(flag.parent.glob(f"{flag.name}.*"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_job_runs_and_every_node_is_shown_with_its_evidence(cluster):
    with cluster.job(name="total") as program:
        assert cluster.result(program) == 499500
    status = cluster.status()
    roles = [node["role"] for node in status["nodes"]]
    assert roles.count("spark-master") == 1
    assert roles.count("spark-worker") == 2
    assert roles.count("spark-executor") >= 2
    assert roles.count("spark-driver") == 1
    assert {node["label"] for node in status["nodes"]} == {"simulated"}
    assert len({node["measurement"] for node in status["nodes"]}) == 1
    assert [process["role"] for process in status["processes"]] == [
        "broker",
        "spark-master",
        "spark-worker",
        "spark-worker",
    ]
    table = cluster.user.run("cluster", "status", NAME).out
    assert "simulated" in table
    assert "127.0.0.1" in table


def test_every_executor_has_a_session_keys_and_a_certificate_of_its_own(cluster):
    """They are forks of one process, which must not show."""
    with cluster.job(name="slow", seconds=8, tasks=4, flag=str(cluster.work / "own")) as program:
        started(cluster.work / "own", 2)
        nodes = [node for node in cluster.status()["nodes"] if node["role"] != "spark-driver"]
        assert cluster.result(program) == 6
    executors = [node for node in nodes if node["role"] == "spark-executor"]
    assert len(executors) >= 2
    with contextlib.closing(sqlite3.connect(cluster.user.home / "broker/service.sqlite")) as database:
        known = dict(database.execute("SELECT id, claims FROM sessions"))
        certificates = database.execute("SELECT DISTINCT serial, session FROM certificates").fetchall()
    attested = [json.loads(known[node["session"]]) for node in nodes]
    for key in ("tls_key", "hpke_key"):
        assert len({each[key] for each in attested}) == len(nodes)
    assert len({serial for serial, session in certificates if session in known}) >= len(nodes)


def secrets_of(user) -> list[bytes]:
    """The cluster's secret in every form that it could be written in, and what private keys begin with."""
    import base64

    from sealbook.broker import Keyring, PassphraseFileStore
    from sealbook.broker.service.clusters import Clusters

    keyring = Keyring(PassphraseFileStore(user.home / "keyring.sealbook", lambda: "correct horse battery"))
    (secret,) = Clusters(keyring).find(NAME).secrets
    forms = [secret, secret.hex().encode(), base64.b64encode(secret), base64.urlsafe_b64encode(secret)]
    return [*forms, PRIVATE_KEY, b"PRIVATE KEY-----", b"correct horse"]


def test_no_secret_is_in_an_argument_variable_or_file_of_any_node(cluster):
    wanted = secrets_of(cluster.user)
    directory = cluster.state.directory
    with cluster.job(name="slow", seconds=8, tasks=4, flag=str(cluster.work / "secrets")) as program:
        started(cluster.work / "secrets", 2)
        looked = 0
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            try:
                arguments = (process / "cmdline").read_bytes()
                content = arguments + b"\0" + (process / "environ").read_bytes()
            except OSError:
                continue
            if (
                os.fsencode(str(directory.parent)) in content
                or os.fsencode(str(cluster.user.home)) in content
            ):
                looked += 1
                assert [secret for secret in wanted if secret in content] == [], arguments
        # Broker, master, two workers, two executors, the driver and its JVM, Python workers.
        assert looked >= 9
        files = [path for path in directory.rglob("*") if path.is_file()]
        assert len(files) > 8
        for path in files:
            content = path.read_bytes()
            assert [secret for secret in wanted if secret in content] == [], path
        assert cluster.result(program) == 6


def test_no_port_of_a_node_tells_a_stranger_anything(cluster):
    """All that listens wants a node's certificate; what does not speak TLS only points to what does."""
    import psutil

    asked = 0
    for member in cluster.state.members:
        if member.role == "broker":
            continue
        for connection in psutil.Process(member.pid).net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN:
                continue
            asked += 1
            address = ("127.0.0.1", connection.laddr.port)
            assert answer(address, tls=True) == b""
            plain = answer(address, tls=False)
            # Nothing, a TLS alert, or where the page with TLS is.
            assert plain == b"" or plain.startswith((b"\x15\x03", b"HTTP/1.1 302 ")), plain[:200]
            assert len(plain) < 2000
            assert b"Spark" not in plain
    # RPC, and a page's two ports, of three nodes.
    assert asked == 9


def test_who_is_no_member_is_refused_at_a_nodes_port_and_the_audit_log_says_why(cluster, monkeypatch):
    """With the right evidence even: for another cluster, revoked, or signed by another authority."""
    from cryptography import x509

    from sealbook.broker import Keyring, MemoryStore
    from sealbook.broker.certificates import Authority, NodeFacts, pem
    from sealbook.broker.client import BrokerClient
    from sealbook.simulated_loader import MeasuredAttester, Measuring

    monkeypatch.setenv("SEALBOOK_HOME", str(cluster.user.home))
    profile = profiles.load(NAME)
    assert cluster.user.run("broker", "cluster", "add", "elsewhere", "--policy", "simulated").status == 0
    client, attester = BrokerClient(profile.broker, profile.ca), MeasuredAttester(Measuring())
    attester.wait()
    port = int(profile.master.rpartition(":")[2])

    def enrol(name):
        return client.enrol(attester, role="spark-worker", cluster=name, hosts=["127.0.0.1"])

    member, revoked, other = enrol(NAME), enrol(NAME), enrol("elsewhere")
    assert talks(port, member)
    assert talks(port, revoked)
    assert cluster.user.run("broker", "revoke", revoked.session).status == 0
    rogue = Authority(Keyring(MemoryStore()).make_reserved("node-ca", guard="node-ca", description=""))
    leaf = x509.load_pem_x509_certificate(member.certificate.encode())
    now = datetime.now(UTC)
    key = member.tls_private_key.public_key()
    forged = pem(rogue.issue_node(key, NodeFacts.of(leaf), [], now=now, expires=now + timedelta(hours=1)))
    deadline = time.monotonic() + 60
    while talks(port, revoked):  # until the master has asked the broker again
        assert time.monotonic() < deadline
    assert not talks(port, other)
    assert not talks(port, dataclasses.replace(member, certificate=forged))
    assert not talks(port, None)
    assert talks(port, member)
    wanted = {"another cluster", "was revoked", "not issued by this cluster's CA"}
    log = cluster.user.home / "audit.jsonl"
    while True:
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        reasons = " ".join(reason for e in entries if e["event"] == "peer" for reason in e["reasons"])
        if all(part in reasons for part in wanted):
            break
        assert time.monotonic() < deadline, reasons
        time.sleep(0.5)


def talks(port: int, enrolment) -> bool:
    """Whether a node takes a connection with this certificate, which then stays open."""
    import ssl

    from sealbook.broker.tls import load_identity

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if enrolment is not None:
        load_identity(context, enrolment.certificate, enrolment.tls_private_key)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
            context.wrap_socket(connection) as channel,
        ):
            channel.settimeout(3)
            return channel.recv(1) != b""
    except TimeoutError:
        return True  # it waits for us to say something
    except OSError:
        return False


def answer(address: tuple[str, int], *, tls: bool) -> bytes:
    """What a stranger without a certificate gets from a port."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    received = b""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=3) as connection:
        connection.settimeout(3)
        with context.wrap_socket(connection) if tls else contextlib.nullcontext(connection) as channel:
            channel.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while piece := channel.recv(65536):
                received += piece
    return received


def test_python_workers_run_in_the_nodes_own_interpreter_and_environment(cluster):
    with cluster.job(name="where") as program:
        found = cluster.result(program)
    for worker in found:
        assert Path(worker["executable"]).parent == Path(sys.executable).parent
        assert worker["environment"]["PYTHONSAFEPATH"] == "1"
        assert "" not in worker["path"]
        assert not {name for name in worker["environment"] if name.startswith(("SEALBOOK", "JAVA_"))}
        assert "PYTHON_WORKER_FACTORY_SECRET" not in worker["environment"]


def test_what_executors_print_is_in_no_file(cluster):
    with cluster.job(name="total") as program:
        cluster.result(program)
    for path in cluster.state.directory.rglob("std*"):
        lines = [line for line in path.read_text().splitlines() if line.strip("= ")]
        assert all(line.startswith("Spark Executor Command:") for line in lines), path


def test_a_killed_worker_is_survived_and_takes_its_executors_with_it(cluster):
    flag = cluster.work / "worker"
    with cluster.job(name="slow", seconds=24, tasks=8, flag=str(flag)) as program:
        started(flag, 2)
        worker = Process.of(cluster.pid("spark-worker"))
        family = belonging([worker])
        # The worker, its starter, what it takes for its Java, the executor, its Python workers.
        assert len(family) >= 5
        os.kill(worker.pid, signal.SIGKILL)
        ended(family)
        assert cluster.result(program) == sum(range(8))


def test_without_its_starter_a_worker_has_no_executors_and_the_job_goes_on_elsewhere(cluster):
    flag = cluster.work / "starter"
    with cluster.job(name="slow", seconds=24, tasks=8, flag=str(flag)) as program:
        started(flag, 2)
        worker = cluster.pid("spark-worker")
        (starter,) = [pid for pid in children(worker) if "sealbook.spark.node" in command(pid)]
        before = executors_of_worker(worker)
        assert before
        os.kill(starter, signal.SIGKILL)
        ended(before)
        assert cluster.result(program) == sum(range(8))
        assert executors_of_worker(worker) == []
    # Its worker says why each further one did not start.
    said = [path.read_text() for path in cluster.state.directory.rglob("stderr")]
    assert any("The executor starter of this worker cannot be reached" in text for text in said)
    os.kill(worker, signal.SIGKILL)  # so that the next test has whole ones


def ended(processes: list[Process], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if process.alive]:
        assert time.monotonic() < deadline, [command(process.pid) for process in left]
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def executors_of_worker(worker: int) -> list[Process]:
    leader = Process.of(worker)
    return [each for each in belonging([leader]) if "CoarseGrainedExecutorBackend --" in command(each.pid)]


def test_a_killed_master_is_survived_by_the_job_that_runs(cluster):
    flag = cluster.work / "master"
    with cluster.job(name="slow", seconds=12, tasks=6, flag=str(flag)) as program:
        started(flag, 2)
        os.kill(cluster.pid("spark-master"), signal.SIGKILL)
        assert cluster.result(program) == sum(range(6))


def test_a_killed_broker_is_survived_by_the_job_that_runs(cluster):
    flag = cluster.work / "broker"
    with cluster.job(name="slow", seconds=16, tasks=8, flag=str(flag)) as program:
        started(flag, 2)
        os.kill(cluster.pid("broker"), signal.SIGKILL)
        assert cluster.result(program) == sum(range(8))


def test_a_killed_driver_frees_its_executors(cluster):
    flag = cluster.work / "driver"
    with cluster.job(name="slow", seconds=60, tasks=8, flag=str(flag)) as program:
        started(flag, 2)
        os.killpg(program.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while executors(cluster):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    with cluster.job(name="total") as program:
        assert cluster.result(program) == 499500


def test_of_a_table_whose_writer_was_killed_nothing_is_readable(cluster):
    flag, place = cluster.work / "half", cluster.work / "half-table"
    assert cluster.user.run("keys", "create", "half").status == 0
    with cluster.job(name="slow_write", path=f"sealed://half{place}", flag=str(flag)) as program:
        started(flag, 3)
        os.killpg(program.pid, signal.SIGKILL)
        ended([Process.of(int(pid)) for pid in executors(cluster)])
    assert not list(place.glob("part-*"))
    assert not (place / "_SUCCESS").exists()
    with cluster.job(name="readable", path=f"sealed://half{place}") as program:
        said = cluster.result(program)
    assert "UNABLE_TO_INFER_SCHEMA" in str(said) or "PATH_NOT_FOUND" in str(said)


def executors(cluster) -> list[str]:
    needle = os.fsencode(str(cluster.state.directory))
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit():
                command = (process / "cmdline").read_bytes()
                if needle in command and b"CoarseGrainedExecutorBackend" in command:
                    found.append(process.name)
    return found


def test_a_revoked_worker_is_dropped_and_its_work_reruns(cluster):
    flag = cluster.work / "revoked"
    with cluster.job(name="slow", seconds=40, tasks=10, flag=str(flag)) as program:
        started(flag, 2)
        running = [node for node in cluster.status()["nodes"] if node["role"] == "spark-executor"]
        outcome = cluster.user.run("broker", "revoke", running[-1]["session"])
        assert outcome.status == 0, outcome
        assert cluster.result(program) == sum(range(10))


def test_a_second_cluster_of_the_same_name_is_refused_while_the_first_runs(cluster):
    outcome = cluster.user.run("cluster", "up", NAME, "--port", free(), "--broker-port", free())
    assert outcome.status == 2
    assert "runs already" in outcome.err


def test_a_node_that_cannot_see_the_master_gives_up_in_the_stated_time(cluster):
    assert cluster.user.run("broker", "cluster", "add", "other", "--policy", "simulated").status == 0
    ca = cluster.user.home / "broker/ca.pem"
    outcome = cluster.user.run(
        *("cluster", "join", "--name", "other", "--broker", f"https://127.0.0.1:{cluster.ports[1]}"),
        *("--ca", ca, "--master", f"spark://127.0.0.1:{free()}", "--timeout", 12),
    )
    assert outcome.status == 2
    assert "cannot be reached" in outcome.err or "did not register" in outcome.err


def test_no_nonce_and_no_certificate_was_used_twice_whatever_was_killed(cluster):
    """Of all the tests before, which kill every kind of node and the broker."""
    entries = [json.loads(line) for line in (cluster.user.home / "audit.jsonl").read_text().splitlines()]
    accepted = [e for e in entries if (e["event"], e["decision"]) == ("attest", "accepted")]
    assert len(accepted) > 5
    # Evidence is over a nonce: the same evidence twice would be the same nonce.
    assert len({e["evidence"] for e in accepted}) == len({e["session"] for e in accepted}) == len(accepted)
    given = [e["session"] for e in entries if e["event"] == "release" and e["key"] == f"cluster.{NAME}"]
    assert len(set(given)) == len(given)
    assert cluster.user.run("audit", "verify").status == 0


def test_all_of_it_ends_also_when_parts_were_killed_and_also_twice(cluster):
    directory = cluster.state.directory
    with cluster.job(name="slow", seconds=30, tasks=4, flag=str(cluster.work / "end")) as program:
        started(cluster.work / "end", 2)
        os.kill(cluster.pid("spark-worker", 1), signal.SIGKILL)
        os.kill(cluster.pid("broker"), signal.SIGKILL)
        outcome = cluster.down()
        assert "has ended" in outcome.out
        assert not directory.exists()
        assert executors_of(directory) == []
        os.killpg(program.pid, signal.SIGKILL)
    assert "There is no cluster" in cluster.down().out
    assert f"clusters.{NAME}" not in (cluster.user.home / "clusters.toml").read_text()
    cluster.up()


def executors_of(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and os.fsencode(str(directory)) in (process / "cmdline").read_bytes():
                found.append(process.name)
    return found
