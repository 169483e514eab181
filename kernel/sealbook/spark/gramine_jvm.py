"""What a JVM is told in Gramine, and why; measured with the rest of this code.

A JVM there is stable when its memory does not change its shape while it runs: what is reserved at the start
is what there is. Found in gramine-direct 1.9 with OpenJDK 17 (facts of Gramine, sections 4 and 8): a code
cache that grew crashed in ``CodeHeap::allocate``, and a fork of a JVM crashed the parent or had no mappings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sealbook.errors import RefusedError

#: Where Gramine has its pseudo-files.
MARK: Final = Path("/dev/attestation")

#: What every process of an image has, whoever starts it; as in its manifest.
ENVIRONMENT: Final = {"LD_LIBRARY_PATH": "/lib", "MALLOC_ARENA_MAX": "1"}

#: The roles whose JVM holds no data: masters and workers.
DAEMONS: Final = frozenset({"spark-master", "spark-worker"})
#: Their heap. Measured with -Xlog:gc (gramine-direct 1.9, OpenJDK 17, three SQL jobs on sealed tables, one
#: executor each): collections left at most 37 MiB, in the master as in the worker.
DAEMON_HEAP: Final = "96m"

#: Of every JVM.
_FIXED: Final = (
    # The one collector with no threads of its own: those of others wait in futexes that cost enclave exits.
    "-XX:+UseSerialGC",
    # One heap of code, there from the beginning: see above.
    "-XX:-SegmentedCodeCache",
    # Each compiler thread has its own arenas, and there is little code to compile at once.
    "-XX:CICompilerCount=2",
    # epoll of Netty's native library needs timerfd, and the library would be unpacked and loaded.
    "-Dio.netty.transport.noNative=true",
    # A mechanism that there is not: a fork that nobody meant is an error and no crash. Processes are started
    # by `sealbook.spark.starter`.
    "-Djdk.lang.Process.launchMechanism=NONE",
)
#: Megabytes of compiled code and of class descriptions: of a daemon, and of whoever runs queries.
_CODE: Final = {True: 32, False: 96}
_CLASSES: Final = {True: 48, False: 192}


def options(role: str, heap: str, cores: int = 2) -> tuple[str, ...]:
    """Return what a JVM of this role with this heap is told in Gramine.

    Parameters
    ----------
    heap
        As ``-Xmx`` takes it; all of it is there from the beginning.
    cores
        How many processors the JVM believes to have.
    """
    daemon = role in DAEMONS
    return (
        *_FIXED,
        f"-Xms{heap}",
        f"-XX:ReservedCodeCacheSize={_CODE[daemon]}m",
        f"-XX:InitialCodeCacheSize={_CODE[daemon]}m",
        f"-XX:CompressedClassSpaceSize={_CLASSES[daemon]}m",
        f"-XX:ActiveProcessorCount={max(2, cores)}",
    )


def check(command: Sequence[str]) -> None:
    """Refuse to start a JVM in Gramine whose memory would change its shape.

    Raises
    ------
    RefusedError
        The sentence names what is missing or what was added to change it.
    """

    def last(start: str) -> str | None:
        # Of two equal options Java takes the last.
        return next((each.removeprefix(start) for each in reversed(command) if each.startswith(start)), None)

    for fixed in _FIXED:
        said = [each for each in command if _name(each) == _name(fixed)]
        if not said or said[-1] != fixed:
            raise _refused(f"{fixed} is missing")
    for one, other in (
        ("-Xms", "-Xmx"),
        ("-XX:InitialCodeCacheSize=", "-XX:ReservedCodeCacheSize="),
    ):
        if last(one) is None or last(one) != last(other):
            raise _refused(f"{one.rstrip('=')} and {other.rstrip('=')} are not the same")


def _name(option: str) -> str:
    """Return what an option sets: for -XX:+NAME, -XX:-NAME, -XX:NAME=VALUE and -DNAME=VALUE the same part."""
    return re.sub(r"^-XX:[+-]?", "-XX:", option).partition("=")[0]


def _refused(cause: str) -> RefusedError:
    return RefusedError(
        f"This JVM is not started in Gramine: {cause}, and where the memory of a JVM changes its shape it "
        "crashes there."
    )
