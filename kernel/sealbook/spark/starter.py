"""Starts processes for a JVM that must not fork: a small process of its own, forked before the JVM begins.

In Gramine a fork copies the parent page by page, each a mapping on the host, while the parent's threads
run on. A JVM has more pages than ``vm.max_map_count`` allows by default, and some crashed after it (facts of
Gramine 1.9, sections 1, 4 and 8). This process has one thread and no secret, and copies a few megabytes.

The JVM's side is ``sealbook.processes.Starter``. For each process it opens two connections, one after the
other: on the first goes the request (4 bytes length, JSON with ``command``, ``directory`` and
``environment``), and 4 bytes come back, the process number or minus errno, and 4 more with the exit status
when it ended; a byte that the JVM sends there is a signal's number. The second becomes standard input and
output of the process. Only processes of the same Gramine instance reach the socket.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sealbook.encoding import parse_json
from sealbook.errors import InputError, RefusedError
from sealbook.simulated_loader import ISOLATED

_MAX_REQUEST_BYTES = 1 << 20
#: How often it looks whether a child has ended, in seconds.
_LOOK_SECONDS = 0.2
#: How long a client may take for its request, in seconds.
_PATIENCE = 30


def fork_starter(directory: Path) -> Path:
    """Fork the starter; return where it listens. It ends with whatever this process becomes.

    Call it before this process has a thread or a secret.

    Parameters
    ----------
    directory
        Where the socket is named.
    """
    path = Path(tempfile.mkdtemp(prefix="s", dir=directory)) / "s"
    listener = _listening(path)
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.close(writer)
            Starter(listener, reader).run()
        finally:
            os._exit(0)
    os.close(reader)
    listener.close()
    # Stays open in the JVM: its end is how the starter learns of the JVM's.
    os.set_inheritable(writer, True)
    return path


class StarterProcess:
    """The starter of a driver's JVM: a program of its own, because a kernel has threads and secrets."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "s"
        self._process = subprocess.Popen(
            [sys.executable, *ISOLATED, "-m", "sealbook.spark.starter", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        if not self._process.stdout.read(1):
            raise RefusedError("The process that starts Python for Spark did not start: restart the kernel.")

    def end(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=10)
        self._process.kill()
        self._process.wait()


def main(arguments: Sequence[str]) -> None:
    """Serve at the path that is the one argument, until standard input ends."""
    listener = _listening(Path(arguments[0]))
    sys.stdout.write(".")
    sys.stdout.flush()
    Starter(listener, 0).run()


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(8)
    return listener


class Starter:
    """The process that starts others."""

    def __init__(self, listener: socket.socket, life: int) -> None:
        self._listener = listener
        self._life = life
        self._children: dict[int, socket.socket] = {}

    def run(self) -> None:
        """Serve until the JVM has ended, then end what it started."""
        # Not SIGTERM: a child that the JVM ends at once must not have it ignored still.
        for name in (signal.SIGINT, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        try:
            while self._serve():
                pass
        finally:
            for pid in self._children:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _serve(self) -> bool:
        waiting: list[Any] = [self._life, self._listener, *self._children.values()]
        ready, _, _ = select.select(waiting, [], [], _LOOK_SECONDS)
        if self._life in ready:
            return False
        self._reap()
        for pid, control in list(self._children.items()):
            if control in ready:
                self._obey(pid, control)
        if self._listener in ready:
            control, _ = self._listener.accept()
            self._start(control)
        return True

    def _start(self, control: socket.socket) -> None:
        control.settimeout(_PATIENCE)
        try:
            request = _read_request(control)
            streams, _ = self._listener.accept()
        except (InputError, OSError):
            control.close()
            return
        with streams:
            try:
                pid = os.fork()
            except OSError as error:
                _answer(control, -(error.errno or errno.EAGAIN))
                control.close()
                return
            if pid == 0:
                _become(request, streams)
        self._children[pid] = control
        _answer(control, pid)

    def _obey(self, pid: int, control: socket.socket) -> None:
        """Send a child the signal that the JVM asks for; kill it when nobody asks any more."""
        try:
            asked = control.recv(1)
        except OSError:
            asked = b""
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM if asked == bytes([signal.SIGTERM]) else signal.SIGKILL)

    def _reap(self) -> None:
        for pid in list(self._children):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended, status = pid, 0
            if ended:
                code = os.waitstatus_to_exitcode(status)
                control = self._children.pop(pid)
                _answer(control, code if code >= 0 else 128 - code)
                control.close()


def _read_request(control: socket.socket) -> dict[str, Any]:
    (length,) = struct.unpack(">I", _read(control, 4))
    if length > _MAX_REQUEST_BYTES:
        raise InputError("The request to start a process is too long.")
    request = parse_json(_read(control, length), what="The request", max_bytes=_MAX_REQUEST_BYTES)
    if (
        not isinstance(request, dict)
        or set(request) != {"command", "directory", "environment"}
        or not isinstance(request["directory"], str)
        or not isinstance(request["command"], list)
        or not request["command"]
        or not isinstance(request["environment"], dict)
        or not all(isinstance(text, str) for text in [*request["command"], *request["environment"].values()])
    ):
        raise InputError("The request to start a process is none.")
    return request


def _read(control: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = control.recv(count - len(data))
        if not piece:
            raise InputError("The request to start a process ended early.")
        data += piece
    return data


def _answer(control: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):
        control.sendall(struct.pack(">i", number))


def _become(request: dict[str, Any], streams: socket.socket) -> NoReturn:
    """Become the program; what it prints as errors goes nowhere, for it may be data."""
    try:
        for name in (signal.SIGINT, signal.SIGHUP):
            signal.signal(name, signal.SIG_DFL)
        os.dup2(streams.fileno(), 0)
        os.dup2(streams.fileno(), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if request["directory"]:
            os.chdir(request["directory"])
        command, environment = request["command"], request["environment"]
        os.execvpe(command[0], command, environment)  # noqa: S606 - what the JVM would have started itself
    except BaseException:
        os._exit(127)
    raise AssertionError


if __name__ == "__main__":
    main(sys.argv[1:])
