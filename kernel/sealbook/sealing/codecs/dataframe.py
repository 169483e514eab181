"""pandas DataFrames and Series as Parquet, with index, dtypes and attributes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from sealbook.errors import InputError
from sealbook.sealing.codecs.base import Codec, Payload, loaded, need

#: What object columns may hold, in the words of ``pandas.api.types.infer_dtype``:
#: kinds for which Parquet has a type that comes back as the same Python objects.
_OBJECT_KINDS = {"string", "bytes", "decimal", "date", "time", "empty"}


class DataFrameCodec(Codec):
    """``pandas.DataFrame`` and ``pandas.Series``.

    The payload is an ordinary Parquet file, so that ``pd.read_parquet("sealed::path")``
    reads it too and fetches only the row groups and columns it needs.
    """

    name: ClassVar[str] = "dataframe"
    holds: ClassVar[str] = "pandas DataFrames and Series"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102 - described in Codec
        pandas = loaded("pandas")
        return pandas is not None and isinstance(obj, pandas.DataFrame | pandas.Series)

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        pandas = need("pandas", extra="data")
        parquet = need("pyarrow.parquet", extra="data")
        metadata: dict[str, Any] = {}
        frame = obj
        if isinstance(obj, pandas.Series):
            metadata = {"series": True, "named": obj.name is not None}
            frame = obj.to_frame()
            frame.attrs = dict(obj.attrs)
        if type(frame) is not pandas.DataFrame:
            raise InputError(
                f"A {type(obj).__name__} would come back as a plain DataFrame; seal pandas.DataFrame(it)."
            )
        table = self._table(frame)
        return Payload(lambda file: parquet.write_table(table, file), metadata)

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: D102
        pandas = need("pandas", extra="data")
        parquet = need("pyarrow.parquet", extra="data")
        with self.reading():
            frame = parquet.read_table(file).to_pandas()
            if not metadata.get("series"):
                return frame
            (column,) = frame.columns
            series = frame[column]
            if not metadata.get("named"):
                series.name = None
            return pandas.Series(series)

    def _table(self, frame: Any) -> Any:
        """Convert to Arrow and check on an empty slice that the way back gives the same frame."""
        pandas = need("pandas", extra="data")
        pyarrow = need("pyarrow", extra="data")
        self._refuse_objects(frame, pandas)
        try:
            json.dumps(frame.attrs, allow_nan=False)
        except (TypeError, ValueError):
            raise InputError("The DataFrame's .attrs are not JSON; remove them before sealing.") from None
        try:
            with warnings.catch_warnings(action="ignore"):
                table = pyarrow.Table.from_pandas(frame)
                back = table.slice(0, 0).to_pandas()
        except (pyarrow.ArrowException, ValueError, TypeError, NotImplementedError) as error:
            raise InputError(f"Parquet cannot hold this DataFrame ({_first_line(error)}).") from None
        if len(frame) and not table.num_columns:
            raise InputError("Parquet keeps no rows without columns; use .reset_index() first.")
        if not (back.columns.equals(frame.columns) and list(back.columns.names) == list(frame.columns.names)):
            raise InputError("Parquet would not keep these column names; rename the columns to text.")
        for position, name in enumerate(frame.columns):
            if back.dtypes.iloc[position] != frame.dtypes.iloc[position]:
                raise InputError(
                    f"The column {name!r} would come back as {back.dtypes.iloc[position]!r} instead of "
                    f"{frame.dtypes.iloc[position]!r}; convert it with .astype() first."
                )
        if not _keeps_index(frame, back, pandas):
            raise InputError("Parquet would not keep this DataFrame's index; use .reset_index() first.")
        return table

    @staticmethod
    def _refuse_objects(frame: Any, pandas: Any) -> None:
        levels = [frame.index.get_level_values(level) for level in range(frame.index.nlevels)]
        columns = [(f"column {name!r}", frame.iloc[:, at]) for at, name in enumerate(frame.columns)]
        for where, values in [*columns, *(("index", level) for level in levels)]:
            if values.dtype != object:
                continue
            kind = pandas.api.types.infer_dtype(values, skipna=True)
            if kind not in _OBJECT_KINDS:
                raise InputError(
                    f"The {where} holds Python objects ({kind}) that Parquet cannot return as they are; "
                    "convert it to text, numbers or dates with .astype() first."
                )


def _keeps_index(frame: Any, back: Any, pandas: Any) -> bool:
    """Compare the index of a frame with that of its restored empty slice."""
    if isinstance(frame.index, pandas.RangeIndex):
        # Kept as start, stop and step; it does not fit an empty slice and cannot be seen there.
        return frame.index.name is None or isinstance(frame.index.name, str)
    return list(back.index.names) == list(frame.index.names) and all(
        back.index.get_level_values(level).dtype == frame.index.get_level_values(level).dtype
        for level in range(frame.index.nlevels)
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
