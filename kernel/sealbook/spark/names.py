"""``spark`` and ``sc`` in a notebook: there as soon as they are named, and made not before.

Until then a placeholder has the name, so that it can be completed and assigned over. A cell that uses the
name finds the real object there, put in its place before the cell runs; code that gets hold of the
placeholder in another way can use it all the same, as it passes everything on.
"""

from __future__ import annotations

import re
import symtable
import sys
from collections.abc import Callable
from typing import Any, Final

from sealbook import spark_files
from sealbook.spark import present

_WORDS: Final = re.compile(r"\b(?:spark|sc)\b")


class Placeholder:
    """Stands for a Spark session or context until it is used.

    Parameters
    ----------
    find
        Returns the real object, making it if need be; raises what keeps it from being made.
    kind
        Returns the class of the real object, without making one.
    """

    __slots__ = ("_find", "_kind")

    def __init__(self, find: Callable[[], Any], kind: Callable[[], type]) -> None:
        object.__setattr__(self, "_find", find)
        object.__setattr__(self, "_kind", kind)

    @property  # type: ignore[misc]  # so that isinstance() says what it will say of the real one
    def __class__(self) -> type:
        # Whoever asks that has imported PySpark. Others only look through the names of the notebook.
        return self._kind() if "pyspark.sql" in sys.modules else Placeholder

    def __getattr__(self, name: str) -> Any:
        # Python, IPython and debuggers look for such names in everything; the class knows them too.
        if name.startswith(("__", "_ipython_", "_repr_mimebundle_")):
            getattr(self._kind(), name)
        return getattr(self._find(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._find(), name, value)

    def __dir__(self) -> list[str]:
        return dir(self._kind())

    def __repr__(self) -> str:
        return repr(self._find())

    def __eq__(self, other: object) -> bool:
        return bool(self._find() == other)

    def __hash__(self) -> int:
        return hash(self._find())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._find().__reduce_ex__(protocol)

    def __enter__(self) -> Any:
        return self._find().__enter__()

    def __exit__(self, *exception: Any) -> Any:
        return self._find().__exit__(*exception)


class SparkNames:
    """The two names in the namespace of one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._failed: BaseException | None = None
        self._placeholders: dict[str, Placeholder] = {
            "spark": Placeholder(lambda: self._resolve("spark"), _session_class),
            "sc": Placeholder(lambda: self._resolve("sc"), _context_class),
        }

    def install(self) -> None:
        """Put the names there, and see to them before each cell."""
        self.refresh()
        self._shell.events.register("pre_run_cell", self._before_cell)

    def refresh(self) -> None:
        """Put placeholders where there is nothing, or what belongs to a session that has ended."""
        present.notice_end()
        names = self._shell.user_ns
        for name, placeholder in self._placeholders.items():
            if name not in names or _ended(names[name]):
                names[name] = placeholder
                # Not listed by %who, as it is not the user's.
                self._shell.user_ns_hidden[name] = placeholder

    def _before_cell(self, info: Any) -> None:
        self._failed = None
        self.refresh()
        if not _WORDS.search(info.raw_cell or ""):
            return
        for name in used_names(self._shell.transform_cell(info.raw_cell)):
            if self._shell.user_ns[name] is self._placeholders[name]:
                try:
                    self._resolve(name)
                except BaseException as error:  # also an interrupt
                    # Here IPython would print it and run the cell. The cell raises it when it uses the name.
                    self._failed = error

    def _resolve(self, name: str) -> Any:
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        # The sentence of a missing package, or of a process without trusted Spark.
        spark_files.spark_home()
        present.current()
        from pyspark.sql import SparkSession

        session = SparkSession.builder.getOrCreate()
        found = session if name == "spark" else session.sparkContext
        if self._shell.user_ns.get(name) is self._placeholders[name]:
            self._shell.user_ns[name] = found
        return found


def used_names(code: str) -> list[str]:
    """Return which of the names a cell reads at its top level without assigning to them.

    A cell that assigns to one of them may mean to make its own session, with its own settings, first.
    """
    try:
        table = symtable.symtable(code, "<cell>", "exec")
    except (SyntaxError, ValueError):
        return []
    known = set(table.get_identifiers())
    symbols = [table.lookup(name) for name in ("spark", "sc") if name in known]
    if any(symbol.is_assigned() or symbol.is_imported() for symbol in symbols):
        return []
    return [symbol.get_name() for symbol in symbols if symbol.is_referenced()]


def _ended(value: Any) -> bool:
    """Tell whether `value` is a session or context that was stopped."""
    kind = type(value)
    if kind.__module__ == "pyspark.sql.session" and kind.__name__ == "SparkSession":
        value = value._sc
        kind = type(value)
    return (
        kind.__module__ == "pyspark.core.context"
        and kind.__name__ == "SparkContext"
        and not getattr(value, "_jsc", None)
    )


def _session_class() -> type:
    spark_files.spark_home()
    from pyspark.sql import SparkSession

    return SparkSession


def _context_class() -> type:
    spark_files.spark_home()
    from pyspark import SparkContext

    return SparkContext
