"""Starts a worker's executors as forks of a process that has been measured already.

A worker starts each executor as a program, its ``java``. Were that the node's agent, each executor would
import and measure everything anew. Instead the agent forks this starter before it becomes the worker's
JVM; the ``java`` only passes on how it was called. Each executor is a fork: it has its command checked,
makes keys of its own, attests, and becomes its JVM by exec. The starter itself has no keys and no
certificate.

The Unix socket lies in the node's directory, which only its user can enter, and the user of each caller
is compared. Nothing secret goes over it. A caller that is that user could as well start an agent with a
plan: what comes of it is an attested executor that talks to attested drivers only.

Who ends when: the executor with its caller (SIGTERM is passed on, anything else is SIGKILL), the caller
with the executor and its status, the starter with the worker, the executors with the starter.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from sealbook import lifeline
from sealbook.errors import RefusedError, SealbookError
from sealbook.spark.executor_request import LENGTH_BYTES, ExecutorRequest

#: How many may be connected: a worker has one executor for each job.
MAX_CALLERS = 256
#: Seconds until a caller must have said what it wants.
PATIENCE = 10
_PIECE = 64 * 1024
#: What a caller sends behind its request when it got SIGTERM itself.
_ASKED_TO_END = b"T"
_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


def listen(place: Path) -> socket.socket:
    """Listen at a Unix socket in a directory that only this user can enter.

    Raises
    ------
    RefusedError
        Others can.
    """
    status = place.parent.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise RefusedError(f"The node's directory {place.parent} must be its user's alone (mode 0700).")
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(place))
        listener.listen(MAX_CALLERS)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


@dataclass(frozen=True)
class _Executor:
    """A fork; its number is its own until it was waited for. `ended` is a file that tells when it can be."""

    pid: int
    ended: int


@dataclass(eq=False)
class _Call:
    """One connection, from its request to the end of its executor."""

    connection: socket.socket
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    executor: _Executor | None = None


class ExecutorStarter:
    """The starter of one worker.

    Parameters
    ----------
    listener
        From :func:`listen`.
    become
        Called in the fork; becomes the executor, or raises.
    """

    def __init__(self, listener: socket.socket, become: Callable[[ExecutorRequest], NoReturn]) -> None:
        self._listener = listener
        self._become = become
        self._calls: set[_Call] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def fork(self) -> int:
        """Start the starter as a child, which ends when this process does; returns its number."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._selector.close()
            self._listener.close()
            return pid
        try:
            lifeline.end_with(parent)
            self.serve()
        except BaseException as error:
            _say(f"sealbook node: The executor starter has ended ({type(error).__name__}).\n")
        finally:
            os._exit(1)

    def serve(self) -> NoReturn:
        """Take requests until this process is ended."""
        while True:
            waiting = [call.deadline for call in self._calls if call.executor is None]
            timeout = max(0.0, min(waiting) - time.monotonic()) if waiting else None
            for key, _ in self._selector.select(timeout):
                # An event before it may have closed what this one is about.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            for call in [each for each in self._calls if each.executor is None]:
                if time.monotonic() > call.deadline:
                    self._close(call)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it went away
        peer = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if peer[1] != os.geteuid() or len(self._calls) >= MAX_CALLERS:
            connection.close()
            return
        connection.setblocking(False)
        call = _Call(connection, time.monotonic() + PATIENCE)
        self._calls.add(call)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(call))

    def _read(self, call: _Call) -> None:
        try:
            piece = call.connection.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if call.executor is not None:
            self._told(call, call.executor, piece)
            return
        if not piece:
            self._close(call)
            return
        call.received += piece
        try:
            self._try_start(call)
        except SealbookError as error:
            self._answer(call, error.exit_code, f"sealbook node: {error}\n")
        except OSError as error:
            self._answer(call, 2, f"sealbook node: No executor can be started: {error.strerror}.\n")

    def _told(self, call: _Call, executor: _Executor, piece: bytes) -> None:
        """Pass on how the worker ends its ``java``."""
        asked = piece != b"" and not piece.strip(_ASKED_TO_END)
        os.kill(executor.pid, signal.SIGTERM if asked else signal.SIGKILL)
        if not asked:
            self._selector.unregister(call.connection)

    def _try_start(self, call: _Call) -> None:
        if len(call.received) < LENGTH_BYTES:
            return
        length = ExecutorRequest.length(bytes(call.received[:LENGTH_BYTES]))
        body = bytes(call.received[LENGTH_BYTES:])
        if len(body) < length:
            return
        behind = body[length:]
        if behind.strip(_ASKED_TO_END):
            raise RefusedError("Something stands behind the request for an executor: it is not started.")
        request = ExecutorRequest.parse(body[:length])
        call.received.clear()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_executor(call, request, parent)
        try:
            executor = _Executor(pid, os.pidfd_open(pid))
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        call.executor = executor
        self._selector.register(executor.ended, selectors.EVENT_READ, lambda: self._finish(call, executor))
        if behind:
            self._told(call, executor, behind)

    def _be_executor(self, call: _Call, request: ExecutorRequest, parent: int) -> NoReturn:
        """Become the executor; what goes wrong is said to the caller."""
        status = 1
        try:
            lifeline.end_with(parent)
            os.dup2(call.connection.fileno(), 2)
            self._forget_others()
            self._become(request)
        except SealbookError as error:
            _say(f"sealbook node: {error}\n")
            status = error.exit_code
        except OSError as error:
            _say(f"sealbook node: {error.filename or 'It'}: {error.strerror}.\n")
            status = 2
        except BaseException as error:
            _say(f"sealbook node: This executor could not be set up ({type(error).__name__}).\n")
        finally:
            os._exit(status)

    def _forget_others(self) -> None:
        """Close what belongs to other callers: they wait for the last copy of their connection to close."""
        self._selector.close()
        self._listener.close()
        for call in self._calls:
            call.connection.close()
            if call.executor is not None:
                os.close(call.executor.ended)

    def _finish(self, call: _Call, executor: _Executor) -> None:
        """Tell the caller the status of its executor, which has ended."""
        _, waited = os.waitpid(executor.pid, 0)
        status = os.waitstatus_to_exitcode(waited)
        # As Java, and every shell, count an end by a signal.
        self._answer(call, status if status >= 0 else 128 - status, "")

    def _answer(self, call: _Call, status: int, sentence: str) -> None:
        with contextlib.suppress(OSError):  # nobody waits for it
            call.connection.send(sentence.encode(errors="replace") + bytes([status]))
        self._close(call)

    def _close(self, call: _Call) -> None:
        self._calls.discard(call)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(call.connection)
        if call.executor is not None:
            self._selector.unregister(call.executor.ended)
            os.close(call.executor.ended)
        call.connection.close()


def _say(sentence: str) -> None:
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        os.write(2, sentence.encode(errors="replace"))
