"""What attestation and encryption cost on a Spark cluster: TPC-H, and the start.

Baselines: a standalone cluster of the same stock Spark without any protection, with the same workers, and
plain Parquet. Both clusters run at the same time and take turns query by query, so that whatever else the
machine does meets both alike; the sealed files hold, byte for byte, the same Parquet files as the plain ones.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from spark_sides import CORES, WORKERS, Driver, PlainCluster, TrustedCluster, running

from tpch import queries, tables

ALL = sorted(queries.QUERIES)
_KEY = "tpch"


def measure(quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the benchmark table."""
    if importlib.util.find_spec("pyspark") is None:
        return [_not_measured("Spark is not installed: `make spark`")]
    from sealbook import jdk
    from sealbook.errors import InputError

    try:
        jdk.find_java()
    except InputError as error:
        return [_not_measured(str(error))]
    scale, rounds, starts = ("0.01", 1, 1) if quick else ("1", 3, 3)
    with tempfile.TemporaryDirectory(prefix="sealbook-tpch-") as directory:
        rows = _tpch(Path(directory), scale, rounds, memory="900m" if quick else "2g")
    return [*rows, _up(starts)]


def _tpch(directory: Path, scale: str, rounds: int, memory: str) -> list[dict[str, Any]]:
    plain, sealed = directory / "plain", directory / "sealed"
    tables.generate(plain, float(scale))
    trusted = TrustedCluster(memory)
    with running(PlainCluster(memory), trusted) as (plain_driver, driver):
        seal_tables(trusted, plain, sealed)
        sides: dict[str, tuple[Driver, str]] = {
            "plain cluster": (plain_driver, f"file://{plain}"),
            "trusted cluster": (driver, f"file://{plain}"),
            "sealed": (driver, f"sealed://{sealed}"),
        }
        for side in sides:  # warm: classes are loaded, code is compiled, files are in memory
            _round(sides, [side])
        keys = trusted.releases()
        seconds: dict[str, list[list[float]]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, measured in _round(sides, list(sides)).items():
                seconds[side].append(measured)
        fetched = trusted.releases() - keys
    # Of each query the median, and of these the sum.
    total = {
        side: sum(statistics.median(query) for query in zip(*measured, strict=True))
        for side, measured in seconds.items()
    }
    note = (
        f"sum of {len(ALL)} queries, SF {scale}, each the median of {rounds} interleaved rounds after a warm "
        f"one; {WORKERS} workers of {CORES} core"
    )
    return [
        _row("TPC-H, sealed Parquet", total["sealed"], "plain Parquet", total["trusted cluster"], 1.05, note),
        _row(
            "TPC-H, trusted cluster",
            total["trusted cluster"],
            "plain cluster",
            total["plain cluster"],
            1.15,
            note,
        ),
        _row("TPC-H, both together", total["sealed"], "plain both", total["plain cluster"], None, note),
        {
            "name": "key fetches in those rounds",
            "value": str(fetched),
            "baseline": f"{len(ALL) * rounds} queries on {len(queries.TABLES)} tables",
            "ratio": "-",
            "target": "none: executors have the keys",
            "holds": fetched == 0,
            "note": "counted in the broker's audit log",
        },
    ]


def seal_tables(cluster: TrustedCluster, plain: Path, sealed: Path) -> None:
    """Seal every file under its own name, so that both sides read the same Parquet files."""
    cluster.sealbook("keys", "create", _KEY)
    tables.seal(plain, sealed, lambda source, target: cluster.sealbook("seal", source, target, "--key", _KEY))


def _round(sides: dict[str, tuple[Driver, str]], wanted: list[str]) -> dict[str, list[float]]:
    """Run all queries once on each side, in turns."""
    seconds: dict[str, list[float]] = {side: [] for side in wanted}
    for query in ALL:
        rows = set()
        # The one that comes first finds colder caches: each is that once in a while.
        at = query % len(wanted)
        for side in wanted[at:] + wanted[:at]:
            driver, root = sides[side]
            answer = driver.ask(query=query, root=root)
            seconds[side].append(answer["seconds"])
            rows.add(answer["rows"])
        assert len(rows) == 1, f"query {query} gave {rows} rows"
    return seconds


def _up(starts: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"plain": [], "trusted": []}
    with tempfile.TemporaryDirectory(prefix="sealbook-up-") as home:
        # Warm, as every other row: the first start reads the files of all processes, and sealbook's user
        # measures them for the first time.
        for number in range(starts + 1):
            for side, cluster in (
                ("plain", PlainCluster("900m")),
                ("trusted", TrustedCluster("900m", Path(home))),
            ):
                begin = time.perf_counter()
                with running(cluster) as (driver,):
                    driver.ask(sum=1000)
                    if number:
                        seconds[side].append(time.perf_counter() - begin)
    trusted, plain = (statistics.median(seconds[side]) for side in ("trusted", "plain"))
    return _row(
        "cluster up to first result",
        trusted,
        "plain cluster",
        plain,
        1.5,
        f"median of {starts} interleaved starts after a warm one: {WORKERS} workers, driver, "
        "`spark.range(1000)` summed",
    )


def _row(
    name: str, value: float, against: str, baseline: float, most: float | None, note: str
) -> dict[str, Any]:
    ratio = value / baseline
    return {
        "name": name,
        "value": f"{value:.1f} s",
        "baseline": f"{against} {baseline:.1f} s",
        "ratio": f"{ratio:.2f}x",
        "target": "-" if most is None else f"at most {most:.2f}x",
        "holds": None if most is None else ratio <= most,
        "note": note,
    }


def _not_measured(cause: str) -> dict[str, Any]:
    return {
        "name": "a trusted Spark cluster",
        "value": "not measured",
        "baseline": "-",
        "ratio": "-",
        "target": "TPC-H at most 1.15x a plain cluster",
        "holds": None,
        "note": cause,
    }
