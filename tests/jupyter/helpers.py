"""How the tests talk to a kernel."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import zmq
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager


@dataclass
class Ran:
    """What running one cell gave."""

    status: str
    text: str
    result: str | None
    error: str | None


def run(client: BlockingKernelClient, code: str, *, timeout: float = 60, **kwargs: Any) -> Ran:
    """Execute a cell and collect its output."""
    text, result, error = [], None, None

    def collect(message: dict[str, Any]) -> None:
        nonlocal result, error
        content = message["content"]
        if message["msg_type"] == "stream":
            text.append(content["text"])
        elif message["msg_type"] == "display_data":
            text.append(content["data"].get("text/plain", ""))
        elif message["msg_type"] == "execute_result":
            result = content["data"]["text/plain"]
        elif message["msg_type"] == "error":
            error = f"{content['ename']}: {content['evalue']}"

    reply = client.execute_interactive(code, output_hook=collect, timeout=timeout, **kwargs)
    return Ran(reply["content"]["status"], "".join(text), result, error)


@contextlib.contextmanager
def connected(manager: KernelManager) -> Iterator[BlockingKernelClient]:
    """Yield a client of a started kernel that is ready."""
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()


@contextlib.contextmanager
def kernel(name: str, **kwargs: Any) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """Start a kernel, yield its manager and a client, and shut it down."""
    manager = KernelManager(kernel_name=name)
    manager.start_kernel(**kwargs)
    try:
        with connected(manager) as client:
            yield manager, client
    finally:
        manager.shutdown_kernel(now=True)


def wait_until(condition: Callable[[], object], *, seconds: float = 30) -> bool:
    """Return whether `condition` came true within a generous time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


@contextlib.contextmanager
def raw_socket(kind: int, port: int, **curve: bytes) -> Iterator[zmq.Socket[bytes]]:
    """Yield a plain ZMQ socket connected to a kernel's port, as a stranger would open it."""
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    for option, value in curve.items():
        setattr(socket, option, value)
    if kind == zmq.SUB:
        socket.subscribe(b"")
    socket.connect(f"tcp://127.0.0.1:{port}")
    try:
        yield socket
    finally:
        context.destroy(linger=0)
