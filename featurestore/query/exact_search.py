"""Exact search: every descriptor of the query against every descriptor of the store, without an index.

Each of the query's descriptors has one vote for an image, that of the image's nearest descriptor, and votes for its
`NEIGHBOURS` nearest images. It is the standard that an index is measured by, and takes time in proportion to the store.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.query.encode import Decoder
from featurestore.query.scan import iter_rows
from featurestore.query.selection import PENDING, Selection
from featurestore.rows import USABLE

NEIGHBOURS = 10  # images that a descriptor votes for
BLOCK = 1 << 18  # distances at once: 1 MB, which stay in the cache of a core
KEPT = 64  # nearest images that are kept, which all vote where they are copies of one
MANTISSA = 21  # bits of a square that do not count in its bin, so that 4 bins double a square
LEAST = np.float32(2**-12)  # of a square, in `_Nearest.unit`; what is less is in the first bin
FIRST = int(LEAST.view(np.int32)) >> MANTISSA
BINS = 64  # up to 16 times the unit; what is more is in the last bin
GAP = 4  # empty bins beyond copies: the next image is 1.4 times as far
WIDE_GAP = 8  # the same, where fewer than eleven images are farther: twice as far
IMAGES = 64  # whose distances are compared with the nearest ones so far at once


@dataclass(frozen=True)
class Shortlist:
    """The images with most votes, best first.

    Args:
        rows: ``(n,)`` int64, of the selection's ``images``.
        scores: ``(n,)`` float64, sums of votes between 0 and 1.
        n_images: with descriptors, that were compared.
        n_missing: chosen images on which the stage has not been run.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    n_images: int
    n_missing: int

    def reordered(self, order: NDArray[np.int64]) -> Shortlist:
        """Return the same with its first images in another order."""
        rows, scores = self.rows.copy(), self.scores.copy()
        rows[: len(order)], scores[: len(order)] = rows[order], scores[order]
        return replace(self, rows=rows, scores=scores)


@dataclass
class _Nearest:
    """For each descriptor of the query the squared distances to the nearest images so far, and which they are.

    Of all images, how many there are at which distance: by the exponent and the upper mantissa of the square.
    """

    lengths: NDArray[np.float32]
    squares: NDArray[np.float32] = field(init=False)
    rows: NDArray[np.int64] = field(init=False)
    counts: NDArray[np.int64] = field(init=False)
    farthest: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with no image."""
        n = len(self.lengths)
        self.squares = np.full((n, KEPT), np.inf, np.float32)
        self.rows = np.full((n, KEPT), -1, np.int64)
        self.counts = np.zeros((n, BINS), np.int64)
        self.farthest = np.full(n, -np.inf, np.float32)

    @property
    def unit(self) -> np.float32:
        """The square that distances are counted by: the mean squared length of the query's descriptors."""
        return np.float32(self.lengths.mean() if self.lengths.any() else 1)

    def add(self, squares: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Take the squared distances ``(n, k)`` to the images ``rows``; on a tie the earlier image stays."""
        every = np.concatenate([self.squares, squares], axis=1)
        which = np.concatenate([self.rows, np.broadcast_to(rows, squares.shape)], axis=1)
        kept = np.argsort(every, axis=1, kind="stable")[:, :KEPT]
        self.squares = np.take_along_axis(every, kept, axis=1)
        self.rows = np.take_along_axis(which, kept, axis=1)
        np.maximum(self.farthest, squares.max(axis=1), out=self.farthest)
        bins = (np.maximum(squares / self.unit, LEAST).view(np.int32) >> MANTISSA) - FIRST
        bins = np.minimum(bins, BINS - 1) + BINS * np.arange(len(bins))[:, np.newaxis]
        self.counts += np.bincount(bins.ravel(), minlength=self.counts.size).reshape(self.counts.shape)

    def votes(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the images that have votes, ascending, and their sums.

        A vote is ``1 - d / d_last``, with the distance to the first image that gets none, or to the farthest image in a
        store of so few that all get one. Where that one is a copy of the nearest, see `_beyond_copies`, it is the
        eleventh that is none, and all copies that are kept vote. Images that are all equally far have whole votes.
        """
        distances = np.sqrt(np.maximum(self.squares.astype(np.float64), 0))
        there = np.isfinite(distances)
        last = np.where(there, distances, 0)[:, : NEIGHBOURS + 1].max(axis=1)
        beyond = self._beyond_copies()
        alike = self.farthest == self.squares[:, 0]
        last = np.where(alike, np.inf, np.maximum(last, beyond))[:, np.newaxis]
        weights = np.zeros(distances.shape)
        np.divide(distances, last, out=weights, where=there & (last > 0))
        voting = there & ((np.arange(KEPT) < NEIGHBOURS) | (distances < last) & (alike | (beyond > 0))[:, np.newaxis])
        weights = np.where(last > 0, 1 - weights, distances == 0)[voting]
        images, places = np.unique(self.rows[voting], return_inverse=True)
        sums = np.bincount(places, weights=weights, minlength=len(images))
        return images, sums.astype(np.float64)

    def _beyond_copies(self) -> NDArray[np.float64]:
        """Return the distance to the eleventh image that is farther than copies, rounded down to a bin; 0 without any.

        Eleven images or more are copies if the next one is farther by `GAP`: the nearest distances to many different
        images differ little from one to the next. Where fewer than eleven are beyond, it is the distance to the last,
        and takes `WIDE_GAP`, since that may be a single image that has hardly any descriptors.
        """
        up_to = np.cumsum(self.counts, axis=1)
        beyond = up_to[:, -1:] - up_to
        following = np.where(self.counts > 0, np.arange(BINS), BINS)
        following = np.minimum.accumulate(following[:, ::-1], axis=1)[:, ::-1]
        empty = np.concatenate([following[:, 1:], np.full((len(following), 1), BINS)], axis=1) - np.arange(1, BINS + 1)
        gap = np.where(beyond > NEIGHBOURS, GAP, WIDE_GAP)
        copies = (self.counts > 0) & (up_to > NEIGHBOURS) & (beyond > 0) & (empty >= gap)
        at = copies.argmax(axis=1)[:, np.newaxis]
        wanted = np.take_along_axis(up_to + np.minimum(beyond, NEIGHBOURS + 1), at, axis=1)
        bins = (up_to >= wanted).argmax(axis=1)
        edges = ((bins + FIRST) << MANTISSA).astype(np.int32).view(np.float32) * self.unit
        return np.where(copies.any(axis=1), np.sqrt(edges.astype(np.float64)), 0)


def search_exactly(
    query: NDArray[np.float32], selection: Selection, decoder: Decoder, *, most: int, without: int | None = None
) -> Shortlist:
    """Return the images of a selection that most descriptors of the query vote for.

    Memory does not grow with the store: a row group is read at a time, and 64 distances are kept of each descriptor.

    Args:
        query: ``(n, dim)`` float32, in the space of the codes.
        selection: of codes.
        decoder: of its variant.
        most: images to return.
        without: the ``image_id`` of an image to leave out.

    Raises:
        CorruptFile: a partition is damaged.
        StoreBusy: a run has replaced a partition since the images were chosen.
    """
    n_images = n_missing = 0

    def compared() -> Iterator[tuple[int, NDArray[np.float32]]]:
        nonlocal n_images, n_missing
        for at, (image_id, status, codes) in enumerate(_codes(selection)):
            n_missing += status == PENDING
            if codes is None or not len(codes) or image_id == without:
                continue
            n_images += 1
            yield at, decoder.floats(codes)

    images, scores = most_votes(query, compared(), most=most)
    return Shortlist(images, scores, n_images, n_missing)


def most_votes(
    query: NDArray[np.float32], images: Iterable[tuple[int, NDArray[np.float32]]], *, most: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the images with most votes, best first, and their scores.

    Args:
        query: ``(n, dim)`` float32.
        images: each a number, ascending, and its descriptors ``(k, dim)`` float32, of which there is at least one.
        most: images to return.
    """
    lengths = np.einsum("ij,ij->i", query, query)
    nearest = _Nearest(lengths)
    squares: list[NDArray[np.float32]] = []
    rows: list[int] = []
    for at, descriptors in images:
        squares.append(least_squares(query, descriptors, lengths))
        rows.append(at)
        if len(rows) == IMAGES:
            nearest.add(np.stack(squares, axis=1), np.array(rows, np.int64))
            squares, rows = [], []
    if rows:
        nearest.add(np.stack(squares, axis=1), np.array(rows, np.int64))
    found, scores = nearest.votes()
    best = heapq.nsmallest(most, range(len(found)), key=lambda i: (-scores[i], found[i]))
    return found[best], scores[best]


def _codes(selection: Selection) -> Iterator[tuple[int, str, NDArray[Any] | None]]:
    for row in iter_rows(selection):
        yield row.image_id, row.status, row.descriptors if row.status in USABLE else None


def least_squares(
    query: NDArray[np.float32], image: NDArray[np.float32], lengths: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return each descriptor's squared distance to its nearest one in an image, ``(n,)`` float32."""
    found = np.empty(len(query), np.float32)
    own = np.einsum("ij,ij->i", image, image)
    doubled = (image * np.float32(-2)).T
    n = max(1, BLOCK // len(image))
    for start in range(0, len(query), n):
        products = query[start : start + n] @ doubled
        products += own
        products.min(axis=1, out=found[start : start + n])
    found += lengths
    return found
