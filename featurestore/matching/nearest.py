"""Matches of descriptors: each one's nearest, if it is clearly nearer than the second, and both agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATIO = 0.85  # the largest distance to the nearest, as a share of that to the second nearest
BLOCK = 1 << 18  # distances at once: 1 MB, which stay in the cache of a core


@dataclass(frozen=True)
class Matches:
    """Pairs of descriptors, no descriptor in two of them, in the order of the query's.

    Args:
        query: ``(m,)`` int64, rows of the query.
        image: ``(m,)`` int64, rows of the image.
        distances: ``(m,)`` float32, Euclidean, in the space of the descriptors.
    """

    query: NDArray[np.int64]
    image: NDArray[np.int64]
    distances: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of matches."""
        return len(self.query)


def mutual_matches(query: NDArray[np.float32], image: NDArray[np.float32], *, ratio: float = RATIO) -> Matches:
    """Return the matches of two sets of descriptors, exactly: all distances are computed.

    A match is the nearest of both sides, and nearer than ``ratio`` times the query's second nearest (Lowe 2004, section
    7.1). Memory is bounded whatever the number of descriptors.

    Args:
        query: ``(n, dim)`` float32.
        image: ``(k, dim)`` float32.
        ratio: of the two distances, at most 1.
    """
    n, k = len(query), len(image)
    if not n or not k:
        return Matches(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    nearest, passed = np.empty(n, np.int64), np.empty(n, bool)
    for rows, squares in _blocks(query, image):
        nearest[rows], passed[rows] = _ratio_test(query[rows], image, squares, ratio)
    ours = np.flatnonzero(passed)
    # few pass, so that their nearest are compared with the query again; on a tie the first of the query stays
    back = np.empty(len(ours), np.int64)
    for rows, squares in _blocks(image[nearest[ours]], query):
        back[rows] = squares.argmin(axis=1)
    ours = ours[back == ours]
    theirs = nearest[ours]
    distances = np.linalg.norm(query[ours] - image[theirs], axis=1).astype(np.float32)
    return Matches(ours, theirs, distances)


def _blocks(rows: NDArray[np.float32], columns: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield squared distances less the squared length of the row, a block of rows at a time; it is overwritten."""
    lengths = np.einsum("ij,ij->i", columns, columns)
    doubled = (columns * np.float32(-2)).T
    n = max(1, BLOCK // len(columns))
    for start in range(0, len(rows), n):
        part = slice(start, start + n)
        squares: NDArray[np.float32] = rows[part] @ doubled
        squares += lengths
        yield part, squares


def _ratio_test(
    part: NDArray[np.float32], image: NDArray[np.float32], squares: NDArray[np.float32], ratio: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return each row's nearest column, and whether it is near enough. The nearest is overwritten in ``squares``."""
    at = np.arange(len(squares))
    nearest: NDArray[np.int64] = squares.argmin(axis=1)
    squares[at, nearest] = np.inf
    # BLAS rounds, so that equal descriptors, as in a pattern, would not be equally far: both distances are recomputed
    first = np.linalg.norm(part - image[nearest], axis=1)
    second = np.linalg.norm(part - image[squares.argmin(axis=1)], axis=1)
    alone = len(image) == 1
    return nearest, np.ones(len(part), bool) if alone else first < np.float32(ratio) * second
