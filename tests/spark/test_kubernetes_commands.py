"""The commands of the rendered manifests, run as they stand: each pod is a process with a home of its own.

What Kubernetes would do is done here: names and addresses are put in, and paths of volumes become
directories. No Kubernetes was there to try it on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from spark_user import serving
from test_cluster import Trial
from test_foreground import until

from sealbook.broker.passphrase import DESCRIPTOR_VARIABLE, hand_over
from sealbook.spark import kubernetes
from sealbook.spark.processes import Process, belonging

NAME = "lab"
IMAGE = "registry.example/sealbook/node@sha256:" + "ab" * 32

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("spark")]


class Pod:
    """One pod: its containers' commands, with directories of its own for what is mounted."""

    def __init__(self, place: Path, manifest: dict, values: dict[str, str]) -> None:
        spec = manifest["spec"]["template"]["spec"]
        (self._platform,), (self._container,) = spec["initContainers"], spec["containers"]
        self.place, self._values = place, values
        self.state, self.tmp = place / "state", place / "t"
        for directory in (self.state, self.tmp):
            directory.mkdir(parents=True)
        values |= {kubernetes.STATE: str(self.state)}
        self.process: subprocess.Popen | None = None

    def _put_in(self, text: str) -> str:
        # All at once: what is put in may look like what stands elsewhere.
        names = "|".join(re.escape(name) for name in self._values)
        return re.sub(names, lambda found: self._values[found[0]], text)

    def _command(self, container: dict) -> list[str]:
        return [self._put_in(word) for word in container["command"] + container["args"]]

    def prepare(self) -> None:
        """What comes before the node."""
        subprocess.run(self._command(self._platform), check=True)

    def start(self) -> None:
        """Run the node's container."""
        environment = {
            each["name"]: self._put_in(each.get("value", "$(POD_IP)")) for each in self._container["env"]
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        java = {name: os.environ[name] for name in ("JAVA_HOME",) if name in os.environ}
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(self._container),
                env={**environment, **java, "PATH": path, "TMPDIR": str(self.tmp)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

    def log(self) -> str:
        return (self.place / "log").read_text() if self.process is not None else ""

    def node(self) -> Process:
        """The agent, or what it became."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return Process.of(int(children[0]))

    def ready(self, sentence: str) -> None:
        def found() -> bool:
            assert self.process.poll() is None, self.log()
            return sentence in self.log()

        until(found, 240)

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


class Cluster(Trial):
    """A data owner with a broker, and pods."""

    name = NAME

    def __init__(self, user) -> None:
        super().__init__(user)
        self.port, self.broker_port = self.ports
        self.short = Path(user.environment["TMPDIR"])
        self.pods: dict[str, Pod] = {}

    @contextlib.contextmanager
    def serving(self):
        """The broker on the owner's own machine, which has a cluster and a policy for it."""
        self._write_policy()
        for command in (
            ["keys", "create", "data"],
            ["broker", "cluster", "add", NAME, "--policy", "simulated"],
        ):
            assert (outcome := self.user.run(*command)).status == 0, outcome
        with serving(self.user, "--port", str(self.broker_port)) as facts:
            yield facts

    def _write_policy(self) -> None:
        program = "from sealbook.cli.cluster import make_policy; make_policy()"
        reader, number = hand_over("correct horse battery")
        variables = os.environ | self.user.environment | {DESCRIPTOR_VARIABLE: number}
        subprocess.run([sys.executable, "-c", program], env=variables, pass_fds=[reader], check=True)
        os.close(reader)

    def render(self, facts: dict) -> None:
        manifests = self.short / "manifests"
        outcome = self.user.run(
            *("cluster", "render", "k8s", NAME, "--image", IMAGE, "--workers", 2, "--memory", "800m"),
            *("--broker", facts["url"], "--ca", facts["ca"], "-o", manifests),
            # Another name than the master itself goes by, as from outside its namespace.
            *("--profile", "--master", f"spark://127.0.0.1:{self.port}"),
        )
        assert outcome.status == 0, outcome
        read = {path.stem: json.loads(path.read_text()) for path in manifests.iterdir()}
        configuration = self.short / "etc"
        configuration.mkdir()
        for name, text in read["configmap"]["data"].items():
            (configuration / name).write_text(text)
        shared = {
            kubernetes.CONFIGURATION: str(configuration),
            f"{kubernetes.PLATFORM}/*": f"{self.user.home}/simulated-platform/*",
            read["master-service"]["metadata"]["name"]: "localhost",
            str(kubernetes.MASTER_PORT): str(self.port),
        }
        places = {"m": ("master", "127.0.0.1"), "a": ("workers", "127.0.0.2"), "b": ("workers", "127.0.0.3")}
        for name, (manifest, address) in places.items():
            self.pods[name] = Pod(self.short / name, read[manifest], shared | {"$(POD_IP)": address})
        assert read["workers"]["spec"]["replicas"] == len(places) - 1

    def start(self) -> None:
        for pod in self.pods.values():
            pod.prepare()
            pod.start()
        for name in ("a", "b"):
            self.pods[name].ready("Successfully registered with master")

    def nodes(self) -> list[dict]:
        return json.loads(self.user.run("broker", "nodes", "--json").out)["nodes"]

    def left(self) -> list[str]:
        """What is left of pods: files in their temporary directories, and processes."""
        files = [str(path) for pod in self.pods.values() for path in pod.tmp.iterdir()]
        return files + [str(each) for pod in self.pods.values() for each in belonging([], pod.tmp)]


@pytest.fixture(scope="module")
def lab(owner):
    cluster = Cluster(owner)
    try:
        with cluster.serving() as facts:
            cluster.render(facts)
            cluster.start()
            yield cluster
    finally:
        for pod in cluster.pods.values():
            if pod.process is not None and pod.process.poll() is None:
                pod.process.kill()
            print(pod.log()[-3000:])


def test_a_job_of_a_notebooks_profile_gives_the_right_sum_on_the_rendered_cluster(lab):
    with lab.job(name="total") as program:
        assert lab.result(program) == 499500
    roles = [node["role"] for node in lab.nodes()]
    assert roles.count("spark-master") == 1
    assert roles.count("spark-worker") == 2
    assert roles.count("spark-executor") >= 2
    assert roles.count("spark-driver") == 1


def test_a_killed_container_leaves_no_process_and_its_next_start_works(lab):
    pod = lab.pods["a"]
    family = belonging([pod.node()])
    assert len(family) >= 2  # the worker and its starter
    pod.process.kill()
    pod.process.wait()
    until(lambda: not [each for each in family if each.alive])
    assert len(list(pod.tmp.iterdir())) == 1
    said = pod.log().count("Successfully registered with master")
    pod.start()
    until(lambda: pod.log().count("Successfully registered with master") > said, 240)
    assert len(list(pod.tmp.iterdir())) == 1
    with lab.job(name="total") as program:
        assert lab.result(program) == 499500


def test_sigterm_ends_each_node_in_order_and_leaves_nothing_also_while_a_job_runs(lab):
    flag = lab.work / "end"
    with lab.job(name="slow", seconds=60, tasks=4, flag=str(flag)) as program:
        until(lambda: len(list(flag.parent.glob("end.*"))) >= 2, 240)
        families = [each for pod in lab.pods.values() for each in belonging([pod.node()])]
        # Master, two workers with starters, and executors with what runs beside them.
        assert len(families) >= 9
        assert [lab.pods[name].end() for name in ("a", "b", "m")] == [0, 0, 0]
        assert [each for each in families if each.alive] == []
        os.killpg(program.pid, signal.SIGKILL)
    assert lab.left() == []
    # What a worker says when it ends is no traceback of ours.
    assert all("Traceback" not in pod.log() for pod in lab.pods.values())


def test_a_worker_that_finds_no_master_ends_with_one_sentence_and_another_status(lab):
    pod = lab.pods["b"]
    pod._container["args"] += ["--timeout", "1"]
    (pod.place / "log").unlink()
    pod.start()
    assert pod.process.wait(120) == 2
    assert "cannot be reached" in pod.log()
    assert lab.left() == []
