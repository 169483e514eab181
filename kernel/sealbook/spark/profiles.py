"""The clusters that a user knows: ``clusters.toml`` in the sealbook directory.

Everything in it is public: addresses, and the certificates of the brokers' authorities, which are pinned.
What is left out has a stated default; an unknown field is refused.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealbook import files, paths
from sealbook.broker.authorities import check_authority, check_url
from sealbook.broker.names import check_name
from sealbook.errors import InputError
from sealbook.spark.jvm import check_heap

SCHEMA = 1

_MAX_BYTES = 1 << 20
_MAX_CORES = 1024


@dataclass(frozen=True)
class Profile:
    """One cluster.

    Attributes
    ----------
    name
        Of the cluster; the broker has one secret for each name.
    master
        ``spark://host:port``.
    broker
        ``https://host:port`` of the home broker, whose policy says who may be a node, and which tells each
        node where the keys of other owners are.
    ca
        PEM of the certificate authority of the broker's own TLS certificate.
    cores, memory
        Of each executor.
    """

    name: str
    master: str
    broker: str
    ca: str
    cores: int = 1
    memory: str = "1g"

    def __post_init__(self) -> None:
        check_name(self.name, "a cluster")
        check_url(self.master, "spark")
        check_url(self.broker)
        check_authority(self.ca)
        if isinstance(self.cores, bool) or not 1 <= self.cores <= _MAX_CORES:
            raise InputError(f"An executor has 1 to {_MAX_CORES} cores, not {self.cores}.")
        check_heap(self.memory)


def profiles_file() -> Path:
    """Return where the profiles of this user lie; there need not be any."""
    return paths.data_dir() / "clusters.toml"


def load_all(path: Path | None = None) -> dict[str, Profile]:
    """Read all profiles.

    Raises
    ------
    InputError
        The file says anything that is not understood.
    """
    path = path or profiles_file()
    if not path.exists():
        return {}
    data = files.read_bounded(path, "The clusters' file", _MAX_BYTES, regular=True)
    try:
        document = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is not TOML ({str(error).splitlines()[0]}).") from None
    _refuse_unknown(document, {"schema", "clusters"}, str(path))
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path} must say `schema = {SCHEMA}`; this sealbook reads no other.")
    clusters = document.get("clusters", {})
    if not isinstance(clusters, dict):
        raise InputError(f"{path}: clusters is not a table.")
    return {name: _profile(name, table, path) for name, table in clusters.items()}


def load(name: str, path: Path | None = None) -> Profile:
    """Read one profile.

    Raises
    ------
    InputError
        There is none of this name, or the file cannot be understood.
    """
    check_name(name, "a cluster")
    known = load_all(path)
    if name not in known:
        others = f"; there are: {', '.join(sorted(known))}" if known else ""
        raise InputError(
            f"There is no cluster '{name}' in {path or profiles_file()}{others}; "
            f"`sealbook cluster up {name}` starts one on this machine."
        )
    return known[name]


def save(profile: Profile, path: Path | None = None) -> Path:
    """Write or replace one profile; the others stay."""
    path = path or profiles_file()
    _write({**load_all(path), profile.name: profile}, path)
    return path


def remove(name: str, path: Path | None = None) -> None:
    """Forget one profile, if there is one."""
    path = path or profiles_file()
    known = load_all(path)
    if known.pop(name, None) is not None:
        _write(known, path)


def _write(known: Mapping[str, Profile], path: Path) -> None:
    files.write_bytes(path, text(known).encode(), mode=0o600)


def text(known: Mapping[str, Profile]) -> str:
    """Return the file for these profiles, commented."""
    lines = [
        "# The Spark clusters that kernels of this user may use: `%scale cluster NAME`, or the environment's",
        "# SEALBOOK_CLUSTER=NAME where the notebook is opened or run.",
        "# Nothing in here is secret. `sealbook cluster up` and `sealbook cluster down` rewrite this file;",
        "# an unknown field is refused.",
        f"schema = {SCHEMA}",
    ]
    for name in sorted(known):
        profile = known[name]
        lines += [
            "",
            f"[clusters.{name}]",
            f"master = {_quoted(profile.master)}",
            "# Says who may be a node, and whose keys it may ask for.",
            f"broker = {_quoted(profile.broker)}",
            f"cores = {profile.cores}  # of each executor",
            f"memory = {_quoted(profile.memory)}  # of each executor",
            "# The authority of the broker's TLS certificate, pinned: no other is believed.",
            f"ca = {_block(profile.ca)}",
        ]
    return "\n".join([*lines, ""])


def from_table(name: str, table: Any, where: str) -> Profile:
    """Return the profile that a table of TOML or JSON describes; `where` begins the sentence of an error.

    Raises
    ------
    InputError
        A field is unknown, missing, of the wrong type or cannot be used.
    """
    fields = {field.name for field in dataclasses.fields(Profile)} - {"name"}
    found = _table(table, fields, {"master", "broker", "ca"}, where)
    cores = found.pop("cores", 1)
    if not isinstance(cores, int) or isinstance(cores, bool):
        raise InputError(f"{where}: cores is not a number.")
    for field, value in found.items():
        _text(value, field, where)
    return Profile(name=name, cores=cores, **found)


def to_table(profile: Profile) -> dict[str, Any]:
    """Return what :func:`from_table` reads."""
    table = dataclasses.asdict(profile)
    del table["name"]
    return table


def _profile(name: str, table: Any, path: Path) -> Profile:
    return from_table(name, table, f"{path}: clusters.{name}")


def _table(value: Any, allowed: set[str], mandatory: set[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is not a table.")
    _refuse_unknown(value, allowed, where)
    missing = sorted(mandatory - set(value))
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}.")
    return dict(value)


def _refuse_unknown(table: Mapping[str, Any], allowed: set[str], where: str) -> None:
    unknown = sorted(set(table) - allowed)
    if unknown:
        raise InputError(f"{where} has the unknown field '{unknown[0]}'.")


def _text(value: Any, field: str, where: str) -> None:
    if not isinstance(value, str):
        raise InputError(f"{where}: {field} is not a text.")


def _quoted(value: str) -> str:
    # A JSON string without characters outside ASCII is a basic string of TOML.
    return json.dumps(value)


def _block(pem: str) -> str:
    return f'"""\n{pem.strip()}\n"""'
