"""A checkpoint location of its own, sealed, for each streaming query that names none.

Stock Spark makes a temporary directory for such a query (to the console, to memory, for each batch), and
keeps the query's state there in clear. The setting ``spark.sql.streaming.checkpointLocation`` prevents that,
but is one directory for all: a query with a name would find what the same cell left there when it ran before,
and either refuse to start or go on where that one ended. So each start gets a directory below that one.
"""

from __future__ import annotations

import functools
import uuid
from types import ModuleType
from typing import Any

from sealbook.spark.settings import CHECKPOINTS


def install(module: ModuleType) -> None:
    """Replace what starts queries in ``pyspark.sql.streaming.readwriter``."""
    writer = module.DataStreamWriter
    writer.start = _fresh(writer.start)
    writer.toTable = _fresh(writer.toTable)


def _fresh(stock: Any) -> Any:
    @functools.wraps(stock)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        # What the query names itself, with option("checkpointLocation", ...), counts before the setting.
        conf = self._spark.conf
        base = conf.get(CHECKPOINTS)
        conf.set(CHECKPOINTS, f"{base.rstrip('/')}/{uuid.uuid4()}")
        try:
            return stock(self, *args, **kwargs)
        finally:
            conf.set(CHECKPOINTS, base)

    return start
