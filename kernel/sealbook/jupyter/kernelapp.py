"""Where a kernel starts: in the enclave, with its own keys, silent until it is verified.

`ipykernel.kernelapp.IPKernelApp` starts a kernel in stages, one method each; this subclass
replaces the stages that take something from the host or leave something there. The stages and
their order are ipykernel's; that they still are is what ``tests/jupyter/test_kernelapp.py``
watches, and why ipykernel is pinned to ``>=7.3,<8``.
"""

from __future__ import annotations

import re
import socket
import sys
import tempfile
from typing import Any, NoReturn

import zmq
from ipykernel.heartbeat import Heartbeat
from ipykernel.kernelapp import IPKernelApp
from traitlets import Type, Unicode
from traitlets.config import Config
from zmq.auth.thread import ThreadAuthenticator

from sealbook import session
from sealbook.attestation import ROLE_KERNEL, Attester, report_data
from sealbook.broker import RemoteBroker
from sealbook.errors import SealbookError
from sealbook.jupyter import handshake
from sealbook.jupyter.brokerchannel import BrokerConnection
from sealbook.jupyter.curve import CurveKeys, admit_only, require_admission, serve
from sealbook.jupyter.iostream import PortlessIOPubThread
from sealbook.jupyter.kernel import AttestedKernel
from sealbook.jupyter.liveness import ClientWatch
from sealbook.jupyter.registration import receive_message, send_message
from sealbook.spark.face import SparkFace

_REGISTRATION = re.compile(r"--registration=(tcp://[0-9a-zA-Z.:\[\]-]{1,128}:[0-9]{1,5})")

#: Seconds the kernel waits for each answer of the provisioner.
REGISTRATION_TIMEOUT = 60


class AttestedKernelApp(IPKernelApp):
    """Start an IPython kernel that attests itself before it answers anything.

    Started by the entry point of each kind of enclave (:mod:`sealbook.jupyter.simulated_kernel`),
    which provides the attester. Everything else it learns from the host is public, untrusted and
    bound by its quote: the registration address from its one argument, the rest from the
    provisioner's challenge.
    """

    name = "sealbook-kernel"
    kernel_class = Type(AttestedKernel)

    registration = Unicode(help="Where the provisioner waits for this kernel, tcp://host:port.")

    #: What binds and answers the heartbeat.
    heartbeat_class: type[Heartbeat] = Heartbeat

    #: Makes the evidence; set by the entry point.
    attester: Attester

    _keys: CurveKeys
    _challenge: handshake.Challenge
    _registrar: socket.socket
    _broker_connection: BrokerConnection
    _watch: ClientWatch | None = None
    _spark: SparkFace | None = None

    def __init__(self, *, attester: Attester, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attester = attester
        self.outstream_class = "sealbook.jupyter.iostream.InheritedOutStream"
        self._authenticators: list[ThreadAuthenticator] = []

    # -- what the host may say, and what it may not ------------------------------------------

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        """Take the registration address and refuse everything else.

        Stock ipykernel takes any trait from its command line, ``exec_lines`` among them: code
        that the host chooses, run by a kernel whose measurement does not know it.
        """
        arguments = sys.argv[1:] if argv is None else argv
        match = _REGISTRATION.fullmatch(arguments[0]) if len(arguments) == 1 else None
        if match is None:
            self._end(
                "A sealbook kernel takes one argument, --registration=tcp://HOST:PORT, and is started by its "
                "provisioner: choose it in JupyterLab or run `papermill -k sealbook-simulated`."
            )
        self.registration = match[1]

    def init_profile_dir(self) -> None:
        """Use a profile directory of this kernel's own: the user's holds code and history."""
        self._profile = tempfile.TemporaryDirectory(prefix="sealbook-kernel-")
        self.ipython_dir = self._profile.name
        self.config.ProfileDir.location = self._profile.name
        super().init_profile_dir()

    def load_config_file(self, *args: Any, **kwargs: Any) -> None:
        """Load no configuration file, they are code from the host, and fix what would use the host's files.

        History stays in memory. No jedi: it keeps its syntax trees as pickles in the user's cache
        directory, and opening one is running code from the host; IPython's own completer stays.
        """
        self.update_config(
            Config({"HistoryManager": {"hist_file": ":memory:"}, "Completer": {"use_jedi": False}})
        )

    def _run_startup_files(self) -> None:
        """Run none: they are code from the host that no measurement covers."""

    def init_poller(self) -> None:
        """Poll no parent process: :class:`ClientWatch` asks the client itself."""

    # -- keys, sockets, evidence -------------------------------------------------------------

    def init_connection_file(self) -> None:
        """Read no file: make the keys here and fetch the challenge."""
        self._keys = CurveKeys.generate()
        self.curve_publickey, self.curve_secretkey = self._keys.public, self._keys.secret
        host, _, port = self.registration.removeprefix("tcp://").rpartition(":")
        try:
            self._registrar = socket.create_connection((host.strip("[]"), int(port)), REGISTRATION_TIMEOUT)
            send_message(self._registrar, handshake.hello())
            self._challenge = handshake.Challenge.decode(receive_message(self._registrar))
            self.check_challenge(self._challenge)
            client_key = self._challenge.client_key.encode()
            self.session.key = handshake.session_key(self._keys, client_key, self._challenge.nonce)
        except (SealbookError, OSError) as error:
            self._end(str(error))

    def check_challenge(self, challenge: handshake.Challenge) -> None:
        """Refuse a challenge of somebody to whom this kernel does not answer, before anything is bound.

        A simulated kernel answers anyone: on this machine anyone could simulate as well.
        """

    def _apply_curve_server_options(self, server: zmq.Socket[Any]) -> None:
        self._admit_client(server.context)
        serve(server, self._keys)

    def init_iopub(self, context: zmq.Context[Any]) -> None:
        """Bind iopub as stock, but without the sixth, open port that stock has for forked children."""
        self.iopub_socket = context.socket(zmq.XPUB)
        self.iopub_socket.linger = 1000
        self._apply_curve_server_options(self.iopub_socket)
        self.iopub_port = self._bind_socket(self.iopub_socket, self.iopub_port)
        self.configure_tornado_logger()
        self.iopub_thread = PortlessIOPubThread(self.iopub_socket, session=self.session)
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket

    def init_heartbeat(self) -> None:
        """Start the heartbeat in a context of its own, as stock, with an admission of its own."""
        context: zmq.Context[Any] = zmq.Context()
        require_admission(context)
        self._admit_client(context)
        self.heartbeat = self.heartbeat_class(
            context,
            (self.transport, self.ip, self.hb_port),
            curve_publickey=self._keys.public,
            curve_secretkey=self._keys.secret,
        )
        self.hb_port = self.heartbeat.port
        self.heartbeat.start()

    def write_connection_file(self, **kwargs: Any) -> None:
        """Write no file: register with evidence, and go on only when it was accepted."""
        try:
            registration = handshake.Registration(
                kernel_key=self._keys.public.decode(),
                evidence=self._evidence(self._challenge.nonce),
                **self._where(),
            )
            send_message(self._registrar, registration.encode())
            answer = receive_message(self._registrar)
            verdict = handshake.decode(answer, "verdict", ("accepted", "sentence"))
        except (SealbookError, OSError) as error:
            self._end(str(error))
        if verdict["accepted"] is not True:
            self._end(str(verdict["sentence"]))
        self._registrar.close()
        self._connect_broker()

    def cleanup_connection_file(self) -> None:
        """There is none."""

    def log_connection_info(self) -> None:
        """Record the ports for connect_request; there is nothing else to tell."""
        self._ports = {name.removesuffix("_port"): getattr(self, name) for name in handshake.PORTS}

    # -- what a sealbook kernel has beside a stock one ---------------------------------------

    def init_extensions(self) -> None:
        """Load the magics, and let Spark be there when it is named."""
        super().init_extensions()
        if self.shell is not None:
            self.shell.extension_manager.load_extension("sealbook")
            self._spark = SparkFace(self.shell, self.attester)
            self._spark.install()
            self.kernel.spark = self._spark

    def start(self) -> None:
        """Answer, and watch that there is someone to answer to."""
        self._watch = ClientWatch(self._broker_connection.ping, log=self.log)
        self._watch.start()
        super().start()

    def close(self) -> None:
        """Close everything in order; the stock sockets need their ZAP handlers gone first."""
        if self._watch is not None:
            self._watch.stop()
        if self._spark is not None:
            self._spark.close()
        for authenticator in self._authenticators:
            authenticator.stop()
        self._authenticators.clear()
        super().close()

    # -- helpers -----------------------------------------------------------------------------

    def _admit_client(self, context: zmq.Context[Any]) -> None:
        if any(known.context is context for known in self._authenticators):
            return
        # The kernel's own key, because ipykernel's debug_shell_socket is a client of its shell
        # socket; whoever holds that secret is this kernel.
        client_key = self._challenge.client_key.encode()
        self._authenticators.append(admit_only(context, client_key, self._keys.public, log=self.log))

    def _where(self) -> dict[str, Any]:
        return {
            "ip": self.ip,
            "transport": self.transport,
            "ports": {name: getattr(self, name) for name in handshake.PORTS},
        }

    def _evidence(self, nonce: bytes) -> bytes:
        """Return evidence over this kernel's channel and `nonce`: at the start and on attesting anew."""
        claims = handshake.channel_claims(self._challenge, self._keys.public, self._where())
        return self.attester.quote(
            report_data(role=ROLE_KERNEL, audience=self._challenge.audience, nonce=nonce, claims=claims)
        )

    def _connect_broker(self) -> None:
        self._broker_connection = BrokerConnection(
            self._challenge.broker, self._keys, self._challenge.client_key.encode()
        )
        session.attach(RemoteBroker(self._broker_connection, evidence=self._evidence))

    def _end(self, sentence: str) -> NoReturn:
        sys.__stderr__.write(f"sealbook kernel: {sentence}\n")  # type: ignore[union-attr]
        sys.exit(2)
