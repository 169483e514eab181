"""Which service is asked for collateral, and where that was said.

The first of these that names one: the environment variable ``SEALBOOK_PCCS``; ``config.toml`` in the user's
sealbook directory; ``/etc/sgx_default_qcnl.conf``, where Intel's quote provider looks; Intel's own service.

An address is no secret and may stand in the environment. A certificate authority stands in
``config.toml`` only, and counts whoever named the address::

    [pccs]
    url = "https://pccs.example.org:8081/sgx/certification/v4/"
    ca = "/etc/ssl/pccs-ca.pem"

Verification of the service's certificate cannot be switched off; ``use_secure_cert = false`` of Intel's file
has no effect here.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sealbook import paths
from sealbook.encoding import parse_json
from sealbook.errors import InputError

#: Names the service's address.
PCCS_VARIABLE = "SEALBOOK_PCCS"
#: Intel's Provisioning Certification Service, public and without registration for what is asked here.
INTEL_PCS = "https://api.trustedservices.intel.com/sgx/certification/v4/"
#: The configuration of Intel's quote provider (QCNL), below the root directory.
QCNL_CONF = "etc/sgx_default_qcnl.conf"

_API = "sgx/certification/v4/"
_MAX_BYTES = 64 * 1024
_MAX_ADDRESS = 1024
#: A string, kept, or a comment: QCNL's JSON has both kinds.
_STRING_OR_COMMENT = re.compile(r'("[^"\\\n]*(?:\\.[^"\\\n]*)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)


@dataclass(frozen=True)
class PccsService:
    """A service that speaks Intel's API, version 4.

    Attributes
    ----------
    url
        Normal form: ends in ``/sgx/certification/v4/``.
    ca
        Certificates in PEM that the service's own must lead to; None for the system's.
    origin
        Where the address was found, for a person.
    """

    url: str
    ca: Path | None = None
    origin: str = "given"

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _normal(self.url, self.origin))

    @property
    def host(self) -> str:
        """The name or number it is reached by."""
        return urlsplit(self.url).hostname or ""

    @property
    def local(self) -> bool:
        """Whether it is on this very machine, so that nobody is between."""
        return is_loopback(self.host)

    @property
    def built_in(self) -> bool:
        """Whether nobody named it."""
        return self.origin == "built in"


def configured_service(
    *,
    root: Path = Path("/"),
    environment: Mapping[str, str] = os.environ,
    config: Path | None = None,
) -> PccsService:
    """Return the service that this user or this machine is set up to ask.

    Parameters
    ----------
    root
        Where `etc` lies; another one than ``/`` is for tests.
    config
        Default: the user's ``config.toml``.

    Raises
    ------
    InputError
        What is configured cannot be used. It is not passed over for the next place: somebody who names a
        service does not want another one.
    """
    path = paths.config_file() if config is None else config
    url, ca = _of_config(path)
    named = environment.get(PCCS_VARIABLE, "").strip()
    if named:
        return PccsService(named, ca, f"the environment variable {PCCS_VARIABLE}")
    if url is not None:
        return PccsService(url, ca, str(path))
    qcnl = root / QCNL_CONF
    url = _of_qcnl(qcnl)
    if url is not None:
        return PccsService(url, ca, str(qcnl))
    return PccsService(INTEL_PCS, ca, "built in")


def how_to_name(config: Path | None = None) -> str:
    """Return what to do to have another service asked, as the end of a sentence."""
    path = paths.config_file() if config is None else config
    return f"name a service in {PCCS_VARIABLE}, or as `url` under [pccs] in {path}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: ``localhost`` (RFC 6761) or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _normal(url: str, origin: str) -> str:
    where = f"The address of the collateral service ({origin})"
    if not isinstance(url, str) or len(url) > _MAX_ADDRESS or not url.isascii() or not url.isprintable():
        raise InputError(f"{where} is not an address.")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        parts.port  # noqa: B018 - raises where the port is no port
    except ValueError:
        raise InputError(f"{where} cannot be read; write it like {INTEL_PCS}.") from None
    if parts.scheme not in ("https", "http") or not host or " " in url:
        raise InputError(f"{where} is no https address; write it like {INTEL_PCS}.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        # Not shown: a password may be in it.
        raise InputError(f"{where} has a user, a query or a fragment; collateral is public and needs none.")
    if parts.scheme == "http" and not is_loopback(host):
        raise InputError(
            f"{where} is plain http to {host}, and everybody between could withhold what was revoked; "
            "use https."
        )
    path = parts.path.strip("/")
    version = re.search(r"(?:^|/)sgx/certification/(v[0-9]+)$", path)
    if version and version[1] != "v4":
        raise InputError(
            f"{where} is of version {version[1][1:]} of the API, which knows no current TCB levels; "
            "name the one that ends in /v4/."
        )
    if not version:
        path = f"{path}/{_API}".lstrip("/")
    return f"{parts.scheme}://{parts.netloc}/{path.rstrip('/')}/"


def _of_config(path: Path) -> tuple[str | None, Path | None]:
    raw = _read(path)
    if raw is None:
        return None, None
    try:
        document = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML ({str(error).partition(chr(10))[0]}).") from None
    unknown = sorted(set(document) - {"pccs", "keyring"})  # which others read
    table = document.get("pccs", {})
    if not unknown and isinstance(table, dict):
        unknown = [f"pccs.{name}" for name in sorted(set(table) - {"url", "ca"})]
    if unknown:
        raise InputError(
            f"{path} has an unknown setting, {unknown[0][:80]!r}; known are pccs.url and pccs.ca."
        )
    if not isinstance(table, dict) or not all(isinstance(value, str) and value for value in table.values()):
        raise InputError(f"The settings under [pccs] in {path} are texts: url and ca.")
    ca = table.get("ca")
    # Beside the file that names it, unless absolute.
    return table.get("url"), path.parent / Path(ca).expanduser() if ca else None


def _of_qcnl(path: Path) -> str | None:
    """Return the address that Intel's quote provider asks for collateral.

    It has one for PCK certificates (``pccs_url``) and optionally another for collateral.
    """
    raw = _read(path)
    if raw is None:
        return None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text; repair it, or {how_to_name()}.") from None
    bare = _STRING_OR_COMMENT.sub(lambda match: match[1] or " ", text)
    settings = _qcnl_json(bare, path) if bare.lstrip().startswith("{") else _qcnl_lines(text)
    address = settings.get("collateral_service") or settings.get("pccs_url")
    if address is not None and not isinstance(address, str):
        raise InputError(f"{path} names a collateral service that is not a text; {how_to_name()}.")
    return address or None


def _qcnl_json(text: str, path: Path) -> dict[str, Any]:
    try:
        document = parse_json(text, what=str(path), max_bytes=_MAX_BYTES)
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}; repair it, or {how_to_name()}.") from None
    return document if isinstance(document, dict) else {}


def _qcnl_lines(text: str) -> dict[str, Any]:
    """Read the form of the file before DCAP 1.13: ``PCCS_URL=https://...``."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _read(path: Path) -> bytes | None:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    if len(raw) > _MAX_BYTES:
        raise InputError(f"{path} is larger than the {_MAX_BYTES} bytes that are accepted.")
    return raw
