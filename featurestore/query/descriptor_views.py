"""Descriptors in SQL: functions that turn a BLOB into arrays, and views with one row per descriptor.

DuckDB can't read numbers from a BLOB. In plain SQL, by way of ``hex``, it takes 45 times as long for bytes and is not
possible for floats; a function over Arrow passes the bytes on without a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from featurestore.arrow_arrays import arrow_array
from featurestore.rows import KEYPOINT, KEYPOINT_COLUMNS, Layout, unpack_blobs

if TYPE_CHECKING:
    import duckdb

SQL_TYPES = {"uint8": "UTINYINT", "float32": "FLOAT", "int32": "INTEGER"}


def vectors(blobs: pa.Array | pa.ChunkedArray, layout: Layout) -> pa.Array:
    """Return BLOBs of a file as lists of arrays of ``layout.dim`` values, without a copy of values that are not packed.

    Raises:
        ValueError: a BLOB is not a whole number of descriptors.
    """
    joined = blobs.combine_chunks() if isinstance(blobs, pa.ChunkedArray) else blobs
    joined = unpack_blobs(joined, layout.dim) if layout.packed else joined
    kind = np.int64 if pa.types.is_large_binary(joined.type) else np.int32
    _, offsets, values = joined.buffers()
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    width = layout.dim * dtype.itemsize
    ends = np.frombuffer(offsets, kind)[joined.offset : joined.offset + len(joined) + 1] if len(joined) else [0]
    places = np.asarray(ends, np.int64) - ends[0]
    if (places % width).any():
        raise ValueError(f"a BLOB that is not a whole number of {layout.dim} {layout.dtype} values each")
    data = np.frombuffer(values or b"", np.uint8)[ends[0] : ends[-1]].view(dtype)
    arrays = pa.FixedSizeListArray.from_arrays(arrow_array(data), layout.dim)
    return pa.ListArray.from_arrays(arrow_array((places // width).astype(np.int32)), arrays)


def make_function(connection: duckdb.DuckDBPyConnection, view: str, layout: Layout) -> None:
    """Create the function ``<view>_vectors(blob)``: ``UTINYINT[dim][]`` or ``FLOAT[dim][]``, NULL for NULL."""
    from duckdb.func import ARROW

    def function(blobs: pa.Array) -> pa.Array:
        return vectors(blobs, layout)

    returns = f"{SQL_TYPES[layout.dtype]}[{layout.dim}][]"
    connection.create_function(f"{view}_vectors", function, ["BLOB"], returns, type=ARROW)


def make_descriptor_view(connection: duckdb.DuckDBPyConnection, view: str, layout: Layout) -> None:
    """Create the view ``<view>_descriptors``: one row per descriptor, with its keypoint.

    ``descriptor`` is ``FLOAT[dim]`` whatever is stored, since ``array_distance`` and similar functions require it.

    Only ``range(n_descriptors)`` is unnested, and values are taken from lists by position, so that DuckDB reads only
    the columns that a query uses; it reads every list that is unnested. The innermost query makes a list of each
    BLOB, once, before its rows are multiplied.
    """
    kinds = {name: SQL_TYPES[KEYPOINT[name].name] for name in KEYPOINT_COLUMNS}
    stored = {name: name if layout.keypoints else f"NULL::{kind}[]" for name, kind in kinds.items()}
    connection.execute(
        f"""CREATE TEMP VIEW {view}_descriptors AS
            SELECT image_id, filename, CAST(position AS INTEGER) AS position,
                   CAST(descriptor_list[position + 1] AS FLOAT[{layout.dim}]) AS descriptor,
                   {", ".join(f"{name}_list[position + 1] AS {name}" for name in KEYPOINT_COLUMNS)}
            FROM (SELECT * EXCLUDE (n_descriptors), unnest(range(n_descriptors)) AS position
                  FROM (SELECT image_id, filename, n_descriptors, {view}_vectors(descriptors) AS descriptor_list,
                               {", ".join(f"{value} AS {name}_list" for name, value in stored.items())} FROM {view}))"""
    )
