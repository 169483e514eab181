"""All nodes that start on one machine, as forks of one process: measured once, while it imports.

``python -I -B -m sealbook.spark.node together PLAN...``. A line on standard input says that the brokers
answer; where that ends without one, whoever started this process is gone, and so are the nodes. Standard
output has one JSON line with the measurement, as soon as it is known, and one with the number of each
node's process in the order of the plans. Each node leads a session of its own and writes into a log of
its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sealbook.encoding import canonical_json
from sealbook.spark.node_plan import NodePlan

#: What is read from standard input once the nodes may start.
GO = b"\n"


class NodeGroup:
    """The nodes of one start.

    Parameters
    ----------
    become
        Called in each fork; becomes the node's JVM, or ends the process with a sentence.
    """

    def __init__(self, become: Callable[[NodePlan], NoReturn]) -> None:
        self._become = become

    def report(self, measurement: bytes) -> None:
        """Say what this process was measured as; the policy's owner may have something to say to that."""
        _tell({"measurement": measurement.hex()})

    def wait(self) -> bool:
        """Wait for the word to go on; returns whether it came."""
        return os.read(0, len(GO)) == GO

    def start(self, plans: Sequence[NodePlan]) -> None:
        """Fork the nodes."""
        for plan in plans:
            pid = os.fork()
            if pid == 0:
                self._be(plan)
            _tell({"pid": pid})

    def _be(self, plan: NodePlan) -> NoReturn:
        try:
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDONLY)
            log = os.open(plan.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(nothing, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(plan.directory)
            self._become(plan)
        finally:
            # Nothing may go on as the process that it was a fork of.
            sys.stderr.flush()
            os._exit(1)


def _tell(what: dict[str, object]) -> None:
    sys.stdout.buffer.write(canonical_json(what) + b"\n")
    sys.stdout.buffer.flush()
