"""Votes of a query's descriptors for images: one for each image at most, by its nearest entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGMA = 12.0  # bits at which a vote has fallen to 1/e


@dataclass(frozen=True)
class Votes:
    """The images with votes, most first.

    Args:
        rows: ``(m,)`` int64, the images.
        scores: ``(m,)`` float64, sums of votes between 0 and 1.
        borders: ``(m + 1,)`` int64, where the matches of each image begin.
        descriptors: ``(n,)`` int64, of the query: one match for each vote.
        places: ``(n,)`` int64, the packed keypoint of the image's descriptor that it voted by.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    borders: NDArray[np.int64]
    descriptors: NDArray[np.int64]
    places: NDArray[np.int64]

    def matches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the descriptors of the query and the places in the image that match, nearest first, image by image."""
        for start, stop in zip(self.borders[:-1], self.borders[1:], strict=True):
            yield self.descriptors[start:stop], self.places[start:stop]


def count_votes(
    distances: NDArray[np.float32], rows: NDArray[np.int64], places: NDArray[np.int64], *, most: int
) -> Votes:
    """Return the images that most descriptors vote for.

    A vote is ``exp(-(d / 12) ** 2)`` of the Hamming distance. The number of an image's descriptors makes no difference.

    Args:
        distances: ``(n, k)`` float32, ascending in each row: to the neighbours of each descriptor of the query.
        rows: ``(n, k)`` int64, the image of each neighbour; those below 0 do not count.
        places: ``(n, k)`` int64, the packed keypoint of each neighbour.
        most: images to return.
    """
    counted = (rows >= 0) & np.isfinite(distances)
    descriptors = np.broadcast_to(np.arange(len(rows))[:, np.newaxis], rows.shape)[counted]
    images, which, near = rows[counted], places[counted], distances[counted]
    width = int(images.max(initial=0)) + 1
    _, first = np.unique(descriptors * width + images, return_index=True)  # the first is the nearest
    descriptors, images, which = descriptors[first], images[first], which[first]
    weights = np.exp(-((near[first].astype(np.float64) / SIGMA) ** 2))
    present, place = np.unique(images, return_inverse=True)
    scores = np.bincount(place, weights=weights, minlength=len(present)).astype(np.float64)
    best = np.lexsort((present, -scores))[:most]
    rank = np.full(len(present), len(best))
    rank[best] = np.arange(len(best))
    order = np.lexsort((near[first], rank[place]))
    borders = np.searchsorted(rank[place][order], np.arange(len(best) + 1))
    return Votes(
        present[best].astype(np.int64), scores[best], borders.astype(np.int64), descriptors[order], which[order]
    )
