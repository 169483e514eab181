"""Output of forked children over what they inherited, and not over a port of its own.

Stock ipykernel listens on a sixth TCP port, without CURVE, for what forked children print: anyone on
the host reads that traffic and can send to the port. Here a child's text goes to the file
descriptor it inherited from the kernel, whose other end the kernel reads and forwards; other
messages of children (displayed objects) are dropped.
"""

from __future__ import annotations

import os
from typing import Any

from ipykernel.iostream import IOPubThread, OutStream

_DESCRIPTORS = {"stdout": 1, "stderr": 2}


class PortlessIOPubThread(IOPubThread):
    """The thread that publishes, without the port for children."""

    def __init__(self, socket: Any, session: Any) -> None:
        super().__init__(socket, pipe=False, session=session)

    def schedule(self, f: Any) -> None:
        """Run `f` in the publishing thread; nothing in a forked child, whose sockets are not its own."""
        if self._is_master_process():
            super().schedule(f)


class InheritedOutStream(OutStream):
    """Standard output or error; a forked child writes to the descriptor that it inherited."""

    def write(self, string: str) -> int:
        """Write text; see :meth:`io.TextIOBase.write`."""
        if self._is_master_process():
            super().write(string)
            return len(string)
        os.write(_DESCRIPTORS[self.name], string.encode(errors="replace"))
        return len(string)

    def flush(self) -> None:
        """Flush; a forked child has nothing buffered."""
        if self._is_master_process():
            super().flush()
