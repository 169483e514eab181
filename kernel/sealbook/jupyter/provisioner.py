"""Starts a kernel, verifies its evidence, and only then lets anyone connect.

Runs on the user's side: in the Jupyter server, in nbclient, in papermill. That side is
trusted; put it where the user is, not on the machine that hosts the enclave.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Any, cast

import zmq
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerBase, LocalProvisioner
from traitlets import Float, Unicode

from sealbook.attestation import ROLE_KERNEL, AttestationResult, Policy
from sealbook.broker import BrokerEndpoint
from sealbook.broker.passphrase import DESCRIPTOR_VARIABLE
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.jupyter import handshake
from sealbook.jupyter.brokerchannel import BrokerServer
from sealbook.jupyter.client import connect_manager
from sealbook.jupyter.curve import CurveKeys
from sealbook.jupyter.embedded import embedded_broker

#: Not for the kernel: where this process was given the keyring's passphrase.
_PRIVATE_ENVIRONMENT = (DESCRIPTOR_VARIABLE,)

#: The exit status of a kernel that has not ended and is not verified (EX_TEMPFAIL of sysexits.h).
_NOT_YET = 75


class AttestedProvisioner(LocalProvisioner):
    """Provisioner of kernels that attest themselves.

    jupyter_client's KernelManager calls, in this order: :meth:`pre_launch` (makes the client's
    keys and the challenge), :meth:`launch_kernel` (starts the process, verifies its evidence,
    raises if it is refused), then it writes the connection file, which holds addresses and
    nothing secret, connects its control socket, and calls :meth:`post_launch` (sets the HMAC key,
    in memory only). A restart goes through all of it again, with new keys at both ends.
    """

    policy = Unicode(
        help="Path of the policy file that the kernel's evidence must pass before anything connects."
    ).tag(config=True)

    registration_timeout = Float(
        60.0, help="Seconds a kernel has from its start until its evidence is verified."
    ).tag(config=True)

    #: What the verifier found; None before the first start. Read by server extensions and papermill.
    attestation: AttestationResult | None = None

    _keys: CurveKeys
    _challenge: handshake.Challenge
    _registration: handshake.Registration
    _registrar: zmq.Socket[bytes]
    _context: zmq.Context[Any] | None = None
    _broker_server: BrokerServer
    _channel_open = False
    _talkable = False
    _endpoint: BrokerEndpoint | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Prepare a start: fresh client keys, a fresh nonce, addresses to register and ask at.

        Called by KernelManager before every start and restart.

        Raises
        ------
        InputError
            When the policy cannot be used; nothing was started.
        """
        self._release_channel()
        self.attestation = None
        # The stock keywords that choose keys and files: here the kernel makes its own, and no file.
        kwargs.pop("transport_encryption", None)
        if kwargs.pop("extra_arguments", None):
            raise InputError(
                "A sealbook kernel takes no extra arguments: they would be code or settings of the host "
                "that its measurement does not cover; set what you need in a cell."
            )
        self._policy = self._load_policy()
        self._broker = embedded_broker()
        self._keys = CurveKeys.generate()
        self._context = zmq.Context()
        self._registrar = self._context.socket(zmq.ROUTER)
        self._registrar.setsockopt(zmq.LINGER, 1000)
        self._registrar.setsockopt(zmq.MAXMSGSIZE, handshake.MAX_MESSAGE)
        port = self._registrar.bind_to_random_port("tcp://127.0.0.1")
        self._broker_server = BrokerServer(self._keys)
        self._channel_open = True
        self._challenge = handshake.Challenge(
            client_key=self._keys.public.decode(),
            nonce=self._broker.challenge(self._policy),
            audience=handshake.AUDIENCE,
            broker=self._broker_server.address,
        )
        if self.parent is not None:
            # A restart begins without the last start's key: it must not get into the connection file.
            self.parent.session.key = b""
        command = [*self.kernel_spec.argv, f"--registration=tcp://127.0.0.1:{port}"]
        # Past LocalProvisioner.pre_launch, which would choose ports and write a key to a file.
        prepared = await KernelProvisionerBase.pre_launch(self, cmd=command, **kwargs)
        for name in _PRIVATE_ENVIRONMENT:
            prepared.get("env", {}).pop(name, None)
        return prepared

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel and verify it; called by KernelManager after :meth:`pre_launch`.

        Returns
        -------
        dict
            Addresses of the verified kernel, with an empty key.

        Raises
        ------
        RefusedError
            When the kernel ended, kept silent or its evidence was refused; it is not running then.
        """
        await super().launch_kernel(cmd, **kwargs)
        stop = threading.Event()
        try:
            await asyncio.to_thread(self._register, self._registrar, stop)
        except BaseException:
            stop.set()
            await self.kill()
            await self.wait()
            self._release_channel()
            raise
        finally:
            self._close_registrar()
        if self.parent is not None:
            connect_manager(self.parent, self._keys, self._registration.kernel_key.encode())
        addresses: dict[str, Any] = {
            **self._registration.ports,
            "ip": self._registration.ip,
            "transport": self._registration.transport,
            "signature_scheme": "hmac-sha256",
            "key": b"",
        }
        self.connection_info = cast("KernelConnectionInfo", addresses)
        return self.connection_info

    async def poll(self) -> int | None:
        """Return None while the kernel runs and may be talked to, else an exit status.

        A kernel that is not verified yet counts as ended: jupyter_server connects a page to
        whatever is alive, and would connect it to the addresses of the kernel before.
        """
        status: int | None = await super().poll()
        return status if self._talkable or status is not None else _NOT_YET

    async def post_launch(self, **kwargs: Any) -> None:
        """Set the HMAC key, now that the connection file is written without it."""
        if self.parent is not None:
            self.parent.session.key = handshake.session_key(
                self._keys, self._registration.kernel_key.encode(), self._challenge.nonce
            )
        self._talkable = True
        await super().post_launch(**kwargs)

    async def cleanup(self, restart: bool = False) -> None:
        """Close the broker channel of the kernel that ended; called after shutdowns and before restarts."""
        self._release_channel()
        await super().cleanup(restart=restart)

    # -- verification ------------------------------------------------------------------------

    def _load_policy(self) -> Policy:
        if not self.policy:
            raise InputError(
                "The kernelspec names no attestation policy: run `sealbook install` to write one and name it."
            )
        return Policy.load(Path(self.policy).expanduser())

    def _register(self, registrar: zmq.Socket[bytes], stop: threading.Event) -> None:
        """Serve the registration until a kernel's evidence is verified; runs in a thread."""
        deadline = time.monotonic() + self.registration_timeout
        while not stop.is_set() and time.monotonic() < deadline:
            if registrar.poll(100):
                peer, *frames = registrar.recv_multipart()
                try:
                    answer = self._answer(b"".join(frames))
                except InputError as error:
                    # Whoever else found the port; a kernel that speaks nonsense runs into the time limit.
                    self.log.warning("Ignored a message to the registration address: %s", error)
                    continue
                except SealbookError as error:
                    registrar.send_multipart([peer, handshake.verdict(False, str(error))])
                    raise
                registrar.send_multipart([peer, answer])
                if self._endpoint is not None:
                    return
            elif self.process is None or self.process.poll() is not None:
                raise RefusedError(
                    "The kernel ended before it attested itself: its own message is in the log above, "
                    "and `sealbook doctor` says what is missing."
                )
        raise RefusedError(
            f"The kernel did not attest itself within {self.registration_timeout:.0f} seconds: "
            "see the log above, or raise AttestedProvisioner.registration_timeout."
        )

    def _answer(self, frame: bytes) -> bytes:
        """Return the answer to one message; the session stands when it was evidence that passed."""
        if frame == handshake.hello():
            return self._challenge.encode()
        registration = handshake.Registration.decode(frame)
        self._verify(registration)
        return handshake.verdict(True, "verified")

    def _verify(self, registration: handshake.Registration) -> None:
        where = {
            "ip": registration.ip,
            "transport": registration.transport,
            "ports": dict(registration.ports),
        }
        kernel_key = registration.kernel_key.encode()
        session = self._broker.attest(
            registration.quote,
            role=ROLE_KERNEL,
            audience=self._challenge.audience,
            nonce=self._challenge.nonce,
            claims=handshake.channel_claims(self._challenge, kernel_key, where),
            policy=self._policy,
        )
        self.attestation = session.result
        self._registration = registration
        self._endpoint = BrokerEndpoint(self._broker, session)
        self._broker_server.admit(kernel_key, self._endpoint.handle)
        self.log.log(logging.INFO, "%s", self.attestation.summary())

    # -- what must not outlive a kernel ------------------------------------------------------

    def _close_registrar(self) -> None:
        if self._context is not None:
            self._context.destroy(linger=1000)
            self._context = None

    def _release_channel(self) -> None:
        self._talkable = False
        self._close_registrar()
        if self._channel_open:
            self._broker_server.close()
            self._channel_open = False
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None
