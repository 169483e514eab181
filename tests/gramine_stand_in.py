"""A stand-in for an installed Gramine: programs of its names, which run nothing in any library OS.

They answer and write what sealbook reads of the real ones, so that everything up to the run itself is
tested on machines without Gramine. The enclave hash that the signer writes is a hash over the
manifest: it changes whenever a measured thing changes, and is no measurement of SGX.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sealbook.image.build import Recipe, build
from sealbook.image.image import Image

VERSION = "1.9"

_RUN = """\
import sys
if sys.argv[1:] == ["--version"]:
    print({banner!r})
    sys.exit(0)
PLACE = {place!r}
exec(open(PLACE + "/behaviour.py").read())
"""

_MANIFEST = """\
import sys
assert sys.argv[1:3] == ["--no-check", "-c"], sys.argv
assert "gramine.runtimedir()" in sys.argv[3] and "gramine.libos" in sys.argv[3]
print({answer!r})
"""

_SIGN = """\
import argparse, hashlib, struct, sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key

parser = argparse.ArgumentParser()
for name in ("manifest", "output", "sigfile", "key", "date"):
    parser.add_argument("--" + name, required=True)
options = parser.parse_args()
try:
    key = load_pem_private_key(open(options.key, "rb").read(), None)
except (OSError, ValueError):
    sys.exit("Traceback of the signer\\nThe key cannot be read.")
text = open(options.manifest, "rb").read()
open(options.output, "wb").write(text)
numbers = key.public_key().public_numbers()
assert (key.key_size, numbers.e, options.date) == (3072, 3, "0000-00-00")
sigstruct = bytearray(1808)
sigstruct[0:16] = bytes.fromhex("06000000e10000000000010000000000")
sigstruct[128:512] = numbers.n.to_bytes(384, "little")
struct.pack_into("<I", sigstruct, 512, 3)
sigstruct[928] = 0x04  # 64 bit, no debugging
sigstruct[960:992] = hashlib.sha256(text).digest()
struct.pack_into("<HH", sigstruct, 1024, 1, 1)
open(options.sigfile, "wb").write(sigstruct)
"""


class GramineStandIn:
    """A directory with the stand-in's programs, library OS and C library."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.programs = place / "bin"
        self.runtime = place / "runtime"
        self.libos = place / "libsysdb.so"
        for directory in (self.programs, self.runtime):
            directory.mkdir(parents=True)
        # No name of a library of the system: what is linked with those is still run by the tests.
        (self.runtime / "libstandin_gramine.so").write_text("a C library\n")
        self.libos.write_text("a library OS\n")
        self.say_version(VERSION)
        answer = f'runtime = "{self.runtime}"\nlibos = "{self.libos}"'
        self.program("gramine-manifest", _MANIFEST.format(answer=answer))
        self.program("gramine-sgx-sign", _SIGN)
        self.behave("")

    @property
    def path(self) -> str:
        """PATH with the stand-in before the system's programs."""
        return f"{self.programs}:/usr/bin:/bin"

    @property
    def environment(self) -> dict[str, str]:
        """What the program that was started last got from whoever started it."""
        entries = (self.place / "environ").read_bytes().decode().split("\0")
        return dict(entry.split("=", 1) for entry in entries if entry)

    def program(self, name: str, code: str) -> None:
        """Write a program in Python."""
        (self.place / f"{name}.py").write_text(code)
        file = self.programs / name
        # The signer needs site-packages, the others start faster without. The environment is kept as it
        # came, before the shell and Python add to it.
        quick = "" if name == "gramine-sgx-sign" else "-S"
        file.write_text(
            f'#!/bin/sh\n/bin/cat /proc/$$/environ >"{self.place}/environ"\n'
            f'exec "{sys.executable}" -B -E {quick} "{self.place}/{name}.py" "$@"\n'
        )
        file.chmod(0o755)

    def say_version(self, version: str) -> None:
        """Make it another version of Gramine."""
        for name in ("gramine-direct", "gramine-sgx"):
            self.program(name, _RUN.format(banner=f"Gramine {version} (stand-in)", place=str(self.place)))

    def behave(self, code: str) -> None:
        """Say what its gramine-direct and gramine-sgx do instead of running a program.

        ``PLACE`` is the stand-in's directory, because nothing but PATH reaches it through the environment.
        """
        (self.place / "behaviour.py").write_text(code)

    @contextmanager
    def on_path(self) -> Iterator[None]:
        """Let this process find it."""
        with mock.patch.dict(os.environ, PATH=self.path):
            yield


def signing_key(path: Path) -> Path:
    """Write a key as SGX asks for."""
    path.touch(mode=0o600)
    path.write_bytes(
        rsa.generate_private_key(3, 3072).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return path


def mrsigner(key: Path) -> bytes:
    """Return what SGX calls the signer: the hash of the modulus, little-endian."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return hashlib.sha256(private.public_key().public_numbers().n.to_bytes(384, "little")).digest()


def sigstruct(*, mrenclave: bytes, modulus: bytes, product: int, version: int, flags: int = 0x04) -> bytes:
    """Return a SIGSTRUCT with these fields and other bytes everywhere else."""
    filled = bytearray(b"\xa5" * 1808)
    filled[128:512] = modulus
    filled[928:936] = struct.pack("<Q", flags)
    filled[960:992] = mrenclave
    filled[1024:1028] = struct.pack("<HH", product, version)
    return bytes(filled)


def small_image(output: Path, *, force: bool = False, **recipe: Any) -> Image:
    """Build an image whose interpreter, packages, programs and libraries are a line of text each.

    All the rest is built as ever, with the Gramine on PATH.
    """

    if recipe.get("key") is not None:  # signed images have an owner, or SGX kernels refuse them
        recipe.setdefault("owner", bytes(range(32)))

    def put(root: Path, *names: str) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"what stands for {name}\n")
            (root / name).chmod(0o755)

    def put_programs(root: Path) -> list[Path]:
        put(root, "bin/sh", "etc/empty")
        return []

    def put_libraries(root: Path, binaries: Iterable[Path], runtime: Path) -> None:
        for path in runtime.iterdir():
            put(root, f"lib/{path.name}")
            (root / "lib" / path.name).write_bytes(path.read_bytes())

    def put_java(root: Path) -> list[Path]:
        parts = ("bin/java", "lib/modules", "lib/server/libjvm.so", "conf/security/java.security")
        put(root, *(f"java/{part}" for part in parts))
        put(root, "python/lib/python3.11/site-packages/sealbook/spark/sealbook.jar")
        return []

    with ExitStack() as stack:
        stack.enter_context(mock.patch("sealbook.spark_files.JAR", Path(__file__)))
        for function, stand_in in {
            "distributions.collect": lambda roots: [],
            "interpreter.install": lambda root: put(root, "python/bin/python3", "python/lib/python311.zip"),
            "programs.install": put_programs,
            "libraries.install": put_libraries,
            "java.install": put_java,
        }.items():
            stack.enter_context(mock.patch(f"sealbook.image.{function}", stand_in))
        return build(Recipe(**recipe), output, force=force)
