"""Encrypted Parquet: Spark with SealbookKms and pyarrow with sealbook's client read what the other wrote."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, functions

from java_side import Lab
from local_spark import LocalSpark
from sealbook.errors import InputError, RefusedError, SealbookError
from sealbook.sealing import InMemoryKeys, KeyUnavailableError, SealingKey, UnsealError, set_default_keys
from sealbook.sealing import parquet as encrypted

pytestmark = pytest.mark.xdist_group("local-spark")

_MARKER = "MARKER-7f3a"
_UNIFORM = {"parquet.encryption.uniform.key": "data"}
_COLUMNS = {
    "parquet.encryption.footer.key": "data",
    "parquet.encryption.column.keys": "lab/patients:name,birth",
}


def frame_of(spark: LocalSpark) -> DataFrame:
    numbers = spark.session.range(1000, numPartitions=1)
    name = functions.concat(functions.lit(f"{_MARKER}-"), functions.col("id").cast("string"))
    return numbers.withColumn("name", name).withColumn("birth", 1900 + functions.col("id") % 100)


def table_of() -> pa.Table:
    return pa.table(
        {
            "id": range(1000),
            "name": [f"{_MARKER}-{i}" for i in range(1000)],
            "birth": [1900 + i % 100 for i in range(1000)],
        }
    )


def by_spark(spark: LocalSpark, path: Path, options: dict[str, str]) -> Path:
    frame_of(spark).coalesce(1).write.options(**options).parquet(f"file://{path}")
    (file,) = path.glob("part-*.parquet")
    return file


@pytest.mark.parametrize("options", [_UNIFORM, _COLUMNS], ids=["uniform", "columns"])
def test_pyarrow_reads_what_spark_encrypted(
    options: dict[str, str], spark: LocalSpark, tmp_path: Path
) -> None:
    file = by_spark(spark, tmp_path / "t", options)
    raw = file.read_bytes()
    assert raw[:4] == raw[-4:] == b"PARE"
    assert _MARKER.encode() not in raw
    assert encrypted.read_table(file, keys=spark.keys).equals(pq.read_table(pa_of(file, spark)))
    assert encrypted.read_table(file, keys=spark.keys).to_pydict() == table_of().to_pydict()
    with pytest.raises(OSError, match="encrypted"):
        pq.read_table(file)


def pa_of(file: Path, spark: LocalSpark) -> pa.BufferReader:
    """The same, read by Spark itself and written in clear into memory."""
    sink = pa.BufferOutputStream()
    rows = spark.session.read.parquet(f"file://{file}").orderBy("id").toPandas()
    schema = encrypted.read_table(file, keys=spark.keys).schema
    pq.write_table(pa.Table.from_pandas(rows, schema=schema, preserve_index=False), sink)
    return pa.BufferReader(sink.getvalue())


@pytest.mark.parametrize(
    ("key", "columns"),
    [("data", None), ("lab/patients", {"data": ["name", "birth"]}), ("data", {"lab/patients": ["name"]})],
)
def test_spark_reads_what_pyarrow_encrypted(
    key: str, columns: Any, spark: LocalSpark, tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    encrypted.write_table(table_of(), path, key, columns=columns, keys=spark.keys, use_dictionary=False)
    raw = path.read_bytes()
    assert raw[:4] == raw[-4:] == b"PARE"
    assert _MARKER.encode() not in raw
    found = spark.session.read.parquet(f"file://{path}").orderBy("id").collect()
    assert [row.asDict() for row in found] == table_of().to_pylist()
    assert encrypted.read_table(path, keys=spark.keys).equals(table_of())


def test_pandas_takes_the_properties(spark: LocalSpark, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("sealbook.sealing.keys._default", None)
    set_default_keys(lambda: spark.keys, key=lambda: "data")
    frame = table_of().to_pandas()
    frame.to_parquet(tmp_path / "t.parquet", encryption_properties=encrypted.encryption())
    again = pd.read_parquet(tmp_path / "t.parquet", decryption_properties=encrypted.decryption())
    assert again.equals(frame)
    assert spark.session.read.parquet(f"file://{tmp_path}/t.parquet").count() == 1000


def test_a_column_whose_key_is_not_released_stays_closed_and_the_others_open(
    spark: LocalSpark, tmp_path: Path
) -> None:
    owner = InMemoryKeys(spark.keys.current("data"), SealingKey.generate("lab/hidden"))
    path = tmp_path / "t.parquet"
    encrypted.write_table(table_of(), path, "data", columns={"lab/hidden": ["name"]}, keys=owner)
    frame = spark.session.read.parquet(f"file://{path}")
    assert frame.agg(functions.sum("id")).first()[0] == 499500
    with pytest.raises(KeyUnavailableError, match="key lab/hidden") as refused:
        frame.select("name").collect()
    assert "\n" not in str(refused.value)
    assert encrypted.read_table(path, keys=spark.keys, columns=["id"]).num_rows == 1000
    with pytest.raises(KeyUnavailableError, match="key lab/hidden"):
        encrypted.read_table(path, keys=spark.keys)


def test_another_key_under_the_same_name_is_refused_on_both_sides(spark: LocalSpark, tmp_path: Path) -> None:
    other = InMemoryKeys(SealingKey.generate("data"))
    path = tmp_path / "t.parquet"
    encrypted.write_table(table_of(), path, "data", keys=other)
    with pytest.raises(RefusedError, match="was not opened: the file or the key") as refused:
        spark.session.read.parquet(f"file://{path}").collect()
    assert "\n" not in str(refused.value)
    with pytest.raises(UnsealError):
        encrypted.read_table(path, keys=spark.keys)


def test_a_changed_byte_is_refused_on_both_sides(spark: LocalSpark, tmp_path: Path) -> None:
    file = by_spark(spark, tmp_path / "t", _UNIFORM)
    (tmp_path / "t" / f".{file.name}.crc").unlink(missing_ok=True)
    raw = file.read_bytes()
    for place in (40, len(raw) // 3, len(raw) // 2):
        file.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(SealbookError) as refused:
            spark.session.read.parquet(f"file://{file}").collect()
        assert "\n" not in str(refused.value)
        with pytest.raises((UnsealError, InputError)):
            encrypted.read_table(file, keys=spark.keys)


def test_a_rotated_key_reads_old_files_and_seals_new_ones(spark: LocalSpark, tmp_path: Path) -> None:
    spark.keys.create("turning")
    options = {"parquet.encryption.uniform.key": "turning"}
    encrypted.write_table(table_of(), tmp_path / "old.parquet", "turning", keys=spark.keys)
    spark.keys.create("turning")
    encrypted.write_table(table_of(), tmp_path / "new.parquet", "turning", keys=spark.keys)
    assert spark.session.read.parquet(f"file://{tmp_path}").count() == 2000
    assert spark.keys.asked["turning", 1] >= 1
    assert spark.keys.asked["turning", 2] >= 1
    file = by_spark(spark, tmp_path / "t", options)
    assert encrypted.read_table(file, keys=spark.keys).num_rows == 1000


def test_encrypted_inside_sealed_works_too(spark: LocalSpark, tmp_path: Path) -> None:
    frame_of(spark).write.options(**_UNIFORM).parquet(f"sealed://{tmp_path}/t")
    assert spark.session.read.parquet(f"sealed://{tmp_path}/t").count() == 1000


def test_a_column_that_does_not_exist_is_refused(spark: LocalSpark, tmp_path: Path) -> None:
    options = _COLUMNS | {"parquet.encryption.column.keys": "lab/patients:nothing"}
    with pytest.raises(Exception, match="nothing"):
        by_spark(spark, tmp_path / "t", options)
    with pytest.raises(SealbookError):
        encrypted.write_table(
            table_of(), tmp_path / "t.parquet", "data", columns={"lab/patients": ["nothing"]}, keys=spark.keys
        )


def test_a_key_that_does_not_exist_is_refused_before_anything_is_written(
    spark: LocalSpark, tmp_path: Path
) -> None:
    with pytest.raises(KeyUnavailableError, match="no key nobody"):
        by_spark(spark, tmp_path / "t", {"parquet.encryption.uniform.key": "nobody"})
    with pytest.raises(KeyUnavailableError, match="no key nobody"):
        encrypted.write_table(table_of(), tmp_path / "t.parquet", "nobody", keys=spark.keys)
    assert _MARKER.encode() not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_a_footer_in_clear_shows_the_schema_and_no_values(spark: LocalSpark, tmp_path: Path) -> None:
    """Parquet's own option, for old readers; it is written only when somebody asks for it."""
    file = by_spark(spark, tmp_path / "t", _COLUMNS | {"parquet.encryption.plaintext.footer": "true"})
    raw = file.read_bytes()
    assert raw[-4:] == b"PAR1"
    assert _MARKER.encode() not in raw
    assert pq.read_schema(file).names == ["id", "name", "birth"]
    opened = pq.read_table(file, decryption_properties=encrypted.decryption(keys=spark.keys))
    assert opened.to_pydict() == table_of().to_pydict()
    assert pq.read_table(file, columns=["id"]).num_rows == 1000
    with pytest.raises(OSError, match="crypt"):
        pq.read_table(file)
    with pytest.raises(RefusedError, match="footer in clear"):
        encrypted.read_table(file, keys=spark.keys)


def test_a_plain_file_in_place_of_an_encrypted_one_is_refused_by_pyarrow(
    spark: LocalSpark, tmp_path: Path
) -> None:
    pq.write_table(table_of(), tmp_path / "t.parquet")
    in_memory = io.BytesIO((tmp_path / "t.parquet").read_bytes())
    for source in (tmp_path / "t.parquet", str(tmp_path), in_memory):
        with pytest.raises(RefusedError, match="is not encrypted"):
            encrypted.read_table(source, keys=spark.keys)
    encrypted.write_table(table_of(), tmp_path / "e.parquet", "data", keys=spark.keys)
    with (tmp_path / "e.parquet").open("rb") as file:
        assert encrypted.read_table(file, keys=spark.keys).num_rows == 1000
    with pytest.raises(RefusedError, match=r"t\.parquet is not encrypted"):
        encrypted.read_table(tmp_path, keys=spark.keys)


def test_no_key_is_in_a_configuration(spark: LocalSpark, tmp_path: Path) -> None:
    by_spark(spark, tmp_path / "t", _COLUMNS)
    hadoop = spark.session.sparkContext._jsc.hadoopConfiguration()
    shown = " ".join(f"{entry.getKey()}={entry.getValue()}" for entry in hadoop.iterator()) + spark.printed()
    for name in ("data", "lab/patients"):
        assert base64.b64encode(spark.keys.current(name).secret).decode() not in shown


# -- wrapped keys, without Spark -------------------------------------------------------------------


@pytest.fixture
def keys(lab: Lab) -> InMemoryKeys:
    keys = InMemoryKeys()
    lab.use(keys.create("one"), keys.create("one"), keys.create("lab/data"))
    return keys


def java_unwraps(lab: Lab, wrapped: str, name: str) -> bytes | str:
    answer = lab.ask("unwrap", wrapped=wrapped, key=name)
    assert "cause" not in answer
    return answer["error"] if "error" in answer else base64.b64decode(answer["plain"])


def python_unwraps(wrapped: str, name: str, keys: InMemoryKeys) -> bytes | str:
    try:
        return encrypted.unwrap(wrapped, name, keys)
    except SealbookError:
        return "ParquetKeyException"


@pytest.mark.parametrize("length", [16, 24, 32])
def test_each_unwraps_what_the_other_wrapped(length: int, lab: Lab, keys: InMemoryKeys) -> None:
    plain = os.urandom(length)
    for name in ("one", "lab/data"):
        theirs = lab.ask("wrap", key=name, plain=base64.b64encode(plain).decode())["wrapped"]
        assert encrypted.unwrap(theirs, name, keys) == plain
        assert java_unwraps(lab, encrypted.wrap(plain, keys.current(name)), name) == plain
    assert base64.b64decode(theirs)[:5] == b"\1\0\0\0\1"


def test_a_wrapped_key_opens_under_its_own_name_and_version_only(lab: Lab, keys: InMemoryKeys) -> None:
    wrapped = encrypted.wrap(bytes(32), keys.current("one"))
    raw = bytearray(base64.b64decode(wrapped))
    assert java_unwraps(lab, wrapped, "lab/data") == python_unwraps(wrapped, "lab/data", keys)
    raw[4] = 1  # the older version, which exists
    other = base64.b64encode(raw).decode()
    assert java_unwraps(lab, other, "one") == python_unwraps(other, "one", keys) == "ParquetKeyException"


@given(edit=st.tuples(st.integers(0, 80), st.integers(0, 255), st.sampled_from(["set", "cut", "add"])))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_wrapped_key_is_refused_by_both(
    edit: tuple[int, int, str], lab: Lab, keys: InMemoryKeys
) -> None:
    raw = bytearray(base64.b64decode(encrypted.wrap(bytes(32), keys.current("one"))))
    at, value, what = edit
    before = bytes(raw)
    if what == "set" and at < len(raw):
        raw[at] = value
    elif what == "cut":
        del raw[at:]
    else:
        raw[at:at] = bytes([value])
    text = base64.b64encode(raw).decode()
    said = python_unwraps(text, "one", keys)
    assert said == java_unwraps(lab, text, "one")
    assert (said == bytes(32)) == (bytes(raw) == before)


@pytest.mark.parametrize("text", ["", "!", "AQ", "AQ==", "A" * 5000, "AQ==\n", " AQ=="])
def test_what_is_no_wrapped_key_is_refused_by_both(text: str, lab: Lab, keys: InMemoryKeys) -> None:
    assert java_unwraps(lab, text, "one") == python_unwraps(text, "one", keys) == "ParquetKeyException"
