"""Starts a kernel, verifies its evidence, and only then lets anyone connect.

Runs on the user's side: in the Jupyter server, in nbclient, in papermill. That side is
trusted; put it where the user is, not on the machine that hosts the enclave.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import textwrap
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.multikernelmanager import MultiKernelManager
from jupyter_client.provisioning import KernelProvisionerBase, LocalProvisioner
from traitlets import Float, Unicode

from sealbook.attestation import ROLE_KERNEL, AttestationResult, Policy
from sealbook.broker import BrokerEndpoint
from sealbook.broker.ownership import signing_key_for
from sealbook.broker.passphrase import DESCRIPTOR_VARIABLE
from sealbook.broker.session import channel_of
from sealbook.broker.trail import Trail
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.image import Image
from sealbook.jupyter import handshake
from sealbook.jupyter.brokerchannel import BrokerServer
from sealbook.jupyter.client import connect_manager
from sealbook.jupyter.curve import CurveKeys
from sealbook.jupyter.embedded import embedded_broker
from sealbook.jupyter.refused_starts import SESSION_VARIABLE, RefusedStart, refused_starts
from sealbook.jupyter.registration import RegistrationDesk

#: Names the Spark cluster that notebooks start on. Read here, on the user's side: a kernel's environment
#: is the host's.
CLUSTER_VARIABLE = "SEALBOOK_CLUSTER"

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

    attest_timeout = Float(
        30.0, help="Seconds a running kernel has to attest itself anew when it is asked to."
    ).tag(config=True)

    image = Unicode(
        help="Path of the image of a kernel in Gramine; looked at before each start, so that what keeps it "
        "from starting is said to the person who starts it and not only in the kernel's log."
    ).tag(config=True)

    tee = Unicode(help="What runs the image: gramine-sgx or gramine-direct.").tag(config=True)

    cluster = Unicode(
        help="Name of the Spark cluster that notebooks start on; the variable SEALBOOK_CLUSTER comes first."
    ).tag(config=True)

    data_key = Unicode(help="Name of the key that opens the encrypted mounts of a kernel in Gramine.").tag(
        config=True
    )

    _owner_key: Ed25519PrivateKey | None = None
    _keys: CurveKeys
    _registration: handshake.Registration
    _session_key: bytes
    _broker_server: BrokerServer
    _desk: RegistrationDesk
    _attesting: asyncio.Lock  # one after the other: each waits for its own evidence
    _open = False
    _talkable = False
    _endpoint: BrokerEndpoint | None = None
    _trail: Trail | None = None
    _session_name = ""
    _refused: RefusedStart | None = None
    _refused_entries: Sequence[Mapping[str, Any]] = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._attesting = asyncio.Lock()

    @property
    def attestation(self) -> AttestationResult | None:
        """What the verifier found about the kernel that runs now; None when none does.

        Read by papermill's engine and by server extensions.
        """
        return self._endpoint.session.result if self._running and self._endpoint is not None else None

    @property
    def endpoint(self) -> BrokerEndpoint | None:
        """The broker's end of the channel to the verified kernel that runs now; None when none does."""
        return self._endpoint if self._running and self._talkable else None

    @property
    def trail(self) -> Trail | None:
        """What the broker decided about the kernel that runs now."""
        return self._trail if self._running else None

    @property
    def refused(self) -> RefusedStart | None:
        """Why the last start was refused; None if it was not."""
        return self._refused

    @property
    def _running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def attest_again(self) -> AttestationResult:
        """Have the kernel attest itself anew, now; also while a cell runs.

        The kernel is only asked to: what counts is the evidence that the broker then gets, for a challenge
        of the broker's own.

        Raises
        ------
        RefusedError
            The evidence was refused, none came within :attr:`attest_timeout`, or there is no verified kernel.
        """
        async with self._attesting:
            endpoint, manager = self.endpoint, self.parent
            if endpoint is None or manager is None:
                raise RefusedError("No verified kernel runs: start it again.")
            done = asyncio.Event()
            loop = asyncio.get_running_loop()

            def attested() -> None:
                with contextlib.suppress(RuntimeError):  # nobody waits any more, and the loop is closed
                    loop.call_soon_threadsafe(done.set)

            # Evidence from before this question would show nothing about now.
            endpoint.forget_challenge()
            endpoint.on_attest = attested
            control = manager.connect_control()
            try:
                manager.session.send(control, handshake.ATTEST_REQUEST, {})
                await self._wait_for(done, endpoint)
            finally:
                control.close(linger=0)
                endpoint.on_attest = _nothing
            if endpoint.refusal is not None:
                raise endpoint.refusal
            return endpoint.session.result

    async def _wait_for(self, done: asyncio.Event, endpoint: BrokerEndpoint) -> None:
        end = asyncio.get_running_loop().time() + self.attest_timeout
        while self.endpoint is endpoint:
            if asyncio.get_running_loop().time() >= end:
                raise RefusedError(
                    f"The kernel did not attest itself within {self.attest_timeout:.0f} seconds: "
                    "if it stays so, restart it, and see the log of the Jupyter server."
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), min(0.25, self.attest_timeout))
                if self.endpoint is endpoint:
                    return
        raise RefusedError("The kernel ended or was restarted meanwhile: ask again once it runs.")

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Prepare a start: fresh client keys, a fresh nonce, addresses to register and ask at.

        Called by KernelManager before every start and restart.

        Raises
        ------
        SealbookError
            When the policy or the image cannot be used; nothing was started.
        """
        self._release_channel()
        self._refused, self._refused_entries = None, ()
        self._session_name = (kwargs.get("env") or {}).get(SESSION_VARIABLE, "")
        # The stock keywords that choose keys and files: here the kernel makes its own, and no file.
        kwargs.pop("transport_encryption", None)
        if kwargs.pop("extra_arguments", None):
            raise InputError(
                "A sealbook kernel takes no extra arguments: they would be code or settings of the host "
                "that its measurement does not cover; set what you need in a cell."
            )
        try:
            self._policy = self._load_policy()
            self._broker = embedded_broker()
            self._owner_key = await asyncio.to_thread(self._prepare_image) if self.image else None
        except SealbookError as error:
            self._refuse(error)
            raise
        self._keys = CurveKeys.generate()
        self._broker_server = BrokerServer(self._keys)
        self._desk = RegistrationDesk(self._make_challenge, self._verify, log=self.log)
        self._open = True
        if self.parent is not None:
            # A restart begins without the last start's key: it must not get into the connection file.
            self.parent.session.key = b""
        command = [*self.kernel_spec.argv, f"--registration={self._desk.address}"]
        # Past LocalProvisioner.pre_launch, which would choose ports and write a key to a file.
        prepared = await KernelProvisionerBase.pre_launch(self, cmd=command, **kwargs)
        # Not for the kernel: where this process was given the keyring's passphrase.
        prepared.get("env", {}).pop(DESCRIPTOR_VARIABLE, None)
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
            await asyncio.to_thread(
                self._desk.serve,
                seconds=self.registration_timeout,
                alive=lambda: self.process is not None and self.process.poll() is None,
                stopped=stop.is_set,
            )
        except BaseException as error:
            stop.set()
            await self.kill()
            await self.wait()
            self._release_channel()
            self._refuse(error)
            raise
        self._desk.close()
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
            self.parent.session.key = self._session_key
        self._talkable = True
        refused_starts.forget(self._session_name)
        await super().post_launch(**kwargs)

    async def cleanup(self, restart: bool = False) -> None:
        """Close the broker channel of the kernel that ended; called after shutdowns and before restarts."""
        self._release_channel()
        await super().cleanup(restart=restart)

    def _refuse(self, error: BaseException) -> None:
        """Remember why this start was refused, and fold the sentence.

        Into lines for JupyterLab, whose dialog shows one line and cuts the rest off.
        """
        if not isinstance(error, SealbookError):
            return
        self._refused = refused_starts.note(self._session_name, error, self._refused_entries)
        kernels = getattr(self.parent, "parent", None)
        if isinstance(kernels, MultiKernelManager):
            error.args = (textwrap.fill(str(error), 90),)
            # It keeps the ids of starts that failed for ever, and a server that is told to end wants to shut
            # those down too, fails at that, and goes on running.
            kernels._pending_kernels.pop(self.kernel_id, None)

    # -- verification ------------------------------------------------------------------------

    def _load_policy(self) -> Policy:
        if not self.policy:
            raise InputError(
                "The kernelspec names no attestation policy: run `sealbook install` to write one and name it."
            )
        return Policy.load(Path(self.policy).expanduser())

    def _prepare_image(self) -> Ed25519PrivateKey | None:
        """Look whether the image can run; returns the key that its owner's challenges are signed with."""
        image = Image.open(Path(self.image))
        image.check_runnable(self.tee)
        owner = image.facts.owner
        return None if owner is None else signing_key_for(self._broker.keyring, owner)

    def _make_challenge(self) -> handshake.Challenge:
        challenge = handshake.Challenge(
            client_key=self._keys.public.decode(),
            nonce=self._broker.challenge(self._policy),
            audience=handshake.AUDIENCE,
            broker=self._broker_server.address,
            data_key=self.data_key,
        )
        return challenge if self._owner_key is None else challenge.signed(self._owner_key)

    def _verify(self, challenge: handshake.Challenge, registration: handshake.Registration) -> None:
        kernel_key = registration.kernel_key.encode()
        session_key = handshake.session_key(self._keys, kernel_key, challenge.nonce)
        claims = handshake.channel_claims(challenge, kernel_key, registration.where)
        trail = Trail(self._broker.audit, channel_of(ROLE_KERNEL, challenge.audience, claims))
        try:
            session = self._broker.attest(
                registration.evidence,
                role=ROLE_KERNEL,
                audience=challenge.audience,
                nonce=challenge.nonce,
                claims=claims,
                policy=self._policy,
            )
        except BaseException:
            trail.close()
            self._refused_entries = trail.since()
            raise
        self._trail = trail
        self._registration, self._session_key = registration, session_key
        self._endpoint = BrokerEndpoint(self._broker, session, clusters=self.find_cluster)
        self._broker_server.admit(kernel_key, self._endpoint.handle)
        # Seen by whoever reads the log of the Jupyter server: what is not attested is a warning there.
        level = logging.INFO if session.attested else logging.WARNING
        self.log.log(level, "%s", session.result.summary())

    def find_cluster(self, name: str) -> dict[str, Any] | None:
        """Return the user's cluster `name`, or the one that notebooks start on; None for none."""
        name = name or os.environ.get(CLUSTER_VARIABLE, "") or self.cluster
        if not name:
            return None
        # Only here: a kernel that uses no cluster should not need what a cluster needs.
        from sealbook.spark import profiles

        return {"name": name} | profiles.to_table(profiles.load(name))

    # -- what must not outlive a kernel ------------------------------------------------------

    def _release_channel(self) -> None:
        self._talkable = False
        self._session_key = b""
        if self._open:
            self._desk.close()
            self._broker_server.close()
            self._open = False
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None
        if self._trail is not None:
            self._trail.close()
            self._trail = None


def _nothing() -> None:
    """Be told, and do nothing."""
