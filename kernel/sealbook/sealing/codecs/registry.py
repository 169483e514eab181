"""Which codec seals which object, and which one reads a sealed file."""

from __future__ import annotations

from typing import Any

from sealbook.errors import InputError
from sealbook.sealing.codecs.arrow import ArrowCodec
from sealbook.sealing.codecs.base import Codec
from sealbook.sealing.codecs.dataframe import DataFrameCodec
from sealbook.sealing.codecs.directory import DirectoryCodec
from sealbook.sealing.codecs.file import FileCodec
from sealbook.sealing.codecs.keras import KerasCodec
from sealbook.sealing.codecs.numpy import NumpyCodec
from sealbook.sealing.codecs.plain import BytesCodec, JsonCodec, TextCodec
from sealbook.sealing.codecs.sklearn import SklearnCodec
from sealbook.sealing.codecs.xgboost import XGBoostCodec

#: In the order in which they are asked: XGBoost's estimators are scikit-learn estimators too.
_CODECS: tuple[Codec, ...] = (
    DataFrameCodec(),
    ArrowCodec(),
    NumpyCodec(),
    KerasCodec(),
    XGBoostCodec(),
    SklearnCodec(),
    TextCodec(),
    BytesCodec(),
    JsonCodec(),
    DirectoryCodec(),
    FileCodec(),
)


def codec_for(obj: Any) -> Codec:
    """Return the codec that seals `obj`.

    Raises
    ------
    InputError
        There is none; the sentence names the ones there are.
    """
    for codec in _CODECS:
        if codec.can_seal(obj):
            return codec
    kind = f"{type(obj).__module__}.{type(obj).__qualname__}".removeprefix("builtins.")
    raise InputError(
        f"An object of type {kind} cannot be sealed, because sealbook never pickles; it seals "
        f"{', '.join(codec.holds for codec in _CODECS)}."
    )


def codec_named(name: str) -> Codec:
    """Return the codec that wrote a sealed file.

    Raises
    ------
    InputError
        For a name that this version of sealbook does not know.
    """
    for codec in _CODECS:
        if codec.name == name:
            return codec
    raise InputError(
        f"The file was sealed with the codec '{name}', which this sealbook does not know; update sealbook."
    )


def codec_names() -> tuple[str, ...]:
    """Return the names of all codecs."""
    return tuple(codec.name for codec in _CODECS)
