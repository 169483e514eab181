"""A double of the verifier's verdict, as an extension of jupyter_server: for states that no machine here can reach.

It puts another verdict about a running kernel into the provisioner, as if the verifier had found that. The pages,
the endpoints and everything between them stay the real ones.

POST double/verdict {"kernel": ID, "verdict": ...}:

``intel``
    The verdict on a recorded quote of real SGX hardware, made by the real verifier at a time when its collateral
    was valid. The kernel did not make that quote.
``short``
    The kernel's own verdict, good for three more seconds.
``ended``
    The kernel's own verdict, no longer good.
"""

# ruff: noqa: E501 - scripts of pages

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

from sealbook.attestation import Collateral, Policy, Verifier, policy_text
from sealbook.attestation.chain_of_trust import chain_of_trust
from sealbook.jupyter.server import handlers
from sealbook.jupyter.server.appraisals import Appraisal

QUOTE = Path(__file__).resolve().parents[1] / "data/sgx-quotes/phala_sgx"
THEN = datetime.fromtimestamp(1750330571, UTC)
MRENCLAVE = bytes.fromhex("33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb")


def of_intel() -> tuple[bytes, Appraisal]:
    """Return the recorded quote and what the real verifier finds about it."""
    quote = (QUOTE / "quote.bin").read_bytes()
    collateral = Collateral.from_json((QUOTE / "collateral.json").read_bytes())
    policy = Policy.parse(
        policy_text(
            mrenclave=MRENCLAVE,
            root=None,
            now=THEN,
            allowed_statuses=("UpToDate", "ConfigurationAndSWHardeningNeeded"),
            accepted_advisories=("INTEL-SA-00289", "INTEL-SA-00615"),
        )
    )
    bound = b"Hello, world!".ljust(64, b"\0")
    result = Verifier(policy).verify(quote, collateral, now=THEN, expected_report_data=bound)
    result.require()
    chain = chain_of_trust(quote, collateral, policy, result)
    # The collateral of the recording has expired; what is shown is the state of a day on which it had not. The
    # endpoints judge evidence again whose last verdict is a minute old: this one is of now.
    shown = replace(result, collateral_expires_at=None, verified_at=datetime.now(UTC))
    return quote, Appraisal(shown, collateral, chain)


class VerdictHandler(APIHandler):
    @web.authenticated
    async def post(self) -> None:
        asked: dict[str, Any] = self.get_json_body() or {}
        endpoint = self.kernel_manager.get_kernel(asked["kernel"]).provisioner.endpoint
        session = endpoint.session
        if asked["verdict"] == "intel":
            quote, appraisal = of_intel()
            session = replace(session, result=appraisal.result, evidence=quote)
            handlers._appraisals._last[session] = appraisal
        else:
            left = timedelta(seconds=3 if asked["verdict"] == "short" else -1)
            session = replace(session, expires_at=datetime.now(UTC) + left)
        endpoint._session = session
        await self.finish({})


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "double_of_a_verdict"}]


def _load_jupyter_server_extension(app: Any) -> None:
    path = url_path_join(app.web_app.settings["base_url"], "double/verdict")
    app.web_app.add_handlers(".*$", [(path, VerdictHandler)])
