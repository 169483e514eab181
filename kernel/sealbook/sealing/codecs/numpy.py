"""NumPy arrays in NumPy's own ``.npy`` format, with pickling switched off both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from sealbook.errors import InputError
from sealbook.sealing.codecs.base import Codec, Payload, loaded, need

#: Characters of the .npy header (a Python literal that is parsed); NumPy's own default is 10,000.
_MAX_HEADER = 10_000


class NumpyCodec(Codec):
    """``numpy.ndarray`` of any dtype that is plain memory."""

    name: ClassVar[str] = "numpy"
    holds: ClassVar[str] = "NumPy arrays"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102 - described in Codec
        numpy = loaded("numpy")
        return numpy is not None and isinstance(obj, numpy.ndarray)

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        numpy = need("numpy", extra="data")
        if type(obj) not in (numpy.ndarray, numpy.memmap):
            raise InputError(
                f"A NumPy {type(obj).__name__} would come back as a plain array and lose what it adds; "
                "seal numpy.asarray(it), and its mask or names separately."
            )
        if obj.dtype.hasobject:
            raise InputError(
                f"An array of dtype {obj.dtype} holds Python objects, which would have to be pickled; "
                "convert it with .astype() to numbers or fixed-width text, or seal a DataFrame."
            )
        if len(repr(obj.dtype.descr)) > _MAX_HEADER - 256:
            raise InputError("The array has more fields than .npy holds; seal it as an Arrow table.")
        return Payload(lambda file: numpy.lib.format.write_array(file, obj, allow_pickle=False))

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: D102
        numpy = need("numpy", extra="data")
        with self.reading():
            # Not numpy.load: it would also open the zip archives and pickles it recognises.
            array = numpy.lib.format.read_array(file, allow_pickle=False, max_header_size=_MAX_HEADER)
            if file.read(1):
                raise ValueError("bytes after the array")
            return array
