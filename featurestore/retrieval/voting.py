"""Votes of a query's descriptors for images: one for each image at most, by its nearest entry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGMA = 8.0  # bits at which a vote has fallen to 1/e: with more, many strangers outvote a few true matches


@dataclass(frozen=True)
class Votes:
    """The images with votes, most first.

    Args:
        rows: ``(m,)`` int64, the images.
        scores: ``(m,)`` float64, sums of votes between 0 and 1.
        borders: ``(m + 1,)`` int64, where the matches of each image begin, the nearest first.
        descriptors: ``(n,)`` int64, of the query: one match for each vote for these images.
        places: ``(n,)`` int64, the packed keypoint of the image's descriptor that it voted by.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    borders: NDArray[np.int64]
    descriptors: NDArray[np.int64]
    places: NDArray[np.int64]


def count_votes(
    distances: NDArray[np.float32], rows: NDArray[np.int64], places: NDArray[np.int64], *, most: int
) -> Votes:
    """Return the images that most descriptors vote for.

    A vote is ``exp(-(d / 8) ** 2)`` of the Hamming distance. The number of an image's descriptors makes no difference.

    Args:
        distances: ``(n, k)`` float32, ascending in each row: to the neighbours of each descriptor of the query.
        rows: ``(n, k)`` int64, the image of each neighbour; those below 0 do not count.
        places: ``(n, k)`` int64, the packed keypoint of each neighbour.
        most: images to return.
    """
    descriptors, images, which, near = _nearest_of_each(distances, rows, places)
    weights = np.exp(-((near.astype(np.float64) / SIGMA) ** 2))
    sums = np.bincount(images, weights=weights).astype(np.float64)
    best = _largest(sums, most)
    rank = np.full(len(sums), len(best))
    rank[best] = np.arange(len(best))
    ranks = rank[images]
    kept = np.flatnonzero(ranks < len(best))
    order = kept[np.lexsort((near[kept], ranks[kept]))]
    borders = np.searchsorted(ranks[order], np.arange(len(best) + 1))
    return Votes(best, sums[best], borders.astype(np.int64), descriptors[order], which[order])


def _nearest_of_each(
    distances: NDArray[np.float32], rows: NDArray[np.int64], places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the votes: of each the descriptor, the image, the place and the distance; of an image the nearest only."""
    bits = max(1, (rows.shape[1] - 1).bit_length())
    keys = np.where((rows >= 0) & np.isfinite(distances), rows, -1) << bits  # the place in its row orders equal ones
    keys |= np.arange(rows.shape[1])
    keys.sort(axis=1)
    images, column = keys >> bits, keys & ((1 << bits) - 1)
    first = images >= 0
    first[:, 1:] &= images[:, 1:] != images[:, :-1]
    descriptors, at = np.nonzero(first)
    column = column[descriptors, at]
    return descriptors, images[descriptors, at], places[descriptors, column], distances[descriptors, column]


def _largest(sums: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Return where the largest sums are, which are above 0; of equal ones the first."""
    present: NDArray[np.int64] = np.flatnonzero(sums)
    if len(present) > most:
        least = np.partition(sums[present], -most)[-most]
        present = present[sums[present] >= least]
    return present[np.lexsort((present, -sums[present]))[:most]]
