"""A one-dimensional object array in NumPy's npy format, written an object at a time.

NumPy pickles such an array as a whole: it takes the memory of all of its arrays twice, and makes three dimensions of
arrays of one shape. The pickle needs few opcodes, named here as in `pickletools`. They use names that every NumPy since
1.7 understands.
"""

from __future__ import annotations

import struct
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_BATCH = 1000  # objects that a reader collects before it appends them to the list, as pickle does
_NEW_ARRAY = b"h\x00h\x01K\x00\x85C\x01b\x87R"  # _reconstruct(ndarray, (0,), b"b"), with the memo entries 0 and 1


class ObjectArray:
    """An object array in progress."""

    def __init__(self, file: IO[bytes], n: int) -> None:
        """Begin an array of ``n`` objects."""
        self._file, self._n, self._written, self._dtypes = file, n, 0, dict[str, bytes]()
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (n,)})
        file.write(
            b"\x80\x04"
            b"cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85C\x01b\x87R"
            + b"(K\x01"
            + _whole(n)
            + b"\x85"
            + _dtype("O8", "|", alignment=63)
            + b"\x89]"
        )

    def none(self) -> None:
        """Add None."""
        self._add(b"N")

    def text(self, text: str) -> None:
        """Add a string."""
        data = text.encode("utf-8", "surrogatepass")
        self._add(b"X" + struct.pack("<I", len(data)) + data)

    def array(self, array: NDArray[Any]) -> None:
        """Add an array of numbers."""
        array = np.ascontiguousarray(array)
        length = (
            b"B" + struct.pack("<I", array.nbytes)
            if array.nbytes < 2**32
            else b"\x8e" + struct.pack("<Q", array.nbytes)
        )
        shape = b"(" + b"".join(map(_whole, array.shape)) + b"t"
        self._add(_NEW_ARRAY + b"(K\x01" + shape + self._known(array.dtype) + b"\x89" + length)
        self._file.write(array.data)
        self._file.write(b"tb")

    def close(self) -> None:
        """Write the end."""
        if self._written != self._n:
            raise ValueError(f"{self._written} objects were written, and the header says {self._n}")
        self._file.write((b"e" if self._n else b"") + b"tb.")

    def _add(self, data: bytes) -> None:
        if self._written % _BATCH == 0:
            self._file.write(b"(" if self._written == 0 else b"e(")
        self._file.write(data)
        self._written += 1

    def _known(self, dtype: np.dtype[Any]) -> bytes:
        if dtype.str not in self._dtypes:
            note = 2 + len(self._dtypes)
            self._dtypes[dtype.str] = b"h" + bytes([note])
            return _dtype(f"{dtype.kind}{dtype.itemsize}", dtype.str[0]) + b"q" + bytes([note])
        return self._dtypes[dtype.str]


def _whole(n: int) -> bytes:
    return b"J" + struct.pack("<i", n)


def _dtype(name: str, order: str, *, alignment: int = 0) -> bytes:
    made = b"cnumpy\ndtype\nX" + struct.pack("<I", len(name)) + name.encode() + b"\x89\x88\x87R"
    return made + b"(K\x03X\x01\x00\x00\x00" + order.encode() + b"NNN" + _whole(-1) * 2 + _whole(alignment) + b"tb"
