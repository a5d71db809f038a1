"""Arrays of Arrow without pandas: the same as ``pa.array`` makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from featurestore.arrow_arrays import arrow_array, arrow_column, numpy_array
from featurestore.rows import Status


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.string(), ["a", None, "", "é\n日本"]),
        (pa.string(), [Status.OK, "ok", None]),
        (pa.string(), [None, None]),
        (pa.int8(), [-128, None, 127]),
        (pa.int32(), [2**31 - 1, None]),
        (pa.int64(), [-(2**63), 2**63 - 1, None, 0, 1, 2, 3, 4, 5]),
        (pa.float32(), [0.1, None, float("nan"), float("inf"), 3]),
        (pa.float64(), [0.1, None, -0.0]),
        (pa.int64(), [np.int32(3), 4]),
        (pa.bool_(), [True, None, False]),
        (pa.list_(pa.uint32()), [[1, 2], None, []]),
        (pa.list_(pa.float32()), [np.ones(2, np.float32), None, np.empty(0, np.float32)]),
        (pa.list_(pa.float32()), [np.ones(2), None]),
        *((kind, []) for kind in (pa.string(), pa.int32(), pa.float32())),
    ],
)
def test_a_column_is_what_arrow_makes_of_the_values(kind: pa.DataType, values: list[Any]) -> None:
    made, expected = arrow_column(values, kind), pa.array(values, kind)
    made.validate(full=True)
    assert (made.type, str(made), made.null_count) == (kind, str(expected), expected.null_count)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.int8(), 300),
        (pa.int32(), 2**31),
        (pa.int32(), "3"),
        (pa.int32(), [3]),
        (pa.string(), 3),
        (pa.int8(), np.int64(300)),
    ],
)
def test_what_arrow_refuses_is_refused(kind: pa.DataType, value: Any) -> None:
    with pytest.raises(pa.ArrowException) as expected:
        pa.array([value], kind)
    with pytest.raises(type(expected.value)):
        arrow_column([value], kind)


@pytest.mark.parametrize("values", [np.arange(6, dtype=np.int32), np.arange(12.0)[::2], np.empty(0, np.uint8)])
def test_numbers_pass_both_ways(values: Any) -> None:
    array = arrow_array(values)
    assert array.equals(pa.array(values))
    column = pa.chunked_array([array, array[1:3]])
    assert np.array_equal(numpy_array(column), [*values, *values[1:3]])
    assert numpy_array(column).dtype == values.dtype == numpy_array(pa.chunked_array([], array.type)).dtype
