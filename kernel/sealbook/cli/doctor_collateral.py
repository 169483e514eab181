"""What `sealbook doctor` says of genuine hardware's collateral: whence it comes, until when it holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sealbook import paths
from sealbook.attestation.pccs import CollateralCache, PccsService, configured_service
from sealbook.attestation.pccs.client import probe
from sealbook.attestation.pccs.settings import PCCS_VARIABLE, QCNL_CONF
from sealbook.attestation.pccs.transport import ServiceError
from sealbook.cli.findings import MISSING, OK, TODO, Finding, Machine
from sealbook.errors import InputError

#: Seconds that the service has to answer in.
_PATIENCE = 3.0
_SOON = timedelta(days=2)


def examine(machine: Machine, *, needed: bool, now: datetime | None = None) -> Iterator[Finding]:
    """Look at the configured service, at Intel's own configuration, and at what was fetched before.

    Parameters
    ----------
    needed
        A kernel on SGX hardware is installed here.
    """
    moment = now or datetime.now(UTC)
    yield _qcnl(machine, MISSING if not needed else TODO)
    kept = sorted(CollateralCache(paths.collateral_cache_dir()).entries(), key=lambda entry: entry.expires)
    usable = any(entry.expires > moment for entry in kept)
    try:
        service = configured_service(root=machine.root, environment=machine.environment)
    except InputError as error:
        yield Finding("collateral service", TODO, str(error), _NAME_IT)
    else:
        # With valid collateral kept, kernels start without the service.
        yield _service(
            service, ask=needed or not service.built_in, lacking=TODO if needed and not usable else MISSING
        )
    for entry in kept:
        subject = f"collateral {entry.fmspc}"
        detail = f"fetched {entry.fetched:%Y-%m-%d %H:%M} UTC, valid until {entry.expires:%Y-%m-%d %H:%M} UTC"
        if entry.expires <= moment:
            yield Finding(
                subject, MISSING, detail, "it is fetched anew when a kernel starts and the service answers"
            )
        elif entry.expires - moment < _SOON:
            yield Finding(subject, MISSING, detail, "start a kernel while the service can be reached")
        else:
            yield Finding(subject, OK, detail)


_NAME_IT = f"`export {PCCS_VARIABLE}=https://...`, or url under [pccs] in config.toml"


def _qcnl(machine: Machine, lacking: str) -> Finding:
    path = machine.root / QCNL_CONF
    if path.is_file():
        return Finding("QCNL", OK, str(path))
    return Finding(
        "QCNL",
        lacking,
        f"no {path}, so aesmd does not know where platform certificates come from",
        "install libsgx-dcap-default-qpl from Intel's packages and set pccs_url in that file",
    )


def _service(service: PccsService, *, ask: bool, lacking: str) -> Finding:
    detail = f"{service.url} ({service.origin})"
    if not ask:
        return Finding("collateral service", OK, f"{detail}, not asked: no kernel here needs it")
    try:
        probe(service, seconds=_PATIENCE)
    except ServiceError as error:
        return Finding(
            "collateral service",
            lacking,
            f"{detail} {error.cause}",
            error.remedy or f"start it, or {_NAME_IT}",
        )
    except InputError as error:
        return Finding("collateral service", TODO, str(error), "set ca under [pccs] in config.toml")
    return Finding("collateral service", OK, f"{detail}, answers")
