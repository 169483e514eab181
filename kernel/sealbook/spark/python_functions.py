"""Python functions of a job where executors run in Gramine: refused before anything is sent.

An executor starts Python with a fork and looks for its workers in ``/proc``. In Gramine 1.9 a JVM that forks
has crashed, and no process sees another in ``/proc``. The executors refuse, too (``sealbook.processes`` in
the jar); this is so that a job which could not end does not begin.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, Final, NoReturn

from sealbook.errors import RefusedError
from sealbook.spark import gramine_jvm

#: The same sentence as in ``Starter.java``; a test compares.
SENTENCE: Final = (
    "Python functions (UDFs, functions on RDDs) do not run in executors in Gramine: write this with "
    "functions of DataFrames or SQL, or run it on a cluster whose nodes are not in Gramine."
)


def guard(module: ModuleType) -> None:
    """Have ``pyspark.core.rdd`` send no function from a kernel in Gramine.

    A kernel in Gramine has its executors there, too: one policy admits all nodes of a cluster, by one kind of
    evidence.
    """
    if not gramine_jvm.MARK.exists():
        return

    @functools.wraps(module._prepare_for_python_RDD)
    def prepare(*args: Any, **kwargs: Any) -> NoReturn:
        raise RefusedError(SENTENCE)

    module._prepare_for_python_RDD = prepare  # type: ignore[attr-defined]
