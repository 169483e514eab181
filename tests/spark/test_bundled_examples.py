"""PySpark's bundled Python examples run unmodified, and print what they print on plain Spark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import bundled_examples
import pytest
from notebook_of_a_test import Notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("examples")]

RUN = [name for name in bundled_examples.names() if name not in bundled_examples.LEFT_OUT]

#: Seconds for one example, of which the slowest needs a tenth. One that hangs fails alone.
LIMIT = 200


def failed(printed: str) -> bool:
    """Whether an example ended otherwise than it should."""
    return printed.startswith(("failed:", "ended with status"))


class Plain:
    """Stock Spark, in a process that knows nothing of sealbook."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False

    def ask(self, name: str) -> None:
        """Let it run an example."""
        if self._asked:
            self.close()  # the test before ended without the answer
        if self._process is None:
            self._connection, its = Pipe()
            with its, (self._directory / "plain.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, bundled_examples.__file__, str(its.fileno())],
                    env=os.environ | {"PYSPARK_PYTHON": sys.executable},
                    cwd=self._directory,
                    pass_fds=[its.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        self._connection.send_bytes(name.encode())
        self._asked = True

    def answer(self) -> str:
        """Return what it printed, or how it ended otherwise."""
        self._asked = False
        try:
            if self._connection.poll(LIMIT):
                ended = self._connection.recv_bytes().decode()
                if not failed(ended):
                    return ended
            else:
                ended = f"failed: no end after {LIMIT} seconds"
        except EOFError:
            ended = "failed: Python has ended: " + (self._directory / "plain.log").read_text()[-2000:]
        self.close()  # whatever it left says nothing of the next example
        return ended

    def close(self) -> None:
        """End it; the next example starts another."""
        if self._process is not None:
            self._connection.close()
            os.killpg(self._process.pid, signal.SIGKILL)  # its Java too
            self._process.wait()
            self._process = None


class Trusted:
    """A notebook, and a cell for each example."""

    def __init__(self, kernel_name: str, directory: Path) -> None:
        self._kernel_name, self._directory = kernel_name, directory
        self._notebook: Notebook | None = None

    def run(self, name: str) -> str:
        """Return what an example printed, or how it ended otherwise."""
        answer = self._directory / "trusted.txt"
        answer.unlink(missing_ok=True)
        if self._notebook is None:
            self._notebook = Notebook(self._kernel_name, self._directory)
            _, error = self._notebook.run(PREPARE)
            assert not error
        try:
            _, error = self._notebook.run(
                f"open('trusted.txt', 'w').write(examples.run_one({name!r}))", timeout=LIMIT
            )
        except TimeoutError:
            error = f"no end after {LIMIT} seconds"
        ended = f"failed: {error}" if error else answer.read_text()
        if failed(ended):
            self.close()
        return ended

    def close(self) -> None:
        """End it; the next example starts another."""
        if self._notebook is not None:
            self._notebook.close()
            self._notebook = None


#: The settings that are not the examples' own are the JVM's, as those of a command line are for stock Spark.
PREPARE = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("bundled_examples", {bundled_examples.__file__!r})
examples = importlib.util.module_from_spec(spec)
spec.loader.exec_module(examples)
for name, value in examples.SETTINGS.items():
    spark._jvm.java.lang.System.setProperty(name, value)
spark.stop()
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plain]:
    started = Plain(prepared(tmp_path_factory, "plain"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory, kernel_name: str) -> Iterator[Trusted]:
    started = Trusted(kernel_name, prepared(tmp_path_factory, "trusted"))
    yield started
    started.close()


def prepared(factory: pytest.TempPathFactory, name: str) -> Path:
    """A directory of each side's own: examples write models, too."""
    made = factory.mktemp(name)
    bundled_examples.prepare(made)
    return made


def test_what_is_left_out_is_there() -> None:
    assert set(bundled_examples.LEFT_OUT) < set(bundled_examples.names())
    assert len(RUN) > 120


@pytest.mark.parametrize("name", RUN)
def test_an_example_prints_what_it_prints_on_plain_spark(name: str, plain: Plain, trusted: Trusted) -> None:
    plain.ask(name)  # both run at the same time
    ours = trusted.run(name)
    stock = plain.answer()
    assert not failed(stock), stock[:5000]
    assert not failed(ours), ours[:5000]
    if name in bundled_examples.RANDOM:
        assert bool(ours.strip()) == bool(stock.strip())
        return
    found, wanted = bundled_examples.lines(ours), bundled_examples.lines(stock)
    assert [text for text, _ in found] == [text for text, _ in wanted]
    for (text, numbers), (_, expected) in zip(found, wanted, strict=True):
        assert numbers == pytest.approx(expected, rel=1e-2, abs=1e-9), text
