"""Scans: reading the rows of a selection, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.arrow_arrays import arrow_array, numpy_array
from featurestore.errors import CorruptFile
from featurestore.query.selection import PENDING, Piece, Selection, open_partition
from featurestore.rows import Layout, Row
from featurestore.storage import PartitionFile


@dataclass(frozen=True)
class Group:
    """The chosen images in one row group: its ``rows`` are rows ``start`` to ``stop`` of the selection."""

    index: int
    rows: NDArray[np.int64]
    start: int
    stop: int
    whole: bool  # the row group holds no other images


def groups_of(selection: Selection, piece: Piece, sizes: Sequence[int]) -> Iterator[Group]:
    """Yield the row groups of a piece's partition that hold chosen images.

    Args:
        selection: that the piece belongs to.
        piece: with a partition.
        sizes: the number of rows of each row group.
    """
    ids = selection.image_ids[piece.start : piece.stop]
    borders = np.cumsum([0, *sizes])
    positions = ids - piece.first_image_id  # a chunk's image_ids are dense, and its rows in their order
    cuts = np.searchsorted(positions, borders)
    for index in np.flatnonzero(np.diff(cuts)).tolist():
        rows = positions[cuts[index] : cuts[index + 1]] - borders[index]
        start = piece.start + int(cuts[index])
        yield Group(index, rows, start, start + len(rows), len(rows) == sizes[index])


def iter_tables(selection: Selection, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the chosen images' rows, a row group at a time, in ``image_id`` order.

    Args:
        selection: from `select`.
        columns: of the partitions, or of the selection's ``images``.

    Raises:
        CorruptFile: a partition is damaged.
        StoreBusy: a partition was replaced by a run in the meantime.
    """
    schema = selection.schema(columns)
    stored = [name for name in columns if name not in selection.images.column_names]
    for piece in selection.pieces:
        if piece.path is None:
            yield _pending(selection, piece, schema)
            continue
        with open_partition(piece.path) as file:
            for group in groups_of(selection, piece, file.row_group_sizes()):
                table = read_group(file, selection, group, stored)
                images = selection.images.slice(group.start, group.stop - group.start)
                arrays = [table[name] if name in stored else images[name] for name in columns]
                yield pa.table(arrays, schema=schema)


def read_group(file: PartitionFile, selection: Selection, group: Group, columns: Sequence[str]) -> pa.Table:
    """Return columns of the chosen rows of one row group, ``image_id`` first.

    Raises:
        CorruptFile: the row group is damaged, or holds other images than the catalog says.
    """
    table = file.table(group.index, list(dict.fromkeys(["image_id", *columns])))
    first, last = int(group.rows[0]), int(group.rows[-1])
    if last - first + 1 == len(group.rows):
        table = table.slice(first, len(group.rows))
    else:
        table = table.take(arrow_array(np.asarray(group.rows, np.int64)))
    if not np.array_equal(numpy_array(table["image_id"]), selection.image_ids[group.start : group.stop]):
        raise CorruptFile(f"{file.path.name} does not hold the images that the catalog says; put back a copy of it")
    return table


def _pending(selection: Selection, piece: Piece, schema: pa.Schema) -> pa.Table:
    images = selection.images.slice(piece.start, piece.stop - piece.start)
    constant = {"status": PENDING, "error": piece.why, "n_descriptors": 0}
    arrays = [
        images[field.name]
        if field.name in images.column_names
        else pa.array([constant.get(field.name)] * len(images), field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def iter_rows(selection: Selection, *, keypoints: bool = False) -> Iterator[Row]:
    """Yield one `Row` per chosen image, in ``image_id`` order; one without a partition is ``pending``.

    Raises:
        CorruptFile: a partition is damaged.
        StoreBusy: a partition was replaced by a run in the meantime.
    """
    filenames = selection.images["filename"]
    for piece in selection.pieces:
        if piece.path is None:
            for i in range(piece.start, piece.stop):
                yield Row(int(selection.image_ids[i]), filenames[i].as_py(), PENDING, piece.why)
            continue
        with open_partition(piece.path) as file:
            layout = file.layout if keypoints else Layout(file.layout.dim, file.layout.dtype, False, file.layout.extra)
            for group in groups_of(selection, piece, file.row_group_sizes()):
                yield from file.rows_of(read_group(file, selection, group, layout.schema().names))
