"""The entries of an index: words, signatures and keypoints of a chunk's descriptors, from its partitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.arrow_arrays import numpy_array
from featurestore.errors import CorruptFile
from featurestore.query.selection import open_partition
from featurestore.retrieval import pack
from featurestore.rows import blob_bytes
from featurestore.stages import TransformStage
from featurestore.storage import PartitionFile, Place

PLACES = ("x", "y", "size", "angle")


@dataclass(frozen=True)
class Entries:
    """The descriptors of a chunk, image after image.

    Args:
        image_ids: ``(m,)`` int64, the images that have any, ascending.
        counts: ``(m,)`` int64, descriptors of each.
        words: ``(n,)`` uint32.
        signatures: ``(n, 8)`` uint8.
        places: ``(n,)`` int64, the packed keypoints; of size 0 if codes were stored or imported without.
        extents: ``(m, 2)`` float32, the largest x and y of each image.
    """

    image_ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    words: NDArray[np.uint32]
    signatures: NDArray[np.uint8]
    places: NDArray[np.int64]
    extents: NDArray[np.float32]


def read_chunk(codes: Place, words: Place | None, stage: TransformStage, model: Mapping[str, NDArray[Any]]) -> Entries:
    """Return the entries of a chunk.

    Args:
        codes: the partition of its codes.
        words: that of its words; None if they have to be computed.
        stage: that computes words.
        model: of the stage.

    Raises:
        CorruptFile: a partition is damaged, or the two do not belong together.
        StoreBusy: a run has replaced a partition in the meantime.
    """
    with open_partition(codes) as file:
        if words is None:
            ids, counts, of, bits = _computed(file, stage, model)
        else:
            with open_partition(words) as other:
                ids, counts, of, bits = _stored(other)
        places, extents = _packed(file, ids, counts)
    return Entries(ids, counts, of, bits, places, extents)


Words = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint8]]


def _stored(file: PartitionFile) -> Words:
    table = file.columns(["image_id", "n_descriptors", "descriptors", "word"])
    counts = numpy_array(table["n_descriptors"]).astype(np.int64)
    words = np.concatenate([np.empty(0, np.uint32), *(_flat(one) for one in table["word"].chunks)])
    bits = np.concatenate([np.empty(0, np.uint8), *(blob_bytes(one)[1] for one in table["descriptors"].chunks)])
    if not counts.sum() == len(words) == len(bits) / 8:
        raise CorruptFile(f"{file.path.name} has another number of words than it says; put back a copy of it")
    some = counts > 0
    return numpy_array(table["image_id"])[some], counts[some], words, bits.reshape(-1, 8)


def _computed(file: PartitionFile, stage: TransformStage, model: Mapping[str, NDArray[Any]]) -> Words:
    rows = [row for row in file.rows(without=PLACES) if row.n_descriptors]
    made = [stage.apply(row, dict(model)) for row in rows]
    words = [np.asarray(row.extra["word"], np.uint32) for row in made]
    bits = [row.descriptors for row in made if row.descriptors is not None]
    return (
        np.array([row.image_id for row in rows], np.int64),
        np.array([row.n_descriptors for row in rows], np.int64),
        np.concatenate([np.empty(0, np.uint32), *words]),
        np.concatenate([np.empty((0, 8), np.uint8), *bits]),
    )


def _packed(
    file: PartitionFile, ids: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    n = int(counts.sum())
    if not file.layout.keypoints:
        return np.zeros(n, np.int64), np.ones((len(ids), 2), np.float32)
    table = file.columns(["image_id", "n_descriptors", *PLACES])
    there = numpy_array(table["n_descriptors"])
    x, y, size, angle = (
        np.concatenate([np.empty(0, np.float32), *(_flat(one) for one in table[name].chunks)]) for name in PLACES
    )
    same = np.array_equal(numpy_array(table["image_id"])[there > 0], ids) and np.array_equal(there[there > 0], counts)
    imported = np.array(table[PLACES[0]].is_null().to_pylist(), bool)[there > 0]  # without keypoints
    known = np.where(imported, 0, counts) if same else counts
    if not same or not known.sum() == len(x) == len(y) == len(size) == len(angle):
        raise CorruptFile(f"{file.path.name} has other keypoints than the words say; put back a copy of it")
    packed, extents = np.zeros(n, np.int64), np.ones((len(ids), 2), np.float32)
    if len(x):
        known = known[~imported]
        first = np.cumsum(known) - known
        largest = np.stack([np.maximum.reduceat(np.nan_to_num(values), first) for values in (x, y)], axis=1)
        extents[~imported] = np.maximum(largest, extents[~imported])
        packed[np.repeat(~imported, counts)] = pack(x, y, size, angle, np.repeat(extents[~imported], known, axis=0))
    return packed, extents


def _flat(lists: pa.Array) -> NDArray[Any]:
    values = lists.flatten()
    return np.from_dlpack(values) if len(values) else np.empty(0, np.uint32)
