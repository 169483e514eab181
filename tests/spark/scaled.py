"""The user of these tests, a trusted cluster of theirs, and notebooks that run on it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spark_user import Outcome, User

from sealbook.broker import passphrase

NAME = "here"
KEY = "lasting"


def free() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class ScaledUser:
    """Whoever runs the tests, with a cluster of two workers and a key that lasts."""

    def __init__(self) -> None:
        self._user = User(Path(os.environ["SEALBOOK_HOME"]))
        self._short = Path(tempfile.mkdtemp(prefix="sb-", dir="/tmp"))
        self._user.environment["TMPDIR"] = str(self._short)

    def sealbook(self, *arguments: object) -> Outcome:
        """Run a command, which must not fail."""
        outcome = self._user.run(*arguments)
        assert outcome.status == 0, outcome
        return outcome

    def up(self) -> None:
        """Start the cluster."""
        arguments = ("--port", free(), "--broker-port", free(), "--memory", "1g", "--timeout", 200)
        self.sealbook("cluster", "up", NAME, *arguments)

    def down(self) -> None:
        """End it."""
        self.sealbook("cluster", "down", NAME)

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes as `cluster status` shows them."""
        found: list[dict[str, Any]] = json.loads(self.sealbook("cluster", "status", NAME, "--json").out)[
            "nodes"
        ]
        return found

    def executors(self) -> list[int]:
        """The JVMs of executors that run."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                command = (process / "cmdline").read_bytes() if process.name.isdigit() else b""
            except OSError:
                continue
            if os.fsencode(self._short) in command and b"CoarseGrainedExecutorBackend" in command:
                found.append(int(process.name))
        return found

    def clean(self) -> None:
        """Remove what is left."""
        shutil.rmtree(self._short, ignore_errors=True)


@contextmanager
def scaled() -> Iterator[ScaledUser]:
    """A cluster that runs, and a key that kernels and nodes get; the keyring of this process is open."""
    user = ScaledUser()
    _, named = passphrase.hand_over("correct horse battery")
    os.environ[passphrase.DESCRIPTOR_VARIABLE] = named
    try:
        passphrase.inherited()
        user.sealbook("keys", "create", KEY)
        user.up()
        try:
            yield user
        finally:
            user.down()
    finally:
        passphrase._claimed = None
        user.clean()
