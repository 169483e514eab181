"""Entry point inside Gramine, and the one place for everything that ipykernel needs to be told there.

Started by Gramine itself: the manifest fixes these arguments, and nothing of the host's command line or
environment gets in. The one thing the host says is in a small mounted file: where to register. All else it
learns from the provisioner's challenge, which the image's owner signed, and its quote binds it.

Handled elsewhere, because an option does it: ``MALLOC_ARENA_MAX`` (the manifest's environment), byte code
and time stamps (:mod:`sealbook.image.archives`), the number of files (the same), no parent process to poll
(:mod:`sealbook.jupyter.liveness`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import zmq
from ipykernel.heartbeat import Heartbeat
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.utils import timing
from traitlets import Type, default

from sealbook import session
from sealbook.attestation.gramine import (
    DIRECTORY,
    MOUNT_KEY_BYTES,
    mount_key,
    open_attester,
    set_mount_key,
)
from sealbook.encoding import parse_json
from sealbook.errors import InputError, SealbookError
from sealbook.image_owner import OWNER, read_owner
from sealbook.jupyter.handshake import Challenge
from sealbook.jupyter.kernel import AttestedKernel, AttestedShell
from sealbook.jupyter.kernelapp import AttestedKernelApp

#: Where the manifest mounts the launch parameters; see :mod:`sealbook.image.manifest`.
PARAMETERS = Path("/run/sealbook/registration")

_MAX_PARAMETERS = 4096

#: Mappings for 4 GiB of memory in pages of 4 KiB.
_MAPPINGS = 1 << 20

#: The encrypted mounts that a key of the broker opens; the second is there if the image was built so.
_MOUNTS = ("data", "work")

#: The version of a key that a data mount is encrypted under. Rotation would make its files unreadable.
_DATA_KEY_VERSION = 1


@magics_class
class PackageMagics(Magics):
    """The stock magics that install packages, answered; registered over the stock ones."""

    @line_magic("conda")
    @line_magic("mamba")
    @line_magic("micromamba")
    @line_magic("uv")
    @line_magic("pip")  # type: ignore[arg-type]  # typed as if it took no name
    def install(self, arg_s: str) -> None:
        """Say how a package gets into an image."""
        print(
            "Packages of this kernel are measured and cannot be added while it runs: install them outside, "
            "in the environment that the image is built from, and there run "
            "`sealbook image build --force --package NAME`, then `sealbook install` as before."
        )


class GramineShell(AttestedShell):
    """The shell of a kernel in Gramine."""

    #: Why an encrypted directory cannot be used, for whoever runs the first cell.
    closed: str | None = None

    def init_magics(self) -> None:
        """Replace the magics that would try to install packages, and the CPU clock of those that measure.

        Gramine has no getrusage, and what it has of CPU clocks is wrong, so that %time and %timeit would
        fail or lie. They have no option for another clock.
        """
        super().init_magics()
        self.register_magics(PackageMagics)
        timing.clock = lambda: 0.0
        timing.clock2 = lambda: (0.0, 0.0)

    def init_events(self) -> None:
        """Say before the first cell what stays closed."""
        super().init_events()
        self.events.register("pre_run_cell", self._say_what_is_closed)

    def _say_what_is_closed(self, info: Any) -> None:
        if self.closed is not None:
            print(self.closed, file=sys.stderr)
            self.closed = None

    def system(self, cmd: str) -> None:
        """Run `!cmd` as a plain subprocess: the stock way needs a pseudo-terminal, and Gramine has none.

        To make a process, Gramine copies all memory of this one, page by page, each a mapping of its own
        on the host, where vm.max_map_count limits them: with Linux's default a large kernel gets no process.
        """
        try:
            self.system_raw(cmd)
        except OSError as error:
            # As a shell says that it found the command and could not run it.
            self.user_ns["_exit_code"] = 126
            megabytes = psutil.Process().memory_info().rss >> 20
            print(
                f"The command was not run ({error.strerror}): to start it, Gramine copies this kernel's "
                f"{megabytes} MiB, and the host may allow too few memory mappings for that; run the command "
                "before large data is loaded, or on the host "
                f"`sudo sysctl -w vm.max_map_count={_MAPPINGS}`.",
                file=sys.stderr,
            )


class GramineKernel(AttestedKernel):
    """A kernel that can be interrupted in Gramine."""

    shell_class = Type(GramineShell)

    def _signal_interrupt(self) -> None:
        """Interrupt the cell that runs, and the subprocesses it waits for.

        Stock sends SIGINT to the process group. In Gramine the kernel is process 1 of group 1, for which that
        means every other process (kill(2), pid -1), and a signal to the process does not wake a
        main thread that waits; one to the thread does.
        """
        spark = None if self.spark is None else self.spark.process
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):  # it ended in between
                # SIGINT would end Spark's JVM, and with it all that the notebook has there.
                if spark is None or spark not in (child.pid, *(each.pid for each in child.parents())):
                    child.send_signal(signal.SIGINT)
        main_thread = threading.main_thread().ident
        if main_thread is not None:
            signal.pthread_kill(main_thread, signal.SIGINT)


def bind(server: zmq.Socket[Any], ip: str, port: int) -> int:
    """Bind a ZMQ socket to an address, without asking for the machine's network interfaces.

    libzmq looks an address up among the interfaces (getifaddrs), for which Gramine has no netlink sockets,
    and aborts the process. With a socket that listens already (ZMQ_USE_FD) it does not.

    Returns
    -------
    int
        The port, chosen by the system if `port` is 0.
    """
    try:
        listener = socket.create_server((ip, port), backlog=128)
    except OSError as error:
        raise zmq.ZMQError(error.errno) from None
    listener.setblocking(False)
    found: int = listener.getsockname()[1]
    server.setsockopt(zmq.USE_FD, listener.detach())
    server.bind(f"tcp://{ip}:{found}")
    return found


class GramineHeartbeat(Heartbeat):
    """A heartbeat that binds as :func:`bind` does."""

    def _try_bind_socket(self) -> None:
        bind(self.socket, self.ip, self.port)


class GramineKernelApp(AttestedKernelApp):
    """Start an attested kernel in Gramine."""

    kernel_class = Type(GramineKernel)
    heartbeat_class = GramineHeartbeat
    _closed: str | None = None

    @default("ip")
    def _ip_default(self) -> str:
        # Stock looks for it among the network interfaces; see `bind`.
        return "127.0.0.1"

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        """Take the launch parameters from their file; the command line is the manifest's."""
        try:
            address = read_parameters(PARAMETERS)
        except SealbookError as error:
            self._end(str(error))
        super().parse_command_line([f"--registration={address}"])

    def check_challenge(self, challenge: Challenge) -> None:
        """Answer only to the owner that the image names; see :mod:`sealbook.broker.ownership`."""
        owner = read_owner(OWNER)
        if owner is not None:
            challenge.check_signature(owner)

    def write_connection_file(self, **kwargs: Any) -> None:
        """Register; once the evidence was accepted, open the encrypted mounts."""
        super().write_connection_file(**kwargs)
        if self._challenge.data_key:
            self._open_mounts(self._challenge.data_key)

    def init_extensions(self) -> None:
        """Load the magics, and let the shell say what stays closed."""
        super().init_extensions()
        if isinstance(self.shell, GramineShell):
            self.shell.closed = self._closed

    def _try_bind_socket(self, s: zmq.Socket[Any], port: int) -> int:
        return bind(s, self.ip, port)

    def _open_mounts(self, name: str) -> None:
        """Ask the broker for the mounts' key; without it they stay closed, and the kernel goes on."""
        try:
            key = session.current().keys.get(name, _DATA_KEY_VERSION)
            for mount in _MOUNTS:
                if (DIRECTORY / "keys" / mount).exists():
                    set_mount_key(mount, mount_key(key.secret, mount))
        except SealbookError as error:
            self._closed = f"What is encrypted with the key '{name}' stays closed: {error}"
            self.log.warning("%s", self._closed)


def read_parameters(path: Path) -> str:
    """Return the address to register at, which is untrusted.

    Raises
    ------
    InputError
        The file is missing, too long or says anything else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PARAMETERS + 1)
    except OSError:
        raise InputError(
            "This kernel runs inside Gramine and is started by its provisioner: choose it in JupyterLab or "
            "run `papermill -k sealbook-gramine-sgx`."
        ) from None
    parsed = parse_json(data, what="The launch parameters", max_bytes=_MAX_PARAMETERS)
    address = parsed.get("registration") if isinstance(parsed, dict) and len(parsed) == 1 else None
    if not isinstance(address, str):
        raise InputError("The launch parameters are not a registration address.")
    return address


def main() -> None:
    """Start the kernel; returns when it ended."""
    try:
        # Before anything writes there: a file that is opened without a key stays unusable. The key never
        # leaves this enclave and ends with it.
        set_mount_key("scratch", os.urandom(MOUNT_KEY_BYTES))
        attester = open_attester()
    except SealbookError as error:
        sys.stderr.write(f"sealbook kernel: {error}\n")
        sys.exit(2)
    GramineKernelApp.launch_instance(attester=attester)


if __name__ == "__main__":
    main()
