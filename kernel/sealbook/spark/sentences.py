"""What Spark makes of a refusal of sealbook's own, told as the refusal: one sentence.

A file that does not open is some sixty lines of Java by the time PySpark shows it, and the sentence is
somewhere in their middle. PySpark has one function that turns Java's exceptions into Python's; here it learns
of sealbook's.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, Final

from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.sealing.errors import KeyUnavailableError

_KINDS: Final[dict[str, type[SealbookError]]] = {
    "input": InputError,
    "key": KeyUnavailableError,
    "refused": RefusedError,
}


def install(captured: ModuleType) -> None:
    """Let ``pyspark.errors.exceptions.captured`` tell sealbook's refusals as what they are; once."""
    module: Any = captured
    stock = module.convert_exception
    if hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def convert(error: Any) -> Any:
        return sentence_of(error) or stock(error)

    module.convert_exception = convert


def sentence_of(error: Any) -> SealbookError | None:
    """Return the error that a Java exception, or one of its causes, is about; None where it is Spark's own.

    Parameters
    ----------
    error
        py4j's Java exception.
    """
    from pyspark import SparkContext

    jvm = SparkContext._jvm
    found = None if jvm is None else jvm.sealbook.spark.Sentences.of(error)
    if found is None:
        return None
    kind, _, sentence = str(found).partition("|")
    return _KINDS.get(kind, RefusedError)(sentence)
