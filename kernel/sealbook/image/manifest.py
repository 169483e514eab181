"""Writes the Gramine manifest of an image: what runs, what it sees, and the hash of every byte of it.

All URIs are relative to the directory that the launcher makes for each start
(:mod:`sealbook.image.launch_directory`), so that an image has the same measurement wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sealbook.image.roles import KERNEL, Role

#: Names in the launch directory, and with it in every URI.
IMAGE, REGISTRATION, SCRATCH, DATA, WORK = "image", "launch/registration", "scratch", "data", "work"

#: Where the kernel reads where to register: public, untrusted, and bound by its quote.
REGISTRATION_PLACE = "/run/sealbook/registration"

SCRATCH_PLACE, DATA_PLACE, WORK_PLACE = "/scratch", "/data", "/work"

#: Memory of the process inside Gramine. Keys of TLS and models of Keras pass through files there, because
#: their libraries read nothing but files and Gramine has no ``memfd_create``.
MEMORY_PLACE = "/tmp"  # noqa: S108

#: Whose challenges the kernels of an image answer: the owner's public key in hex, or :data:`ANYONE`.
OWNER, ANYONE = "etc/sealbook-owner", "anyone"

#: An empty file of the image, laid over files in the notebook's directory that would be run: matplotlib's
#: settings (``figure.hooks`` names functions to call) and pdb's start-up commands.
EMPTY = "etc/empty"
CODE_IN_WORK = ("matplotlibrc", ".pdbrc")

#: ISVPRODID and ISVSVN of kernels; the number is raised when a fixed weakness must not run any more.
ISV_PROD_ID, ISV_SVN = 1, 1

_TEMPLATE = """\
# Manifest of the sealbook image {name}. `sealbook image inspect` explains it, and `lint` checks it.
# Every URI is relative to the directory that the launcher makes for one start.

libos.entrypoint = {entrypoint}

[loader]
# More than errors would tell the host which files and calls a cell uses.
log_level = "error"
# Fixed: nothing of the host's command line reaches the kernel.
argv = {argv}
entrypoint = {{ uri = {libos_uri}, sha256 = {libos_sha256} }}

# All there is: nothing of the host's environment reaches the kernel.
[loader.env]
{environment}

[fs]
start_dir = {start_dir}
# The image: every file below is measured, and nothing else can be opened there.
root = {{ type = "chroot", uri = {root_uri} }}
# In this order, because later ones lie over earlier ones.
mounts = [
  # In memory, each process its own: private keys pass through it.
  {{ type = "tmpfs", path = {memory_place} }},
  # Encrypted with a key that the kernel makes and nobody else ever has: gone with it.
  {{ type = "encrypted", path = {scratch_place}, uri = {scratch_uri}, key_name = "scratch" }},
  # Encrypted with a key that the broker releases to verified evidence.
  {{ type = "encrypted", path = {data_place}, uri = {data_uri}, key_name = "data" }},
  {work_mount},
  {{ path = {registration_place}, uri = {registration_uri} }},
]

[sys]
stack.size = "2M"
fds.limit = {max_files}
# The resolver's settings, cleaned by Gramine; whom a kernel talks to is proved on the channel, not by name.
enable_extra_runtime_domain_names_conf = true

[sgx]
remote_attestation = "dcap"
debug = false
isvprodid = {isv_prod_id}
isvsvn = {isv_svn}
# Memory is added as it is used, and never writable and executable at once unless a program asks.
edmm_enable = true
enclave_size = "{enclave_size}"
max_threads = {max_threads}
# A JVM turns memory faults into exceptions and needs their address.
use_exinfo = {use_exinfo}
cpu_features = {{ avx = "unspecified", avx512 = "unspecified", amx = "unspecified", mpx = "disabled", \
pkru = "disabled" }}
file_check_policy = "strict"
# The only files that are neither measured nor encrypted.
allowed_files = {allowed}
trusted_files = [
{trusted}
]
"""


@dataclass(frozen=True)
class Content:
    """What differs between manifests.

    Attributes
    ----------
    entrypoint, argv, environment
        What runs.
    libos
        Path of the library OS in the image, relative to it.
    work
        ``"host"``: the notebook's directory as it is; ``"encrypted"``: encrypted like the data mount.
    enclave_size
        Upper limit, as Gramine writes sizes.
    trusted
        Path in the image (relative to it) -> SHA-256 in hex.
    role
        What it is for.
    tables
        Of a node: where the host's directory with sealed tables is mounted.
    """

    name: str
    entrypoint: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    libos: str
    work: str
    enclave_size: str
    trusted: Mapping[str, str]
    role: Role = KERNEL
    tables: str = WORK_PLACE


def render(content: Content) -> str:
    """Return the manifest's text."""
    if content.role.node:
        # Nothing is run from there, and nothing starts there.
        work_mount = f"{{ path = {_toml(content.tables)}, uri = {_uri(WORK)} }}"
        allowed = [f"file:{REGISTRATION}", f"file:{WORK}/"]
    elif content.work == "host":
        mounts = [f"{{ path = {_toml(WORK_PLACE)}, uri = {_uri(WORK)} }}"]
        # What libraries look for in the working directory and run: the host's would run in the kernel.
        mounts += [
            f"{{ path = {_toml(f'{WORK_PLACE}/{name}')}, uri = {_uri(f'{IMAGE}/root/{EMPTY}')} }}"
            for name in CODE_IN_WORK
        ]
        work_mount = ",\n  ".join(mounts)
        allowed = [f"file:{REGISTRATION}", f"file:{WORK}/"]
    else:
        work_mount = (
            f'{{ type = "encrypted", path = {_toml(WORK_PLACE)}, uri = {_uri(WORK)}, key_name = "work" }}'
        )
        allowed = [f"file:{REGISTRATION}"]
    return _TEMPLATE.format(
        name=content.name,
        entrypoint=_toml(content.entrypoint),
        argv=_toml(list(content.argv)),
        libos_uri=_uri(f"{IMAGE}/{content.libos}"),
        libos_sha256=_toml(content.trusted[content.libos]),
        environment="\n".join(
            f"{key} = {_toml(value)}" for key, value in sorted(content.environment.items())
        ),
        root_uri=_uri(f"{IMAGE}/root"),
        start_dir=_toml(MEMORY_PLACE if content.role.node else WORK_PLACE),
        max_files=content.role.max_files,
        max_threads=content.role.max_threads,
        use_exinfo="true" if content.role.java else "false",
        memory_place=_toml(MEMORY_PLACE),
        scratch_place=_toml(SCRATCH_PLACE),
        scratch_uri=_uri(SCRATCH),
        data_place=_toml(DATA_PLACE),
        data_uri=_uri(DATA),
        work_mount=work_mount,
        registration_place=_toml(REGISTRATION_PLACE),
        registration_uri=_uri(REGISTRATION),
        isv_prod_id=ISV_PROD_ID,
        isv_svn=ISV_SVN,
        enclave_size=content.enclave_size,
        allowed=_toml(allowed),
        trusted=",\n".join(
            f"  {{ uri = {_uri(f'{IMAGE}/{path}')}, sha256 = {_toml(digest)} }}"
            for path, digest in sorted(content.trusted.items())
            if path.startswith("root/")
        ),
    )


def hash_tree(image: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of an image's ``root`` and ``gramine``, by path relative to it."""
    hashes = {}
    for top in ("gramine", "root"):
        for path in sorted((image / top).rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    hashes[path.relative_to(image).as_posix()] = hashlib.file_digest(
                        file, "sha256"
                    ).hexdigest()
    return hashes


def _uri(path: str) -> str:
    return _toml(f"file:{path}")


def _toml(value: str | list[str]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's strings are TOML's, except for what JSON writes as two surrogates.
    return '"' + "".join(json.dumps(c)[1:-1] if c <= "\uffff" else f"\\U{ord(c):08x}" for c in value) + '"'
