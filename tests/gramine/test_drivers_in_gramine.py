"""Spark's driver beside its kernel in a real Gramine: the role spark-driver of images."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import kernel, run

from sealbook import spark_files
from sealbook.image.build import Recipe, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("gramine")]


@pytest.fixture(scope="module")
def driver_kernel(gramine: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    from sealbook.cli.install_gramine import ensure_gramine

    spark_files.jar()
    image = build(Recipe(layers=("data",), role="spark-driver"), tmp_path_factory.mktemp("images") / "driver")
    return str(ensure_gramine("gramine-direct", image=image.path, name="gramine-spark")["kernel"])


def test_local_spark_in_gramine_writes_and_reads_sealed_tables(driver_kernel: str, tmp_path: Path) -> None:
    with kernel(driver_kernel, cwd=str(tmp_path)) as (_, client):
        made = run(client, "spark.range(1000).selectExpr('sum(id) s').collect()[0].s", timeout=600)
        assert made.error is None, made
        assert made.result == "499500"
        code = "spark.range(5000).selectExpr('id', 'id % 7 k').write.parquet('sealed:///work/t')"
        written = run(client, code, timeout=600)
        assert written.error is None, written
        read = run(
            client,
            "spark.read.parquet('sealed:///work/t').groupBy('k').count().orderBy('k').collect()[0]['count']",
            timeout=600,
        )
        assert read.result == "715"
    files = list((tmp_path / "t").glob("part-*.parquet"))
    assert files
    assert not any(path.read_bytes().startswith(b"PAR1") for path in files)
