"""Output of forked children over what they inherited, and not over a port of its own.

Stock ipykernel listens on a sixth TCP port, without CURVE, for what forked children print: anyone on
the host reads that traffic and can send to the port. Here a child's text goes to the file
descriptor it inherited from the kernel, whose other end the kernel reads and forwards; other
messages of children (displayed objects) are dropped. Nothing that is printed reaches the streams that
the kernel was started with: those are the host's.
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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Stock does not redirect the descriptor where a variable of pytest's is set, by whomever.
        super().__init__(*args, **kwargs | {"watchfd": "force"})

    def fileno(self) -> int:
        """Return the descriptor that leads to the notebook; stock's leads to where the kernel was started."""
        return int(self._original_stdstream_fd)

    def _setup_stream_redirects(self, name: str) -> None:
        """Redirect as stock, but keep nothing of what cells and their processes print for the host.

        Stock copies all of it to the stream that the kernel was started with, which is the host's.
        """
        super()._setup_stream_redirects(name)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._original_stdstream_copy)
        os.close(nowhere)

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
