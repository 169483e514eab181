"""Checks the command line with which a worker starts an executor.

It was put together by the driver and the worker, both attested, and travelled over attested TLS. It is
checked all the same, because it is the one place where one node says what another node runs: nothing of it is
executed as it stands. The agent takes the few values that make sense and builds its own command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sealbook.errors import RefusedError
from sealbook.spark import jvm, settings

MAIN = "org.apache.spark.executor.CoarseGrainedExecutorBackend"

_HOST = r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
_URL = r"spark://%s@" + _HOST + r":[0-9]{1,5}"
#: Its arguments: each once, in any order.
_ARGUMENTS = {
    "--driver-url": re.compile(_URL % "CoarseGrainedScheduler"),
    "--executor-id": re.compile(r"[0-9]{1,9}"),
    "--hostname": re.compile(_HOST),
    "--cores": re.compile(r"[1-9][0-9]{0,3}"),
    "--app-id": re.compile(r"app-[0-9]{14}-[0-9]{1,9}"),
    "--worker-url": re.compile(_URL % "Worker"),
    "--resourceProfileId": re.compile(r"[0-9]{1,9}"),
}
_HEAP = re.compile(r"-Xm[sx]([0-9]{1,7})[mM]")
_DEFINITION = re.compile(r"-D(?P<key>[A-Za-z0-9._-]{1,200})=(?P<value>.*)", re.DOTALL)
#: What Spark passes on of a driver's settings and no protection depends on: addresses, sizes, waiting times.
_PASSED = re.compile(
    r"spark\.(?:rpc\.[A-Za-z0-9.]+|network\.(?!crypto)[A-Za-z0-9.]+|(?:[A-Za-z]+\.)*port(?:\.[A-Za-z]+)?)"
)
_HARMLESS_VALUE = re.compile(r"[A-Za-z0-9._:-]{0,100}")
#: What Spark's own launcher adds and our command line has anyway, or does without.
_KNOWN = frozenset(
    {
        *jvm.SPARK_OPTIONS,
        "-XX:+IgnoreUnrecognizedVMOptions",
        "--sun-misc-unsafe-memory-access=allow",
        "-Dio.netty.noUnsafe=false",
    }
)
_KEPT = frozenset({"-Djava.net.preferIPv6Addresses=false", "-Djava.net.preferIPv6Addresses=true"})


@dataclass(frozen=True)
class ExecutorCommand:
    """What is taken over of a command line.

    Attributes
    ----------
    heap
        As ``-Xmx`` takes it.
    options
        Of the JVM.
    arguments
        Of :data:`MAIN`.
    """

    heap: str
    options: tuple[str, ...]
    arguments: tuple[str, ...]


def check(command: Sequence[str], host: str) -> ExecutorCommand:
    """Return what is taken over of `command`, which is everything behind the ``java``.

    Parameters
    ----------
    host
        Of this node; an executor says no other name.

    Raises
    ------
    RefusedError
        Anything in it is not known.
    """
    remaining = list(command)
    heap = None
    options: list[str] = []
    while remaining and remaining[0].startswith("-"):
        option = remaining.pop(0)
        if option == "-cp":
            if remaining:
                remaining.pop(0)  # ours is another
        elif size := _HEAP.fullmatch(option):
            heap = f"{size[1]}m" if option.startswith("-Xmx") else heap
        elif option in _KEPT or _is_passed(option):
            options.append(option)
        elif option not in _KNOWN and not _is_ours(option):
            raise _refused(f"the option {_shown(option)} is not one that executors have here")
    if not remaining or remaining[0] != MAIN:
        raise _refused(f"it would run {_shown(remaining[0]) if remaining else 'nothing'}")
    if heap is None:
        raise _refused("it does not say how much memory the executor has")
    return ExecutorCommand(heap, tuple(options), _arguments(remaining[1:], host))


def _is_passed(option: str) -> bool:
    found = _DEFINITION.fullmatch(option)
    return bool(found and _PASSED.fullmatch(found["key"]) and _HARMLESS_VALUE.fullmatch(found["value"]))


def _is_ours(option: str) -> bool:
    """Whether it is a protective setting with the value that it has here; a worker passes on its own."""
    found = _DEFINITION.fullmatch(option)
    return found is not None and settings.is_protective(found["key"], found["value"])


def _arguments(given: Sequence[str], host: str) -> tuple[str, ...]:
    names, values = given[::2], given[1::2]
    if sorted(names) != sorted(_ARGUMENTS) or len(names) != len(values):
        raise _refused("its arguments are not those of an executor")
    for name, value in zip(names, values, strict=True):
        if not _ARGUMENTS[name].fullmatch(value):
            raise _refused(f"its {name} is {_shown(value)}")
        if name == "--hostname" and value != host:
            raise _refused(f"it is for the host {_shown(value)}, and this one is {host}")
    return tuple(given)


def _refused(cause: str) -> RefusedError:
    return RefusedError(f"This executor is not started: {cause}; a job may not change how executors start.")


def _shown(text: str) -> str:
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return f"'{printable if len(printable) <= 80 else printable[:77] + '...'}'"
