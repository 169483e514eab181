"""py4j's gateway for a JVM that may be gone: then whatever still refers to it says so in one sentence.

Imported only where py4j is needed: it comes with PySpark.
"""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from py4j.clientserver import ClientServer, ClientServerConnection, JavaClient
from py4j.protocol import Py4JNetworkError

if TYPE_CHECKING:
    from sealbook.spark.gateway import DriverJvm


#: Seconds that a JVM gets to have ended, once a connection to it has.
_PATIENCE: Final = 2.0

#: How often a connection is tried.
_ATTEMPTS: Final = 4


def _not_py4js(record: logging.LogRecord) -> bool:
    """Keep py4j from printing a traceback of its own for an interrupt or a JVM that ended.

    It logs them as errors and raises them all the same; and when it closes a connection that an interrupt
    broke off, what it still wanted to say over it is lost with the connection.
    """
    return (*Path(record.pathname).parts[-2:], record.funcName) not in {
        ("py4j", "java_gateway.py", "send_command"),
        ("py4j", "clientserver.py", "shutdown_socket"),
    }


# A logger's filter sees what is logged to that logger by name, not what its children pass on.
for _logger in (logging.getLogger(), logging.getLogger("py4j.clientserver")):
    _logger.addFilter(_not_py4js)


class Client(JavaClient):
    """Requests from Python to a JVM that runs; requests to one that has ended are refused."""

    jvm_process: DriverJvm

    def send_command(self, command: str, retry: bool = True, binary: bool = False) -> Any:
        """Send one command; see py4j.

        Raises
        ------
        RefusedError
            The JVM was stopped, and why, or it ended.
        """
        self.jvm_process.require()
        try:
            return super().send_command(command, retry, binary)
        except (Py4JNetworkError, OSError):  # py4j passes on what a connection was refused with
            self.jvm_process.require(_PATIENCE)
            raise

    def garbage_collect_object(self, target_id: str, enqueue: bool = True) -> None:
        """Tell the JVM that nothing refers to an object; none that has ended needs to know."""
        if self.jvm_process.alive:
            super().garbage_collect_object(target_id, enqueue)

    def _create_new_connection(self) -> ClientServerConnection:
        connection = self._connected()
        # Each call is a small message and its answer: without this the TLS records wait for one another.
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _connected(self) -> ClientServerConnection:
        """Connect, and try again where that is broken off.

        Right after an interrupt, which closes a connection in the middle of a call, the JVM was seen to close
        the next one while it is made. Nothing was asked on it, so it can be made again.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return super()._create_new_connection()
            except (Py4JNetworkError, OSError):
                if attempt + 1 == _ATTEMPTS or not self.jvm_process.alive:
                    raise
                time.sleep(0.05 * (attempt + 1))
        raise AssertionError  # not reached


class Gateway(ClientServer):
    """PySpark's kind of gateway (one JVM thread for each Python thread) to one :class:`DriverJvm`."""

    def __init__(self, jvm: DriverJvm, java_parameters: Any, python_parameters: Any) -> None:
        self.__dict__["jvm_process"] = jvm
        super().__init__(java_parameters=java_parameters, python_parameters=python_parameters)

    def _create_gateway_client(self) -> Client:
        client = Client(
            self.java_parameters, self.python_parameters, finalizer_deque=self._create_finalizer_worker()
        )
        client.jvm_process = self.__dict__["jvm_process"]
        return client
