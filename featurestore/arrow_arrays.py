"""Between Arrow and NumPy without pandas, which ``pa.array`` and ``to_numpy`` import: half a second a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_INTEGERS = {pa.int8(): np.int8, pa.int32(): np.int32, pa.int64(): np.int64}
_FLOATS = {pa.float32(): np.float32, pa.float64(): np.float64}


def arrow_array(values: NDArray[Any]) -> pa.Array:
    """Return an array as Arrow, without a copy."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def arrow_column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return Python's values as Arrow; None is NULL. Strings, numbers and arrays of them do without ``pa.array``.

    Raises:
        ValueError: a value does not fit the type, or the strings have 2 GiB or more.
    """
    given = {type(value) for value in values} - {type(None)}
    if kind == pa.string() and all(issubclass(each, str) for each in given):
        texts = [None if value is None else value.encode() for value in values]
        validity, offsets = validity_and_offsets([None if text is None else len(text) for text in texts])
        data = pa.py_buffer(b"".join(text for text in texts if text))
        return pa.Array.from_buffers(kind, len(texts), [validity, offsets, data])
    if pa.types.is_list(kind) and given == {np.ndarray}:
        parts = [value for value in values if value is not None]
        if all(part.ndim == 1 and pa.from_numpy_dtype(part.dtype) == kind.value_type for part in parts):
            return arrow_lists(np.concatenate(parts), [None if value is None else len(value) for value in values], kind)
    whole = all(issubclass(each, (int, np.integer)) and each is not bool for each in given)
    dtype: Any = _INTEGERS.get(kind) if whole else None
    if whole or all(issubclass(each, (float, np.floating)) for each in given):
        dtype = dtype or _FLOATS.get(kind)
    if dtype is None:
        return pa.array(values, kind)
    try:
        numbers = np.array([0 if value is None else value for value in values], dtype)
    except OverflowError:
        return pa.array(values, kind)  # which says so
    validity = validity_of([value is not None for value in values])
    return pa.Array.from_buffers(kind, len(numbers), [validity, pa.py_buffer(numbers)])


def arrow_lists(values: NDArray[Any], lengths: Sequence[int | None], kind: pa.DataType) -> pa.Array:
    """Return values as lists of these lengths, of type ``kind``; None is a NULL list.

    Raises:
        ValueError: they are 2 GiB or more, and Arrow's offsets are int32.
    """
    buffers = list(validity_and_offsets(lengths))
    return pa.Array.from_buffers(kind, len(lengths), buffers, children=[arrow_array(values)])


def numpy_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column of numbers without nulls as one array, read-only if it shares the column's memory."""
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks if len(chunk)]
    return chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, column.type.to_pandas_dtype()), *chunks])


def validity_and_offsets(lengths: Sequence[int | None]) -> tuple[pa.Buffer, pa.Buffer]:
    """Return Arrow's validity and offset buffers for consecutive values of these lengths; None is NULL.

    Raises:
        ValueError: they are 2 GiB or more, and Arrow's offsets are int32.
    """
    offsets = np.cumsum([0, *(length or 0 for length in lengths)])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{offsets[-1]} values in one row group")
    return validity_of([length is not None for length in lengths]), pa.py_buffer(offsets.astype(np.int32))


def validity_of(valid: Sequence[bool]) -> pa.Buffer:
    """Return Arrow's validity buffer, a bit a value."""
    return pa.py_buffer(np.packbits(np.array(valid, bool), bitorder="little"))
