"""The IPython kernel inside the enclave: stock, less what would open a door past the channel."""

from __future__ import annotations

import asyncio
import fnmatch
from typing import TYPE_CHECKING, Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from traitlets import Type

from sealbook import session
from sealbook.errors import SealbookError
from sealbook.jupyter.handshake import ATTEST_REPLY, ATTEST_REQUEST

if TYPE_CHECKING:
    from sealbook.spark.face import SparkFace

_NO_DEBUGGER = (
    "The debugger is not available in a sealbook kernel: debugpy would listen on a TCP port that "
    "anyone on this machine can attach to; use %debug or pdb, which run over the attested channel."
)

_ONE_CLIENT = (
    "A sealbook kernel admits one client, the one whose key its quote names: there is no connection "
    "file to share, and --existing cannot attach."
)


@magics_class
class ChannelMagics(Magics):
    """The stock magics about connections, answered truthfully; registered over the stock ones."""

    @line_magic
    def connect_info(self, arg_s: str) -> None:
        """Say why no second client can connect."""
        print(_ONE_CLIENT)

    @line_magic
    def qtconsole(self, arg_s: str) -> None:
        """Say why no second client can connect."""
        print(_ONE_CLIENT)


class _MemoryStore(dict[str, Any]):
    """IPython's store of bookmarks, aliases and module names, with its one method beyond a dict's."""

    def keys(self, pattern: str | None = None) -> Any:
        """Return the keys, all or those that match a glob pattern."""
        return super().keys() if pattern is None else fnmatch.filter(super().keys(), pattern)


class AttestedShell(ZMQInteractiveShell):
    """The interactive shell of an attested kernel: stock, but for the magics about connections."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Stock keeps this store as pickles in a directory of the host's, and the first completion of an
        # import would open one.
        self.db = _MemoryStore()

    def init_magics(self) -> None:
        """Replace the magics that would describe a connection file."""
        super().init_magics()
        self.register_magics(ChannelMagics)


class AttestedKernel(IPythonKernel):
    """An IPython kernel without the debugger."""

    implementation = "sealbook"
    shell_class = Type(AttestedShell)

    #: Trusted Spark in this kernel; set by the application.
    spark: SparkFace | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # One message more than stock, from the user's side alone, as every other.
        self.control_handlers[ATTEST_REQUEST] = self.attest_again

    def _send_interrupt_children(self) -> None:
        """Interrupt as stock, and also a cell that awaits something.

        Stock's signal handler only tells the event loop to cancel such a cell, and does not wake the loop,
        which waits for what the cell waits for. Spark jobs of the cell are cancelled where they run, also if
        the cell takes no notice.
        """
        # First the signal: the cell shall see its interrupt and not a job of its own that was cancelled.
        self._signal_interrupt()
        if self.spark is not None:
            self.spark.interrupt()
        self.io_loop.add_callback(lambda: None)

    def _signal_interrupt(self) -> None:
        """Send SIGINT; a kind of kernel where that takes more replaces this."""
        super()._send_interrupt_children()

    @property
    def kernel_info(self) -> dict[str, Any]:
        """The stock reply, without claiming a debugger."""
        info: dict[str, Any] = dict(super().kernel_info)
        info["supported_features"] = [f for f in info["supported_features"] if f != "debugger"]
        return info

    async def do_debug_request(self, msg: dict[str, Any]) -> dict[str, Any]:
        """Refuse: see the sentence."""
        return {
            "type": "response",
            "request_seq": msg.get("seq", 0),
            "seq": msg.get("seq", 0),
            "command": msg.get("command", ""),
            "success": False,
            "message": _NO_DEBUGGER,
        }

    async def attest_again(self, socket: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Attest anew because the user's side asks for it, on the control channel: also while a cell runs.

        The reply says nothing that anybody relies on: the broker has judged the evidence.
        """
        try:
            await asyncio.to_thread(session.current().reattest)
            content = {"status": "ok"}
        except SealbookError as error:
            content = {"status": "error", "ename": type(error).__name__, "evalue": str(error)}
        assert self.session is not None  # noqa: S101 - for the type checker
        self.session.send(socket, ATTEST_REPLY, content, parent, ident=ident)

    def do_history(
        self,
        hist_access_type: str,
        output: bool,
        raw: bool,
        session: int = 0,
        start: int = 0,
        stop: int | None = None,
        n: int | None = None,
        pattern: str | None = None,
        unique: bool = False,
    ) -> Any:
        """Answer as stock, but name the session by the number it was asked for.

        IPython calls the running session 0 in a range, whatever it was asked; the protocol's
        conformance suite (jupyter_kernel_test) asks by number and expects that number back.
        """
        reply = super().do_history(hist_access_type, output, raw, session, start, stop, n, pattern, unique)
        if hist_access_type == "range" and session > 0:
            reply["history"] = [(session, *entry[1:]) for entry in reply["history"]]
        return reply
