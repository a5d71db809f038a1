"""Matches of descriptors: each one's nearest, if it is clearly nearer than the second, and both agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATIO = 0.85  # the largest distance to the nearest, as a share of that to the second nearest
ROUNDING = np.float32(1e-4)  # of squared lengths: far more than a matrix product of float32 is off
BLOCK = 1 << 18  # distances at once: 1 MB, which stay in the cache of a core


@dataclass(frozen=True)
class Matches:
    """Pairs of descriptors, no descriptor in two of them, in the order of the query's.

    Args:
        query: ``(m,)`` int64, rows of the query.
        image: ``(m,)`` int64, rows of the image.
        distances: ``(m,)`` float32, Euclidean, in the space of the descriptors.
        squares: ``(n,)`` float32, of each of the query's descriptors, matched or not, the squared distance to its
            nearest in the image, as a matrix product rounds it; infinite if the image has none.
    """

    query: NDArray[np.int64]
    image: NDArray[np.int64]
    distances: NDArray[np.float32]
    squares: NDArray[np.float32]

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
        none, far = np.empty(0, np.int64), np.full(n, np.inf, np.float32)
        return Matches(none, none, np.empty(0, np.float32), far)
    nearest, second_nearest = np.empty(n, np.int64), np.empty(n, np.int64)
    least, second = np.empty(n, np.float32), np.empty(n, np.float32)
    for rows, squares in _blocks(query, image):
        nearest[rows], least[rows] = _take_least(squares)
        second_nearest[rows], second[rows] = _take_least(squares)
    own = np.einsum("ij,ij->i", query, query)
    least, second = least + own, second + own
    passed = np.ones(n, bool)
    if k > 1:
        rounding = ROUNDING * (own + second)
        passed = least - rounding < np.float32(ratio**2) * (second + rounding)
        # BLAS rounds, so that equal descriptors, as in a pattern, would not be equally far: of those that may be near
        # enough both distances are recomputed
        likely = np.flatnonzero(passed)
        first, other = (np.linalg.norm(query[likely] - image[of[likely]], axis=1) for of in (nearest, second_nearest))
        passed[likely] = first < np.float32(ratio) * other
    ours = np.flatnonzero(passed)
    # few pass, so that their nearest are compared with the query again; on a tie the first of the query stays
    back = np.empty(len(ours), np.int64)
    for rows, squares in _blocks(image[nearest[ours]], query):
        back[rows] = squares.argmin(axis=1)
    ours = ours[back == ours]
    theirs = nearest[ours]
    distances = np.linalg.norm(query[ours] - image[theirs], axis=1).astype(np.float32)
    return Matches(ours, theirs, distances, least)


def _blocks(rows: NDArray[np.float32], columns: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield squared distances less the squared length of the row, a block of rows at a time; each overwrites the last.

    The squared lengths of the columns are one more dimension of the product, which is faster than to add them.
    """
    dim, k = columns.shape[1], len(columns)
    right = np.empty((dim + 1, k), np.float32)
    np.multiply(columns.T, np.float32(-2), out=right[:dim])
    np.einsum("ij,ij->i", columns, columns, out=right[dim])
    left = np.ones((len(rows), dim + 1), np.float32)
    left[:, :dim] = rows
    n = max(1, BLOCK // k)
    squares = np.empty((min(n, len(rows)), k), np.float32)
    for start in range(0, len(rows), n):
        part = left[start : start + n]
        yield slice(start, start + len(part)), np.matmul(part, right, out=squares[: len(part)])


def _take_least(squares: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return where the least of each row is, and it, which becomes infinite in its place."""
    at = np.arange(len(squares))
    column: NDArray[np.int64] = squares.argmin(axis=1)
    least = squares[at, column]
    squares[at, column] = np.inf
    return column, least
