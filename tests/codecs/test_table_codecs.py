"""DataFrames, Series, Arrow tables and arrays come back with index, dtypes and values."""

from __future__ import annotations

import datetime as dt
import decimal
import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from sealbook.errors import InputError
from sealbook.sealing.codecs import ContentError, codec_for, codec_named


def sealed_bytes(obj: Any) -> tuple[str, bytes, dict[str, Any]]:
    codec = codec_for(obj)
    payload = codec.prepare(obj)
    file = io.BytesIO()
    payload.write(file)
    return codec.name, file.getvalue(), payload.metadata


def round_trip(obj: Any) -> Any:
    name, content, metadata = sealed_bytes(obj)
    return codec_named(name).read(io.BytesIO(content), metadata)


FRAMES = {
    "plain": pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan], "c": ["x", None]}),
    "empty": pd.DataFrame({"a": pd.Series([], dtype="int8")}),
    "nothing": pd.DataFrame(),
    "range index with a step": pd.DataFrame({"a": [1, 2, 3]}, index=pd.RangeIndex(10, 16, 2, name="n")),
    "text index": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="key")),
    "multi index": pd.DataFrame(
        {"a": [1, 2]}, index=pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["k", "n"])
    ),
    "integer columns": pd.DataFrame(np.arange(6).reshape(2, 3)),
    "multi columns": pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")], names=["u", "v"])
    ),
    "small dtypes": pd.DataFrame({"i": np.array([1], "int8"), "f": np.array([1], "float32"), "b": [True]}),
    "categorical": pd.DataFrame(
        {"c": pd.Categorical(["a", "b", "a"], categories=["b", "a", "z"], ordered=True)}
    ),
    "times": pd.DataFrame(
        {
            "t": pd.to_datetime(["2026-01-01", None]),
            "z": pd.to_datetime(["2026-01-01", "2026-02-01"], utc=True).tz_convert("Europe/Berlin"),
            "d": pd.to_timedelta([1, 2], unit="s"),
        }
    ),
    "nullable": pd.DataFrame({"i": pd.array([1, None], "Int64"), "s": pd.array(["a", None], "string")}),
    "objects that Parquet has": pd.DataFrame(
        {"d": [dt.date(2026, 1, 1), None], "n": [decimal.Decimal("1.10"), None], "b": [b"\x00", b""]}
    ),
    "period": pd.DataFrame({"p": pd.period_range("2026-01", periods=2, freq="M")}),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_dataframe_comes_back_as_it_was(kind: str) -> None:
    pd.testing.assert_frame_equal(round_trip(FRAMES[kind]), FRAMES[kind], check_freq=False)


def test_dataframe_attributes_come_back() -> None:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"source": "clinic 3"}
    assert round_trip(frame).attrs == {"source": "clinic 3"}


@pytest.mark.parametrize("name", ["target", None, 0, ("a", 1)])
def test_a_series_comes_back_as_a_series_with_its_name(name: Any) -> None:
    series = pd.Series([1.5, 2.5], name=name, index=pd.Index(["x", "y"]))
    pd.testing.assert_series_equal(round_trip(series), series)


def test_a_sealed_dataframe_is_an_ordinary_parquet_file() -> None:
    _, content, _ = sealed_bytes(FRAMES["plain"])
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(content)), FRAMES["plain"])


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (pd.DataFrame({"a": [object()]}), "column 'a' holds Python objects"),
        (pd.DataFrame({"a": [1, "x"]}), "column 'a' holds Python objects"),
        (pd.DataFrame({"a": [[1], [2]]}), "column 'a' holds Python objects"),
        (pd.DataFrame({"a": [{"x": 1}, {"y": 1}]}), "column 'a' holds Python objects"),
        (pd.DataFrame({"a": pd.Series([1, 2], dtype=object)}), "column 'a' holds Python objects"),
        (pd.DataFrame({"a": pd.Series([True, False], dtype=object)}), "column 'a' holds Python objects"),
        (pd.DataFrame({"a": [1]}, index=[(object(),)]), "index holds Python objects"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Parquet cannot hold"),
        (pd.DataFrame([[1, 2]], columns=["a", 1]), "column names"),
        (pd.DataFrame({"a": np.array([1 + 2j])}), "Parquet cannot hold"),
        (pd.DataFrame(index=pd.RangeIndex(3)), "no rows without columns"),
        (pd.DataFrame({"a": [1]}, index=pd.Index([1], name=0)), "index"),
        (pd.DataFrame({"a": [1]}, index=pd.RangeIndex(1, name=0)), "index"),
        (pd.DataFrame({"a": [1]}, index=pd.Index(["x"], dtype="string")), "index"),
        (pd.DataFrame({"a": pd.array(["x"], "string[pyarrow]")}), "column 'a' would come back as"),
    ],
)
def test_a_dataframe_that_parquet_would_change_is_refused(frame: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        codec_for(frame).prepare(frame)
    assert "\n" not in str(caught.value)


def test_attributes_that_are_not_json_are_refused() -> None:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"x": object()}
    with pytest.raises(InputError, match=r"\.attrs"):
        codec_for(frame).prepare(frame)


def test_a_subclass_of_dataframe_is_refused() -> None:
    class Special(pd.DataFrame):
        pass

    special = Special({"a": [1]})
    with pytest.raises(InputError, match="plain DataFrame"):
        codec_for(special).prepare(special)


def test_metadata_of_a_dataframe_says_nothing_of_its_content() -> None:
    _, _, metadata = sealed_bytes(pd.Series([1], name="diagnosis"))
    assert "diagnosis" not in str(metadata)
    assert sealed_bytes(FRAMES["plain"])[2] == {}


def test_an_arrow_table_comes_back_with_schema_metadata_and_nested_types() -> None:
    schema = pa.schema(
        [
            pa.field("l", pa.list_(pa.int8()), metadata={"unit": "m"}),
            ("d", pa.dictionary(pa.int8(), pa.string())),
        ],
        metadata={"k": "v"},
    )
    table = pa.table(
        {"l": pa.array([[1, None], None], pa.list_(pa.int8())), "d": pa.array(["x", "x"]).dictionary_encode()}
    ).cast(schema)
    back = round_trip(table)
    assert back.equals(table, check_metadata=True)


def test_an_arrow_stream_with_offsets_outside_its_buffers_is_refused() -> None:
    _, honest, _ = sealed_bytes(pa.table({"a": pa.array(["aaaa", "bbbb"])}))
    offsets = np.array([0, 4, 8], "int32").tobytes()
    assert honest.count(offsets) == 1
    content = honest.replace(offsets, np.array([0, 4, 1_000_000], "int32").tobytes())
    with pytest.raises(ContentError, match="holds no readable 'arrow' content"):
        codec_named("arrow").read(io.BytesIO(content), {})


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        dtype=hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes(),
        shape=hnp.array_shapes(min_dims=0, max_side=4, min_side=0),
    )
)
def test_an_array_comes_back_bit_for_bit(array: np.ndarray[Any, Any]) -> None:
    back = round_trip(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12).reshape(3, 4)[:, ::2],
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["2026-01-01"], "datetime64[ns]"),
    ],
    ids=["fortran", "strided", "structured", "datetime"],
)
def test_an_array_of_any_layout_comes_back(array: np.ndarray[Any, Any]) -> None:
    back = round_trip(array)
    assert back.dtype == array.dtype
    assert (back == array).all()


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.array([object()]), "holds Python objects"),
        (np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")]), "holds Python objects"),
        (np.array(["a"], dtype=np.dtypes.StringDType()), "holds Python objects"),
        (np.ma.array([1, 2], mask=[True, False]), "MaskedArray would come back"),
        (np.rec.array([(1,)], dtype=[("a", "i4")]), "would come back as a plain array"),
        (np.zeros(1, dtype=[(f"field{i}", "i4") for i in range(1000)]), "more fields"),
    ],
    ids=["object", "object field", "strings of any length", "masked", "record", "many fields"],
)
def test_an_array_that_would_be_pickled_or_changed_is_refused(array: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        codec_for(array).prepare(array)


def test_an_array_file_with_a_pickle_inside_is_refused_without_running_it() -> None:

    class Trap:
        def __reduce__(self) -> Any:
            return (_spring, (1,))

    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([Trap()], dtype=object), allow_pickle=True)
    _SPRUNG.clear()
    with pytest.raises(ContentError):
        codec_named("numpy").read(io.BytesIO(file.getvalue()), {})
    assert _SPRUNG == []


_SPRUNG: list[int] = []


def _spring(value: int) -> None:
    _SPRUNG.append(value)


def test_a_bare_pickle_is_not_an_array() -> None:
    import pickle

    with pytest.raises(ContentError):
        codec_named("numpy").read(io.BytesIO(pickle.dumps([1])), {})


def test_bytes_after_an_array_are_refused() -> None:
    _, content, _ = sealed_bytes(np.arange(3))
    with pytest.raises(ContentError):
        codec_named("numpy").read(io.BytesIO(content + b"x"), {})


@pytest.mark.parametrize("name", ["dataframe", "arrow", "numpy"])
def test_malformed_tables_are_refused_with_one_sentence(name: str) -> None:
    with pytest.raises(ContentError, match="authentic but holds no readable") as caught:
        codec_named(name).read(io.BytesIO(b"PAR1 nonsense PAR1"), {})
    assert "\n" not in str(caught.value)
