"""What words in a result mean, one sentence each, for a person who meets them for the first time.

TCB statuses: Intel, "Provisioning Certification Service API v4", Get TCB Info, field ``tcbStatus``.
Advisories: their titles and summaries in Intel's Security Center. Of an advisory that is not listed here
nothing is said but where Intel describes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

#: Where Intel lists all of its advisories.
ADVISORIES: Final = "https://www.intel.com/content/www/us/en/security-center/default.html"

#: Longest value of a claim that is shown.
_MAX_VALUE: Final = 400

_STATUSES: Final[Mapping[str, str]] = {
    "UpToDate": "The platform has every update that its maker asks for.",
    "SWHardeningNeeded": (
        "The platform has its updates, but some of its weaknesses remain unless the software in the enclave "
        "is itself built to withstand them."
    ),
    "ConfigurationNeeded": (
        "The platform has its updates, but it may need other settings (of the BIOS, for example) to be safe."
    ),
    "ConfigurationAndSWHardeningNeeded": (
        "The platform has its updates, but it may need other settings, and some of its weaknesses remain "
        "unless the software in the enclave is itself built to withstand them."
    ),
    "OutOfDate": "The platform lacks updates against weaknesses that are publicly known.",
    "OutOfDateConfigurationNeeded": (
        "The platform lacks updates against weaknesses that are publicly known, and may need other settings."
    ),
    "Revoked": "The maker of the platform withdrew its trust: it must not be relied on.",
}

_SUMMARIES: Final[Mapping[str, str]] = {
    "INTEL-SA-00115": "Speculative execution (Spectre variants 3a and 4) can disclose memory through a "
    "side channel.",
    "INTEL-SA-00219": "With integrated graphics in use, parts of an enclave's memory can be read by the "
    "host.",
    "INTEL-SA-00233": "Microarchitectural data sampling (MDS): a program on the same core can read "
    "data in flight.",
    "INTEL-SA-00289": "Voltage settings modification (Plundervolt): whoever controls the host can lower the "
    "voltage and make the enclave compute wrongly, unless the settings are locked.",
    "INTEL-SA-00320": "Special register buffer data sampling (CrossTalk): random numbers and the like can be "
    "read from another core.",
    "INTEL-SA-00329": "Cache line evictions (CacheOut, L1D eviction sampling): data in the cache can be read "
    "by a program on the same core.",
    "INTEL-SA-00334": "Load value injection (LVI): the host can have an enclave compute for a moment with "
    "injected values, and learn from it what it holds; the software must be built to withstand it.",
    "INTEL-SA-00381": "Vector register sampling: data of vector registers can be read by a program on the "
    "same core.",
    "INTEL-SA-00389": "RAPL interface (Platypus): the processor's power readings let the host infer what an "
    "enclave computes.",
    "INTEL-SA-00615": "Processor MMIO stale data: the host can read leftovers of an enclave's memory "
    "accesses, unless microcode, settings and the enclave's software all guard against it.",
    "INTEL-SA-00657": "Stale data read from the legacy xAPIC (AEPIC leak): the host can read parts of an "
    "enclave's memory through the interrupt controller.",
    "INTEL-SA-00828": "Gather data sampling (Downfall): data of vector registers can be read by a program on "
    "the same core.",
}

_CLAIMS: Final[Mapping[str, str]] = {
    "protocol": "the version of the handshake in which the kernel and this side met",
    "kernel-curve-key": "the kernel's public key: who talks to the kernel encrypts to it, so that nobody "
    "between can read or answer",
    "client-curve-key": "the public key of the one client that the kernel admits: the Jupyter server that "
    "asked for this evidence",
    "broker": "where the kernel reaches the key broker of this very server",
    "data-key": "the key of the kernel's encrypted mounts, by name",
    "channels": "the addresses and ports on which the kernel answers",
    "tls_key": "the public key of the node's TLS certificate",
    "hpke_key": "the public key to which the broker encrypts what it releases",
    "broker_key": "the public key of the broker that the node talks to",
    "name": "the name under which the node asks for a certificate",
}


def meaning_of_status(tcb_status: str) -> str:
    """Return what a TCB status says of a platform.

    Parameters
    ----------
    tcb_status
        As in TCB info; empty where none was determined.
    """
    if not tcb_status:
        return "The state of the platform was not determined."
    return _STATUSES.get(
        tcb_status,
        "This version does not know the word; Intel's Provisioning Certification Service API does.",
    )


def meaning_of_advisory(name: str) -> str:
    """Return what a well-known security advisory is about, or where Intel describes it."""
    if known := _SUMMARIES.get(name):
        return known
    if re.fullmatch(r"INTEL-SA-[0-9]{5}", name):
        page = f"intel-sa-{name[-5:]}.html"
        return f"Intel's Security Center describes it ({page}, at {ADVISORIES})."
    return f"Not a name of Intel's advisories as they are known; {ADVISORIES} lists them."


def meaning_of_claim(name: str) -> str:
    """Return what a claim that evidence binds stands for."""
    return _CLAIMS.get(name, "a value that the evidence binds")


def described_claims(claims: Mapping[str, bytes]) -> list[dict[str, str]]:
    """Return name, value and meaning of each claim, sorted by name; values that are no text in hex."""
    return [
        {"name": name, "value": _shown(value), "meaning": meaning_of_claim(name)}
        for name, value in sorted(claims.items())
    ]


def _shown(value: bytes) -> str:
    try:
        text = bytes(value).decode()
    except UnicodeDecodeError:
        text = ""
    shown = text if text and text.isprintable() else bytes(value).hex()
    return shown if len(shown) <= _MAX_VALUE else shown[:_MAX_VALUE] + "..."
