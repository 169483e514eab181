"""A user who runs `sealbook` as processes, with a home of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from guardian import guard

from sealbook.broker.passphrase import DESCRIPTOR_VARIABLE, hand_over
from sealbook.spark.cluster_state import DIRECTORY_PREFIX


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


class User:
    """A user with a home of their own, who runs commands without a terminal."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment: dict[str, str] = {"SEALBOOK_HOME": str(home)}

    def run(self, *arguments: object, timeout: float = 240, **environment: str | None) -> Outcome:
        """Run `sealbook ...`; environment variables are set, or taken away with None."""
        reader, number = hand_over("correct horse battery")
        variables = {**os.environ, **self.environment, DESCRIPTOR_VARIABLE: number, **environment}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "sealbook", *map(str, arguments)],
                env={name: value for name, value in variables.items() if value is not None},
                pass_fds=[reader],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        finally:
            os.close(reader)
        return Outcome(done.returncode, done.stdout, done.stderr)

    def left(self) -> list[str]:
        """Return what is left of clusters: directories and processes."""
        directories = [
            str(path)
            for path in Path(self.environment.get("TMPDIR", tempfile.gettempdir())).glob(
                f"{DIRECTORY_PREFIX}*"
            )
        ]
        processes = [
            (Path("/proc") / name / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            for name in os.listdir("/proc")
            if name.isdigit() and self._is_ours(name)
        ]
        return directories + processes

    def _is_ours(self, pid: str) -> bool:
        try:
            environment = (Path("/proc") / pid / "environ").read_bytes().split(b"\0")
        except OSError:
            return False
        return f"SEALBOOK_HOME={self.home}".encode() in environment and int(pid) != os.getpid()


@contextlib.contextmanager
def serving(user: User, *arguments: str) -> Iterator[dict[str, str]]:
    """A broker of this user's that answers: its ``url`` and the path of its ``ca``."""
    ready, said = os.pipe()
    passphrase, number = hand_over("correct horse battery")
    command = [sys.executable, "-m", "sealbook", "broker", "serve", "--host", "127.0.0.1", "--port", "0"]
    broker = subprocess.Popen(
        [*command, "--ready-fd", str(said), *arguments],
        env=os.environ | user.environment | {DESCRIPTOR_VARIABLE: number},
        pass_fds=[said, passphrase],
        stderr=subprocess.DEVNULL,
    )
    os.close(said)
    os.close(passphrase)
    try:
        with os.fdopen(ready) as lines:
            yield json.loads(lines.readline())
    finally:
        broker.terminate()
        broker.wait()


@contextlib.contextmanager
def temporary_user(home: Path) -> Iterator[User]:
    """A user whose temporary directories have a short name, because sockets lie in them.

    All of theirs ends with the block, and with this process, however that ends.
    """
    user = User(home)
    short = Path(tempfile.mkdtemp(prefix="sb-", dir="/tmp"))
    user.environment["TMPDIR"] = str(short)
    guardian = guard(home, short)
    try:
        yield user
    finally:
        guardian.communicate()
