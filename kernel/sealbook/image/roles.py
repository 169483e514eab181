"""What an image is for: what runs in it first, and what that needs beside the packages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from sealbook.errors import InputError

#: ``JAVA_HOME`` in an image with Java.
JAVA_HOME: Final = PurePosixPath("/java")

#: What the interpreter is told before the module. ``-I``: no environment and no working directory on
#: ``sys.path``; ``-B``: no byte code written.
_PYTHON: Final = ("python3", "-I", "-B", "-m")


@dataclass(frozen=True)
class Role:
    """One purpose of images.

    Attributes
    ----------
    module
        What the interpreter runs.
    packages
        What it needs beside the layers.
    java
        Whether a JVM runs in it.
    node
        Whether it is a node of a cluster and not a kernel: it answers to a broker and not to a client, and
        starts in no notebook's directory.
    max_threads
        Of one process. A JVM of Spark has about 60 at rest, and one more for each connection and task.
    max_files
        That one process has open. Spark opens one for each shuffle block that it reads.
    """

    name: str
    module: str
    packages: tuple[str, ...] = field(default=())
    java: bool = False
    node: bool = False
    max_threads: int = 64
    max_files: int = 4096

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line."""
        return (*_PYTHON, self.module)

    @property
    def environment(self) -> dict[str, str]:
        """What it has of its own in the environment."""
        return {"JAVA_HOME": str(JAVA_HOME)} if self.java else {}


_KERNEL: Final = "sealbook.jupyter.gramine_kernel"
NODE_MODULE: Final = "sealbook.spark.gramine_node"
_JVM: Final = {"packages": ("pyspark",), "java": True, "max_threads": 256, "max_files": 65536}

KERNEL: Final = Role("kernel", _KERNEL)
SPARK_WORKER: Final = Role("spark-worker", NODE_MODULE, node=True, **_JVM)  # type: ignore[arg-type]
SPARK_DRIVER: Final = Role("spark-driver", _KERNEL, **_JVM)  # type: ignore[arg-type]

ROLES: Final = {role.name: role for role in (KERNEL, SPARK_WORKER, SPARK_DRIVER)}


def role_named(name: str) -> Role:
    """Return a role.

    Raises
    ------
    InputError
        There is none of that name.
    """
    if name not in ROLES:
        raise InputError(f"There is no role '{name}' for images; there are: {', '.join(ROLES)}.")
    return ROLES[name]
