"""The 22 queries of TPC-H, their tables, and how to run one of them on whatever session there is.

The queries are kept where people read them, in the notebook ``05-scale-unchanged.ipynb``, and nowhere else:
:data:`QUERIES` is taken from its cell. They are those of the TPC Benchmark H Standard Specification with its
validation parameters, in the form that Spark's SQL takes; copied by permission of the Transaction Processing
Performance Council, whose copyright notice is in the notebook. What is measured with them is no TPC result.

This file needs nothing but the standard library, and may be loaded by its path.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "05-scale-unchanged.ipynb"

#: What :mod:`tpch.tables` makes, and the queries read.
TABLES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")


def _from_notebook() -> dict[int, str]:
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.startswith("QUERIES = "):
            assignment = ast.parse(source).body[0]
            assert isinstance(assignment, ast.Assign)
            found: dict[int, str] = ast.literal_eval(assignment.value)
            return found
    raise AssertionError(f"{NOTEBOOK.name} has no cell that begins with QUERIES")


#: Number -> SQL. Number 11 has a ``{fraction}``; see :func:`query`.
QUERIES = _from_notebook()


def query(number: int, scale: float = 1.0) -> str:
    """Return the SQL of a query, for tables of a scale factor: one of them names a share of the whole."""
    return QUERIES[number].format(fraction=0.0001 / scale)


def views(spark: Any, root: str) -> None:
    """Let the tables that lie below `root`, one directory each, have their names in `spark`."""
    for table in TABLES:
        spark.read.parquet(f"{root}/{table}").createOrReplaceTempView(table)


def run(spark: Any, number: int, scale: float = 1.0) -> list[Any]:
    """Return the rows of the answer to a query."""
    rows: list[Any] = spark.sql(query(number, scale)).collect()
    return rows


def rows_as_text(rows: list[Any]) -> list[str]:
    """Return rows for comparison: where several are equal in what a query orders by, their order is free."""
    return sorted(str(tuple(row)) for row in rows)
