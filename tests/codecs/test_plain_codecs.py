"""Text, bytes and JSON come back exactly, or are refused with a sentence."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbook.errors import InputError
from sealbook.sealing.codecs import ContentError, codec_for, codec_named, codec_names


def round_trip(obj: Any) -> Any:
    codec = codec_for(obj)
    payload = codec.prepare(obj)
    file = io.BytesIO()
    payload.write(file)
    file.seek(0)
    return codec_named(codec.name).read(file, payload.metadata)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_values_come_back_with_the_same_types(value: Any) -> None:
    back = round_trip(value)
    assert back == value
    assert repr(back) == repr(value)


@given(st.text())
def test_text_comes_back(text: str) -> None:
    assert round_trip(text) == text


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_bytes_come_back_as_bytes(make: Any) -> None:
    assert round_trip(make(b"\x00\xff\r\n")) == b"\x00\xff\r\n"


def test_a_lone_surrogate_in_text_is_refused() -> None:
    with pytest.raises(InputError, match="lone surrogate at position 1"):
        round_trip("a\ud800")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({1: "a"}, "JSON has text keys only"),
        ({"a": (1, 2)}, r"would not return the tuple in \['a'\]"),
        ([math.nan], "JSON has no nan"),
        (math.inf, "JSON has no inf"),
        ([object()], "would not return the object"),
        ([10**5000], "not JSON"),
    ],
)
def test_what_json_would_change_is_refused(value: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        round_trip(value)


def test_json_that_is_nested_too_deep_is_refused_before_it_is_sealed() -> None:
    value: Any = []
    for _ in range(40):
        value = [value]
    with pytest.raises(InputError, match="nested deeper"):
        codec_for(value).prepare(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InputError, match="nested deeper"):
        codec_for(value).prepare(value)


@pytest.mark.parametrize(
    ("name", "content"), [("json", b'{"a":1,"a":2}'), ("json", b"NaN"), ("text", b"\xff")]
)
def test_malformed_content_is_refused_with_one_sentence(name: str, content: bytes) -> None:
    with pytest.raises((ContentError, InputError)) as caught:
        codec_named(name).read(io.BytesIO(content), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("obj", [{1, 2}, 1j, lambda: 0, io.BytesIO(), object()])
def test_an_object_without_a_codec_is_refused_with_a_sentence_that_names_the_codecs(obj: Any) -> None:
    with pytest.raises(InputError, match="never pickles") as caught:
        codec_for(obj)
    sentence = str(caught.value)
    for kind in (
        "DataFrames",
        "Arrow tables",
        "NumPy",
        "Keras",
        "scikit-learn",
        "XGBoost",
        "text",
        "directories",
    ):
        assert kind in sentence


def test_an_unknown_codec_name_asks_for_an_update() -> None:
    with pytest.raises(InputError, match="update sealbook"):
        codec_named("pickle")


def test_codec_names_are_the_ones_in_sealed_files() -> None:
    assert codec_names() == (
        "dataframe",
        "arrow",
        "numpy",
        "keras",
        "xgboost",
        "sklearn",
        "text",
        "bytes",
        "json",
        "directory",
        "file",
    )


def test_no_codec_loads_a_library_to_recognise_an_object(tmp_path: Any) -> None:
    import subprocess
    import sys

    program = (
        "import sys; from sealbook.sealing.codecs import codec_for;"
        "codec_for('text'); codec_for(b''); codec_for({});"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'keras', 'sklearn', 'xgboost', 'skops'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_no_codec_module_mentions_a_pickling_library() -> None:
    import ast
    from pathlib import Path

    import sealbook.sealing.codecs as package

    for module in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            )
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            assert not {name.partition(".")[0] for name in names} & {
                "pickle",
                "cloudpickle",
                "joblib",
                "dill",
                "marshal",
                "shelve",
            }, module
