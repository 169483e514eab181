"""The addresses below ``/sealbook/api/``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from jupyter_server.services.sessions.sessionmanager import ModelName
from jupyter_server.utils import url_path_join

from sealbook.attestation import AttestationRefusedError, policy_text
from sealbook.attestation.chain_of_trust import chain_of_trust
from sealbook.attestation.evidence_file import MEDIA_TYPE, EvidenceFile
from sealbook.broker import BrokerEndpoint
from sealbook.broker.wire import listed_keys
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.jupyter.embedded import embedded_broker
from sealbook.jupyter.provisioner import AttestedProvisioner
from sealbook.jupyter.refused_starts import SESSION_VARIABLE, RefusedStart, refused_starts
from sealbook.jupyter.server import panel
from sealbook.jupyter.server.appraisals import Appraisal, Appraisals
from sealbook.jupyter.server.base import LookingHandler, NotFoundError, SealbookHandler, guarded
from sealbook.jupyter.server.sealed_files import SealedFiles
from sealbook.jupyter.server.where import where
from sealbook.jupyter.trust import NO_KERNEL, ORDINARY_KERNEL, Trust, refused, trust_in

_KERNEL: Final = r"(?P<kernel_id>[\w-]{1,64})"

#: For so long the drawn chain is what was found last; then the evidence is judged again, while one looks.
_APPRAISED_FOR: Final = timedelta(minutes=1)

#: What there is to say of a kernel about which nothing is known.
_NOTHING: Final[dict[str, Any]] = {
    "identity": None,
    "platform": None,
    "chain": [],
    "chain_note": "",
    "channel": None,
    "keys": [],
    "artifacts": [],
    "audit": [],
    "last": 0,
    "cluster": None,
}

_appraisals = Appraisals()


def handlers(base_url: str) -> list[tuple[str, type[SealbookHandler]]]:
    """Return the routes, for a server at `base_url`."""
    routes = {
        "trust": TrustHandler,
        "refused": RefusedStartHandler,
        f"kernels/{_KERNEL}/attestation": AttestationHandler,
        f"kernels/{_KERNEL}/attest": AttestHandler,
        f"kernels/{_KERNEL}/evidence": EvidenceHandler,
        f"kernels/{_KERNEL}/policy": PolicyHandler,
        "keys": KeysHandler,
        "sealed": InspectHandler,
        "sealed/seal": SealHandler,
        "sealed/unseal": UnsealHandler,
        "sealed/rekey": RekeyHandler,
    }
    return [(url_path_join(base_url, "sealbook/api", path), handler) for path, handler in routes.items()]


class _KernelMixin:
    """Finds the provisioner of a kernel of this server."""

    auth_resource = "kernels"

    def provisioner(self: Any, kernel_id: str) -> Any:
        """Return it; raises NotFoundError where this server has no such kernel."""
        if kernel_id not in self.kernel_manager:
            raise NotFoundError("This server has no such kernel.")
        return self.kernel_manager.get_kernel(kernel_id).provisioner

    def running(self: Any, kernel_id: str) -> tuple[AttestedProvisioner, BrokerEndpoint]:
        """Return the provisioner of a kernel that was verified when it started, and the broker's end.

        Raises
        ------
        RefusedError
            There is none: it is another kind of kernel, or was refused, or starts.
        """
        provisioner = self.provisioner(kernel_id)
        if not isinstance(provisioner, AttestedProvisioner) or (endpoint := provisioner.endpoint) is None:
            raise RefusedError(self.trust(provisioner).summary)
        return provisioner, endpoint

    def verified(self, kernel_id: str) -> BrokerEndpoint:
        """Return the broker's end of the channel to a kernel whose last evidence was accepted.

        Raises
        ------
        RefusedError
            There is none, as in :meth:`running`, or it was refused when it attested anew.
        """
        _, endpoint = self.running(kernel_id)
        if endpoint.refusal is not None:
            # The evidence before is that of a kernel which cannot show any now.
            raise endpoint.refusal
        return endpoint

    def refused_start(self: Any) -> RefusedStart | None:
        """Return the last start for the notebook that the request names, if it was refused."""
        path = self.get_argument("path", "")
        if not path:
            return None
        # How jupyter_server names the session of a notebook to its kernel.
        environment = self.session_manager.get_kernel_env(path, ModelName(path.rpartition("/")[2]))
        return refused_starts.last(str(environment.get(SESSION_VARIABLE, "")))

    def since(self: Any) -> int:
        """Return the number of the last entry of the audit log that the page has."""
        text = self.get_argument("since", "0")
        if not (text.isascii() and text.isdecimal()) or len(text) > 16:
            raise InputError("`since` is the number of an entry of the audit log.")
        return int(text)

    def trust(self, provisioner: Any) -> Trust:
        """Return what is known now; also what was found when the evidence was judged again."""
        if not isinstance(provisioner, AttestedProvisioner):
            return ORDINARY_KERNEL
        found = trust_in(provisioner, datetime.now(UTC))
        endpoint = provisioner.endpoint
        again = _appraisals.last(endpoint.session) if endpoint is not None else None
        if again is None or again.result.accepted:
            return found
        return refused(_refusal(again))


class TrustHandler(_KernelMixin, LookingHandler):
    """One word about a kernel, for the indicator."""

    @guarded
    async def get(self) -> None:
        """Say what is known of a kernel, or of the last start for a notebook that has none."""
        kernel_id = self.get_argument("kernel", "")
        if kernel_id and kernel_id in self.kernel_manager:
            await self.finish(self.trust(self.provisioner(kernel_id)).to_dict(kernel_id))
            return
        start = self.refused_start()
        trust = NO_KERNEL if start is None else refused(start.error)
        await self.finish(trust.to_dict())


class RefusedStartHandler(_KernelMixin, LookingHandler):
    """Everything about the last start for a notebook, if it was refused and there is no kernel."""

    @guarded
    async def get(self) -> None:
        """Say everything; of the audit log what came after `since`."""
        since = self.since()
        start = self.refused_start()
        if start is None:
            raise NotFoundError("No start of a kernel for this notebook was refused.")
        document = _NOTHING | _refused_facts(start.error) | _recorded(start.entries, since)
        await self.finish(document | {"trust": refused(start.error).to_dict()})


class AttestationHandler(_KernelMixin, LookingHandler):
    """Everything about a kernel, for the panel."""

    @guarded
    async def get(self, kernel_id: str) -> None:
        """Say everything; of the audit log what came after `since`."""
        since = self.since()
        provisioner = self.provisioner(kernel_id)
        document = _NOTHING | {"last": since}
        if isinstance(provisioner, AttestedProvisioner):
            endpoint, start, entries = provisioner.endpoint, provisioner.refused, _entries(provisioner)
            if endpoint is not None and endpoint.refusal is not None:
                # Nothing of what was found before is shown beside a refusal as if it still held.
                document |= _refused_facts(endpoint.refusal) | _recorded(entries, since)
            elif endpoint is not None:
                document |= await self._describe(endpoint) | _recorded(entries, since)
                document["cluster"] = await asyncio.to_thread(where, provisioner, entries)
            elif start is not None:
                document |= _refused_facts(start.error) | _recorded(start.entries, since)
            else:
                document["chain_note"] = self.trust(provisioner).summary
        await self.finish(document | {"trust": self.trust(provisioner).to_dict(kernel_id)})

    async def _describe(self, endpoint: BrokerEndpoint) -> dict[str, Any]:
        """Return what is to be said of the evidence."""
        session = endpoint.session
        appraisal, note = _appraisals.last(session), ""
        if appraisal is None or datetime.now(UTC) - appraisal.result.verified_at > _APPRAISED_FOR:
            try:
                appraisal = await _appraise(endpoint)
            except SealbookError as error:
                appraisal, note = None, str(error)
        return {
            "identity": panel.identity(session.result),
            "platform": panel.platform(session.result),
            "chain": [] if appraisal is None else panel.chain(appraisal.chain),
            "chain_note": note,
            "channel": panel.channel(session),
        }


class AttestHandler(_KernelMixin, SealbookHandler):
    """New evidence, now."""

    @guarded
    async def post(self, kernel_id: str) -> None:
        """Have the kernel attest itself anew, and say what is known then."""
        provisioner, _ = self.running(kernel_id)
        try:
            await provisioner.attest_again()
        except SealbookError as error:
            self.say(error, 409)
            return
        await self.finish(self.trust(provisioner).to_dict(kernel_id))


class EvidenceHandler(_KernelMixin, SealbookHandler):
    """A file with which anybody can judge the evidence: `sealbook verify`."""

    @guarded
    async def get(self, kernel_id: str) -> None:
        """Give evidence, collateral, policy and the verdict of this moment in one file."""
        endpoint = self.verified(kernel_id)
        session, found = endpoint.session, await _appraise(endpoint)
        exported = EvidenceFile(
            evidence=session.evidence,
            collateral=found.collateral,
            policy=session.policy,
            report_data=session.report_data,
            role=session.role,
            audience=session.audience,
            nonce=session.nonce,
            claims=session.claims,
            result=found.result,
        )
        name = f"evidence-{found.result.evidence_id[:16]}.json"
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        await self.finish(exported.to_json(), set_content_type=MEDIA_TYPE)


class PolicyHandler(_KernelMixin, SealbookHandler):
    """A policy that admits what runs, and nothing else."""

    @guarded
    async def get(self, kernel_id: str) -> None:
        """Give its text."""
        endpoint = self.verified(kernel_id)
        session, result = endpoint.session, endpoint.session.result
        if not result.attested:
            raise RefusedError("This kernel has no evidence, so there is nothing that a policy could name.")
        root = session.policy.trust_root
        name = f"{session.policy.id[:40]}-{result.mrenclave[:8]}"
        text = policy_text(
            mrenclave=bytes.fromhex(result.mrenclave),
            root=x509.load_der_x509_certificate(root.der) if result.simulated else None,
            now=datetime.now(UTC),
            id=name,
            identity=result.identity,
            mrsigner=bytes.fromhex(result.mrsigner),
            isv_prod_id=result.isv_prod_id,
            min_isv_svn=result.isv_svn,
            allowed_statuses=(result.tcb_status,),
            accepted_advisories=result.advisories,
        )
        await self.finish({"policy": text, "name": f"{name}.toml"})


class _FilesMixin:
    auth_resource = "contents"

    @property
    def files(self: Any) -> SealedFiles:
        return SealedFiles(self.contents_manager, embedded_broker())


class KeysHandler(_FilesMixin, LookingHandler):
    """The names of the user's keys."""

    @guarded
    async def get(self) -> None:
        """List them, and what guards them; there is no request that shows a key."""
        records = await asyncio.to_thread(lambda: embedded_broker().keyring.list())
        await self.finish(listed_keys(records, most=None))


class InspectHandler(_FilesMixin, LookingHandler):
    """What a sealed file says of itself."""

    @guarded
    async def get(self) -> None:
        """Say it."""
        path = self.get_argument("path", "")
        await self.finish(await asyncio.to_thread(self.files.inspect, path))


class SealHandler(_FilesMixin, SealbookHandler):
    """Seals a file."""

    @guarded
    async def post(self) -> None:
        """Seal it."""
        given = self.fields(path=str, target=str, key=str, force=bool)
        await self.finish(await asyncio.to_thread(self.files.seal, **given))


class UnsealHandler(_FilesMixin, SealbookHandler):
    """Opens a sealed file whose key has no guard."""

    @guarded
    async def post(self) -> None:
        """Open it."""
        given = self.fields(path=str, target=str, force=bool)
        await self.finish(await asyncio.to_thread(self.files.unseal, **given))


class RekeyHandler(_FilesMixin, SealbookHandler):
    """Moves a sealed file to another key."""

    @guarded
    async def post(self) -> None:
        """Move it."""
        given = self.fields(path=str, to=str)
        await self.finish(await asyncio.to_thread(self.files.rekey, **given))


def _entries(provisioner: AttestedProvisioner) -> tuple[panel.Entry, ...]:
    return () if provisioner.trail is None else provisioner.trail.since()


def _refused_facts(error: SealbookError) -> dict[str, Any]:
    """Return what is to be said of evidence that was refused, if it was evidence that was."""
    if not isinstance(error, AttestationRefusedError) or error.judged is None:
        return {"chain_note": error.one_line}
    evidence, collateral, policy = error.judged
    memory = embedded_broker().remembers_collateral
    chain = chain_of_trust(evidence, collateral, policy, error.result, memory=memory)
    return {
        "identity": panel.identity(error.result),
        "platform": panel.platform(error.result),
        "chain": panel.chain(chain),
    }


def _recorded(entries: Sequence[panel.Entry], since: int) -> dict[str, Any]:
    """Return what was decided about the kernel, which holds whatever became of it."""
    return {
        "keys": panel.keys(entries),
        "artifacts": panel.artifacts(entries),
        "audit": panel.audit(entry for entry in entries if entry["seq"] > since),
        "last": entries[-1]["seq"] if entries else since,
    }


async def _appraise(endpoint: BrokerEndpoint) -> Appraisal:
    return await asyncio.to_thread(_appraisals.make, embedded_broker(), endpoint.session)


def _refusal(appraisal: Appraisal) -> SealbookError:
    try:
        appraisal.result.require()
    except AttestationRefusedError as error:
        return error
    raise AssertionError("the result was accepted")
