"""The index of a store: what its file has, what it lacks, and an index in memory of what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.catalog import Context
from featurestore.query.index_coverage import Chunk, Coverage
from featurestore.query.index_entries import read_chunk
from featurestore.query.index_file import IndexFile, open_index_file
from featurestore.query.selection import Selection
from featurestore.retrieval import Extents, WordsIndex
from featurestore.storage import read_arrays

AT_ONCE = 1 << 22  # descriptors added to an index at once


@dataclass(frozen=True)
class Rows:
    """The rows of a selection that the entries of an index count for, by ``image_id``; -1, as the last value, for none.

    Args:
        file: ``(m,)`` int32, for entries of the file: -1 for images that were replaced since.
        memory: the same, for entries of the index in memory.
        n: images that are searched, and chosen.
    """

    file: NDArray[np.int32]
    memory: NDArray[np.int32]
    n: int


@dataclass(frozen=True)
class StoreIndex:
    """The index of a store, whole: its file, and what the file lacks in memory.

    Args:
        coverage: that it was made by.
        file: None if there is none that can be used.
        memory: the chunks that the file lacks; None if it lacks none.
        beside: the extents of the images in ``memory``.
    """

    coverage: Coverage
    file: IndexFile | None
    memory: WordsIndex | None
    beside: Extents
    _rows: list[tuple[Selection, Rows]] = field(default_factory=list, repr=False)  # of the latest selection

    @cached_property
    def in_file(self) -> frozenset[int]:
        """The chunks that are searched in the file."""
        return frozenset() if self.file is None else self.coverage.in_file

    def stale(self, image_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which images of the file were replaced since, or are no longer there."""
        known = sorted((self.coverage.chunks[i].first, self.coverage.chunks[i].n_images) for i in self.in_file)
        first = np.array([one for one, _ in known], np.int64)
        end = np.array([one + n for one, n in known], np.int64)
        if not len(known):
            return np.ones(image_ids.shape, bool)
        at = np.maximum(np.searchsorted(first, image_ids, side="right") - 1, 0)
        stale: NDArray[np.bool_] = (image_ids < first[at]) | (image_ids >= end[at])
        return stale

    @cached_property
    def image_ids(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The images with descriptors that are searched in the file and in memory."""
        mapped = np.empty(0, np.int64) if self.file is None else self.file.extents.image_ids
        return mapped[~self.stale(mapped)], self.beside.image_ids

    @property
    def n_images(self) -> int:
        """Images with descriptors that are searched."""
        return sum(map(len, self.image_ids))

    def rows(self, selection: Selection) -> Rows:
        """Return the rows of a selection; those of the latest one are kept, since they take long for a large store."""
        known = self._rows[-1:]
        if known and known[0][0] is selection:
            return known[0][1]
        file, memory = (rows_of(ids, selection.image_ids) for ids in self.image_ids)
        found = Rows(file, memory, int((file >= 0).sum() + (memory >= 0).sum()))
        self._rows[:] = [(selection, found)]
        return found

    def extents(self, image_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the extents of images ``(n, 2)``, which packed keypoints are shares of; 0 of one that has none."""
        found = self.beside.of(image_ids)
        return found if self.file is None else np.where(found > 0, found, self.file.extents.of(image_ids))


def rows_of(searched: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the row among ``chosen`` of each image that is searched, by ``image_id``; -1 for others.

    Args:
        searched: image ids, ascending.
        chosen: image ids, ascending.
    """
    n = int(searched[-1]) + 1 if len(searched) else 0
    rows = np.full(n + 1, -1, np.int32)  # so that -1, which is no image, is none of them
    inside = chosen[: np.searchsorted(chosen, n)]
    rows[inside] = np.arange(len(inside))
    others = np.ones(n + 1, bool)
    others[searched] = False
    rows[others] = -1
    return rows


def open_index(context: Context, coverage: Coverage) -> StoreIndex:
    """Open the index of a store: the chunks that the file lacks are read into memory.

    Raises:
        CorruptFile: a partition is damaged.
        MissingDependency: faiss is not installed.
        StoreBusy: a run has replaced a partition in the meantime.
    """
    file = None if coverage.header is None else open_index_file(context.root, coverage.header)
    there: frozenset[int] = frozenset() if file is None else coverage.in_file
    lacking = [chunk for i, chunk in sorted(coverage.chunks.items()) if i not in there]
    memory, beside = make_index(coverage, lacking) if lacking else (None, Extents.joined([]))
    return StoreIndex(coverage, file, memory, beside)


def make_index(coverage: Coverage, chunks: Sequence[Chunk]) -> tuple[WordsIndex, Extents]:
    """Return an index of some chunks, from their partitions. Words that have not been computed are computed.

    Raises:
        CorruptFile: a partition is damaged.
        MissingDependency: faiss is not installed.
        StoreBusy: a run has replaced a partition in the meantime.
    """
    model = read_arrays(coverage.model)[0]
    index = WordsIndex.empty(model)
    parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    waiting: list[tuple[NDArray[Any], ...]] = []

    def flush() -> None:
        if waiting:
            index.add(*(np.concatenate(column) for column in zip(*waiting, strict=True)))
        waiting.clear()

    for chunk in chunks:
        part = read_chunk(chunk.codes, chunk.words, coverage.stage, model)
        parts.append((part.image_ids, part.extents))
        waiting.append((part.words, part.signatures, np.repeat(part.image_ids, part.counts), part.places))
        if sum(len(one[0]) for one in waiting) >= AT_ONCE:
            flush()
    flush()
    return index, Extents.joined(parts)
