"""The broker channel by itself: who is answered, and when."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
import zmq
from helpers import raw_socket

from sealbook.errors import RefusedError
from sealbook.jupyter.brokerchannel import BrokerConnection, BrokerServer
from sealbook.jupyter.curve import CurveKeys

CLIENT, KERNEL = CurveKeys.generate(), CurveKeys.generate()


@pytest.fixture
def server() -> Iterator[BrokerServer]:
    server = BrokerServer(CLIENT)
    yield server
    server.close()


def port(server: BrokerServer) -> int:
    return int(server.address.split()[0].rpartition(":")[2])


def test_the_admitted_kernel_is_answered(server: BrokerServer) -> None:
    server.admit(KERNEL.public, lambda frame: b"answer to " + frame)
    connection = BrokerConnection(server.address, KERNEL, CLIENT.public, timeout=10)
    assert [connection(b"one"), connection(b"two")] == [b"answer to one", b"answer to two"]
    assert connection.ping()
    connection.close()


def test_who_knocked_before_the_kernel_was_verified_is_not_answered_afterwards(server: BrokerServer) -> None:
    """libzmq admits everyone on a CURVE socket without a ZAP handler, unless it is told not to."""
    stranger = CurveKeys.generate()
    curve = {
        "curve_serverkey": CLIENT.public,
        "curve_publickey": stranger.public,
        "curve_secretkey": stranger.secret,
    }
    with raw_socket(zmq.REQ, port(server), **curve) as socket:
        if socket.poll(1000, zmq.POLLOUT):
            socket.send(b"early", zmq.NOBLOCK)
        time.sleep(1)  # long enough for a handshake with a socket that has no handler yet
        asked: list[bytes] = []
        server.admit(KERNEL.public, lambda frame: asked.append(frame) or b"answer")
        assert not socket.poll(1500)
        assert asked == []


def test_a_kernel_with_another_key_is_not_answered(server: BrokerServer) -> None:
    server.admit(KERNEL.public, lambda frame: b"answer")
    connection = BrokerConnection(server.address, CurveKeys.generate(), CLIENT.public, timeout=1)
    with pytest.raises(RefusedError, match="did not answer"):
        connection(b"ask")
    assert not connection.ping()
    connection.close()


def test_a_server_without_the_clients_secret_gets_no_request(server: BrokerServer) -> None:
    """The kernel speaks only to the holder of the key that its quote binds."""
    server.admit(KERNEL.public, lambda frame: b"answer")
    connection = BrokerConnection(server.address, KERNEL, CurveKeys.generate().public, timeout=1)
    with pytest.raises(RefusedError, match="did not answer"):
        connection(b"ask")
    connection.close()


def test_after_a_timeout_the_next_answer_belongs_to_the_next_request(server: BrokerServer) -> None:
    def slow(frame: bytes) -> bytes:
        if frame == b"slow":
            time.sleep(2)
        return b"answer to " + frame

    server.admit(KERNEL.public, slow)
    connection = BrokerConnection(server.address, KERNEL, CLIENT.public, timeout=1)
    with pytest.raises(RefusedError):
        connection(b"slow")
    time.sleep(1.5)
    assert connection(b"next") == b"answer to next"
    connection.close()


def test_a_forked_process_is_refused_in_a_sentence(server: BrokerServer) -> None:
    server.admit(KERNEL.public, lambda frame: b"answer")
    connection = BrokerConnection(server.address, KERNEL, CLIENT.public, timeout=10)
    connection._process = os.getpid() + 1
    with pytest.raises(RefusedError, match="forked"):
        connection(b"ask")
    connection.close()
