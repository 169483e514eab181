"""Arrow tables as an Arrow IPC stream, which keeps schema, chunks and metadata as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from sealbook.sealing.codecs.base import Codec, Payload, loaded, need


class ArrowCodec(Codec):
    """``pyarrow.Table``."""

    name: ClassVar[str] = "arrow"
    holds: ClassVar[str] = "Arrow tables"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102 - described in Codec
        pyarrow = loaded("pyarrow")
        return pyarrow is not None and isinstance(obj, pyarrow.Table)

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        ipc = need("pyarrow.ipc", extra="data")

        def write(file: BinaryIO) -> None:
            with ipc.new_stream(file, obj.schema) as writer:
                writer.write_table(obj)

        return Payload(write)

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: D102
        ipc = need("pyarrow.ipc", extra="data")
        with self.reading(), ipc.open_stream(file) as stream:
            table = stream.read_all()
            # Arrow trusts offsets in the file when it reads; a hostile one would point outside the buffers.
            table.validate(full=True)
            return table
