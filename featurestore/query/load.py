"""Loading: an Arrow table with one row per image, batches of it, or one contiguous matrix."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.arrow_arrays import numpy_array
from featurestore.catalog import Context, descriptor_numbers
from featurestore.errors import CorruptFile, NotReady, QueryError
from featurestore.query.names import column_names
from featurestore.query.scan import Group, groups_of, iter_tables, read_group
from featurestore.query.selection import Piece, Selection, open_partition, with_columns
from featurestore.rows import KEYPOINT_COLUMNS, Layout, blob_bytes
from featurestore.storage import PartitionFile, Place
from featurestore.system import refuse_if_too_large

COLUMNS = ("image_id", "filename", "subset", "status", "n_descriptors", "descriptors")
THREADS = 4  # decompression is most of the work; more threads would only wait for the disk


class Matrix(NamedTuple):
    """The descriptors of many images: those of ``image_ids[i]`` are ``codes[offsets[i]:offsets[i + 1]]``.

    ``codes`` is ``(N, dim)`` of the stage's dtype, contiguous; ``offsets`` is ``(n_images + 1,)`` int64; ``image_ids``
    is ``(n_images,)`` int64, ascending. An image without descriptors has an empty range.
    """

    codes: NDArray[Any]
    offsets: NDArray[np.int64]
    image_ids: NDArray[np.int64]


def choose_columns(
    context: Context, selection: Selection, columns: Iterable[str] | None, *, keypoints: bool
) -> tuple[Selection, list[str]]:
    """Return a selection with the requested columns, and their names; arguments as in `Images.load`.

    Raises:
        QueryError: there is no such column, or a keypoint's name is one.
        NotReady: the stage keeps no keypoints.
        StoreBusy: an ingest has removed images or a column since they were chosen.
    """
    names = column_names(COLUMNS if columns is None else columns)
    selection = with_columns(context, selection, names)
    if not keypoints:
        return selection, names
    if not selection.layout.keypoints:
        raise NotReady(
            f"variant {selection.variant} of {selection.stage} keeps no keypoints; load those of another stage"
        )
    clashes = [name for name in KEYPOINT_COLUMNS if name in selection.images.column_names]
    if clashes:
        raise QueryError(
            f"{clashes[0]!r} is a column of the dataset and one of the keypoints; ask for one of them at a time"
        )
    return selection, list(dict.fromkeys([*names, *KEYPOINT_COLUMNS]))


def load_table(selection: Selection, columns: Sequence[str]) -> pa.Table:
    """Return one row per chosen image, in ``image_id`` order."""
    tables = list(iter_tables(selection, columns))
    return pa.concat_tables(tables) if tables else selection.schema(columns).empty_table()


def batches(selection: Selection, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of `load_table` in tables of ``rows`` rows; the last has what is left.

    At most ``rows`` rows and one row group are in memory.
    """
    held: list[pa.Table] = []
    for table in iter_tables(selection, columns):
        held.append(table)
        while sum(map(len, held)) >= rows:
            joined = pa.concat_tables(held)
            yield joined.slice(0, rows)
            held = [joined.slice(rows)] if len(joined) > rows else []
    if held:
        yield pa.concat_tables(held)


def matrix(context: Context, selection: Selection) -> Matrix:
    """Return the descriptors of all chosen images as one array.

    Raises:
        NotEnoughSpace: it does not fit into memory.
        CorruptFile: a partition is damaged, or not what the catalog says.
    """
    counts = descriptor_counts(context, selection)
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    dtype = np.dtype(selection.layout.dtype).newbyteorder("<")
    width = selection.layout.dim * dtype.itemsize
    refuse_if_too_large(
        f"{int(offsets[-1]):,} descriptors of {selection.stage}",
        int(offsets[-1]) * width,
        instead="read them in parts with iter_batches, or export them as npy and map that into memory",
    )
    codes = np.empty((int(offsets[-1]), selection.layout.dim), dtype)
    filler = _Filler(selection, codes.reshape(-1).view(np.uint8), offsets * width)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(filler.fill, [piece for piece in selection.pieces if piece.path is not None]):
            pass  # raise what a thread raised
    return Matrix(codes, offsets, selection.image_ids)


def descriptor_counts(context: Context, selection: Selection) -> NDArray[np.int64]:
    """Return the number of descriptors of each chosen image, 0 for one that is pending, from the catalog alone."""
    with context.catalog.reading() as connection:
        found = descriptor_numbers(connection, selection.stage, selection.variant)
    known, numbers = numpy_array(found["image_id"]), numpy_array(found["n_descriptors"])
    counts = np.zeros(len(selection.images), np.int64)
    if len(known):
        places = np.minimum(np.searchsorted(known, selection.image_ids), len(known) - 1)
        counts = np.where(known[places] == selection.image_ids, numbers[places], 0).astype(np.int64)
    for piece in selection.pieces:
        if piece.path is None:
            counts[piece.start : piece.stop] = 0
    return counts


class _Filler:
    """Copies BLOBs to their places in one flat array: page by page, or else from the decompressed row group."""

    def __init__(self, selection: Selection, flat: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        """Take the array and where each image begins in it, in bytes."""
        self._selection, self._flat, self._starts = selection, flat, starts
        self._width = selection.layout.dim * np.dtype(selection.layout.dtype).itemsize

    def fill(self, piece: Piece) -> None:
        """Copy one chunk's descriptors."""
        assert piece.path is not None
        with open_partition(piece.path) as file:
            if file.is_local:  # elsewhere this would double the requests, and `_copy_group` compares the BLOBs
                self._check(piece, file)
            for group in groups_of(self._selection, piece, file.row_group_sizes()):
                starts = self._starts[group.start : group.stop + 1]
                targets = [self._flat[a:b] for a, b in pairwise(starts.tolist())]
                if not file.copy_descriptors(group.index, group.rows.tolist(), targets):
                    self._copy_group(file, group, starts)

    def _check(self, piece: Piece, file: PartitionFile) -> None:
        """Check that a partition has the chosen images, and as many descriptors as the catalog says."""
        small = file.columns(["image_id", "n_descriptors"])
        ids = self._selection.image_ids[piece.start : piece.stop]
        rows = ids - piece.first_image_id  # a chunk's image_ids are dense, and its rows in their order
        whole = len(small) > rows[-1] and not any(column.null_count for column in small.columns)
        if not whole or not np.array_equal(numpy_array(small["image_id"])[rows], ids):
            raise CorruptFile(f"{file.path.name} does not hold the images that the catalog says; put back a copy of it")
        counts = numpy_array(small["n_descriptors"])[rows].astype(np.int64)
        _compare(file.path, np.diff(self._starts[piece.start : piece.stop + 1]), counts * self._width)

    def _copy_group(self, file: PartitionFile, group: Group, starts: NDArray[np.int64]) -> None:
        at = 0
        for blobs in read_group(file, self._selection, group, ["descriptors"])["descriptors"].chunks:
            ends, values = blob_bytes(blobs)
            expected = starts[at : at + len(blobs) + 1]
            _compare(file.path, np.diff(expected), np.diff(ends))
            self._flat[expected[0] : expected[-1]] = values
            at += len(blobs)


def _compare(path: Place, expected: NDArray[np.int64], found: NDArray[np.int64]) -> None:
    if not np.array_equal(expected, found):
        raise CorruptFile(f"{path.name} does not hold as many descriptors as the catalog says; put back a copy of it")


def arrays(table: pa.Table) -> list[NDArray[Any] | None]:
    """Return the descriptors of each row of a loaded table as an ``(n, dim)`` array, without a copy; None for none.

    Raises:
        QueryError: it has no column ``descriptors``, or does not come from `load_table`.
    """
    metadata = table.schema.metadata or {}
    if "descriptors" not in table.column_names or b"dim" not in metadata:
        raise QueryError("arrays takes a table from load or iter_batches that has the column descriptors")
    layout = Layout(dim=int(metadata[b"dim"]), dtype=metadata[b"dtype"].decode())
    return layout.matrices(table["descriptors"])
