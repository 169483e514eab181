"""The two sides of a Spark benchmark: a plain standalone cluster of stock PySpark, and a trusted one.

Both have one master and two workers with the same cores and memory on this machine, each a process that is
started directly, and a driver that answers queries (``query_server.py``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_SPARK_TESTS = HERE.parent / "spark"
QUERIES = HERE.parent / "tpch" / "queries.py"
WORKERS, CORES = 2, 1
PATIENCE = 240

for _directory in (_SPARK_TESTS, HERE.parent):
    if str(_directory) not in sys.path:
        sys.path.insert(0, str(_directory))  # for the tests' user, tables and queries


class Driver:
    """A driver process that answers one query after the other."""

    def __init__(
        self, program: Path, told: dict[str, Any], directory: Path, environment: dict[str, str]
    ) -> None:
        instructions = directory / "driver.json"
        instructions.write_text(json.dumps(told))
        self._errors = (directory / "driver.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(program), str(instructions)],
            env=environment,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._read()

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Return the answer to one question; see ``query_server.py``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End it and wait until it has."""
        self._process.communicate(timeout=PATIENCE)
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"The driver ended: {self._errors.read()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def free_port() -> int:
    """Return a port that nothing listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class PlainCluster:
    """Stock Spark without any protection: two kinds of Java processes, and a driver as PySpark starts it."""

    def __init__(self, memory: str) -> None:
        self._memory = memory
        self._directory = Path(tempfile.mkdtemp(prefix="plain-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._master = f"spark://127.0.0.1:{free_port()}"

    def up(self) -> None:
        """Start it and wait until both workers are registered."""
        host, port = self._master.removeprefix("spark://").split(":")
        self._start("master.Master", "--host", host, "--port", port, "--webui-port", "0")
        while not self._listens(host, int(port)):
            time.sleep(0.05)
        for number in range(WORKERS):
            self._start(
                *("worker.Worker", "--host", host, "--webui-port", "0", "--cores", str(CORES)),
                *("--memory", self._memory, "--work-dir", str(self._directory / f"w{number}"), self._master),
            )
        end = time.monotonic() + PATIENCE
        while self._registered() < WORKERS:
            if time.monotonic() > end:
                raise RuntimeError("The plain cluster did not start.")
            time.sleep(0.05)

    def driver(self) -> Driver:
        """Start a driver."""
        settings = {
            "spark.executor.memory": self._memory,
            "spark.executor.cores": str(CORES),
            "spark.driver.host": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.local.dir": str(self._directory),
            "spark.sql.warehouse.dir": str(self._directory / "warehouse"),
        }
        told = {"master": self._master, "settings": settings, "arguments": {"queries": str(QUERIES)}}
        return Driver(HERE / "query_server.py", told, self._directory, self._environment())

    def down(self) -> None:
        """End it; nothing of it stays."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(PATIENCE)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self, main: str, *arguments: str) -> None:
        from sealbook import jdk, spark_files
        from sealbook.spark import jvm

        home = spark_files.spark_home()
        command = [
            *(str(jdk.find_java()), "-cp", f"{home}/jars/*", "-Xmx512m", *jvm.SPARK_OPTIONS),
            *(f"org.apache.spark.deploy.{main}", *arguments),
        ]
        with self._log(len(self._processes)).open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=self._environment() | {"SPARK_LOCAL_DIRS": str(self._directory)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._directory,
                )
            )

    def _environment(self) -> dict[str, str]:
        from sealbook import jdk, spark_files

        kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
        return kept | {
            "SPARK_HOME": str(spark_files.spark_home()),
            "JAVA_HOME": str(jdk.find_java().parent.parent),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_SCALA_VERSION": "2.13",  # as Spark's scripts say, which are not used here
            "PYSPARK_PYTHON": sys.executable,
        }

    def _registered(self) -> int:
        return sum(
            b"Successfully registered with master" in self._log(number).read_bytes()
            for number in range(1, len(self._processes))
        )

    def _log(self, number: int) -> Path:
        return self._directory / f"log{number}"

    @staticmethod
    def _listens(host: str, port: int) -> bool:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            return False
        return True


class TrustedCluster:
    """What `sealbook cluster up` starts, for a user with a home of their own.

    Parameters
    ----------
    memory
        Of each executor.
    home
        The user's, if several clusters are to follow one another; otherwise it ends with this one.
    """

    NAME = "bench"

    def __init__(self, memory: str, home: Path | None = None) -> None:
        from spark_user import User

        self._memory = memory
        self._directory = Path(tempfile.mkdtemp(prefix="trusted-"))
        self._user = User(home or self._directory / "home")
        self._user.environment["TMPDIR"] = str(self._directory)

    def sealbook(self, *arguments: object) -> str:
        """Run a sealbook command and return what it printed."""
        outcome = self._user.run(*arguments, timeout=PATIENCE)
        if outcome.status != 0:
            raise RuntimeError(f"sealbook {' '.join(map(str, arguments))}: {outcome.err}")
        return outcome.out

    def up(self) -> None:
        """Start it and wait until both workers are registered."""
        self.sealbook(
            *("cluster", "up", self.NAME, "--workers", WORKERS, "--cores", CORES, "--memory", self._memory),
            *("--port", free_port(), "--broker-port", free_port(), "--timeout", PATIENCE),
        )

    def driver(self) -> Driver:
        """Start a driver, which attests as a kernel does."""
        told = {
            "profile": self.NAME,
            "host": "127.0.0.1",
            "directory": str(self._directory),
            "job": str(HERE / "query_server.py"),
            "arguments": {"queries": str(QUERIES)},
        }
        environment = os.environ | self._user.environment
        return Driver(_SPARK_TESTS / "driver_program.py", told, self._directory, environment)

    def releases(self) -> int:
        """Return how many times the broker released a key so far, from its audit log."""
        return len(re.findall(r'"event": ?"release"', self.sealbook("audit", "show", "--json")))

    def down(self) -> None:
        """End it; nothing of it stays."""
        with contextlib.suppress(RuntimeError):
            self.sealbook("cluster", "down", self.NAME)
        shutil.rmtree(self._directory, ignore_errors=True)


@contextlib.contextmanager
def running(*clusters: PlainCluster | TrustedCluster) -> Iterator[list[Driver]]:
    """Yield the drivers of clusters that run meanwhile."""
    drivers: list[Driver] = []
    try:
        for cluster in clusters:
            cluster.up()
            drivers.append(cluster.driver())
        yield drivers
    finally:
        for driver in drivers:
            with contextlib.suppress(Exception):
                driver.stop()
        for cluster in clusters:
            cluster.down()
