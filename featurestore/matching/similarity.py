"""A similarity transform that matched keypoints agree on: each match proposes one, and all of them vote.

A SIFT keypoint has a place, a size and an angle, so that one match determines a similarity. All matches are tried,
which takes no random numbers, and the proposal with most inliers is refined by least squares (Lowe 2004, section 7.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 12.0  # pixels of the image, times the scale where the image is larger than the query
SCALE_FACTOR = 2.0  # between a match's own scale and that of the transform
TURN = 45.0  # degrees between a match's own angle and that of the transform
REFINEMENTS = 5
BLOCK = 1 << 16  # residuals at once: 512 kB, which stay in the cache of a core

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Similarity:
    """A similarity transform from the query's pixels to the image's: turn, scale and shift, no mirror.

    Args:
        matrix: ``(2, 3)`` float64; ``matrix @ (x, y, 1)`` is the place in the image.
        inliers: ``(m,)`` bool, of the matches that it was fitted to.
    """

    matrix: NDArray[np.float64]
    inliers: NDArray[np.bool_]

    @property
    def scale(self) -> float:
        """Pixels of the image for one pixel of the query."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    @property
    def degrees(self) -> float:
        """The turn from the query to the image, clockwise, from -180 to 180."""
        return float(np.degrees(np.arctan2(self.matrix[1, 0], self.matrix[0, 0])))

    def apply(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points ``(n, 2)`` of the query as points of the image."""
        moved: NDArray[np.float64] = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return moved


def fit_similarity(query: NDArray[Any], image: NDArray[Any]) -> Similarity | None:
    """Return the similarity that most matches agree on, or None if there is no match with a size.

    An inlier is within `TOLERANCE` of where the transform puts it, and has its scale and turn, roughly.

    Args:
        query: ``(m,)`` of dtype `KEYPOINT`, the matched keypoints of the query.
        image: ``(m,)`` of dtype `KEYPOINT`, those of the image, in the same order.
    """
    pairs = _Pairs(query, image)
    proposals = np.flatnonzero(np.isfinite(pairs.factor) & (pairs.factor != 0))
    if not len(proposals):
        return None
    with np.errstate(invalid="ignore"):  # of those that propose nothing
        shifts = pairs.image - pairs.factor * pairs.query
    votes = np.zeros(len(proposals), np.int64)
    rows = max(1, BLOCK // len(query))
    for start in range(0, len(proposals), rows):
        some = proposals[start : start + rows]
        votes[start : start + rows] = pairs.agreeing(pairs.factor[some], shifts[some]).sum(axis=1)
        if votes[start : start + rows].max() == len(query):  # no other has more
            break
    best = proposals[int(votes.argmax())]
    return _refined(pairs, pairs.factor[best], shifts[best])


def count_inliers(query: NDArray[Any], image: NDArray[Any], borders: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return of each of several images how many matches `fit_similarity` finds to agree, ``(images,)`` int64.

    Images with about as many matches are computed at once, which is much faster for many images with few matches.

    Args:
        query: ``(m,)`` of dtype `KEYPOINT`, the matched keypoints of the query, image after image.
        image: ``(m,)`` of dtype `KEYPOINT`, those of the images, in the same order.
        borders: ``(images + 1,)`` int64, where the matches of each image begin.
    """
    pairs, sizes = _Pairs(query, image), np.diff(borders)
    counts = np.zeros(len(sizes), np.int64)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    while len(order):
        widest = int(sizes[order[0]])
        some, order = np.split(order, [max(1, BLOCK // widest**2)])
        padded = pairs.padded(borders[:-1][some], sizes[some], widest)
        counts[some] = _counts(padded)
    return counts


class _Pairs:
    """Matched keypoints as complex numbers: a similarity is ``image = factor * query + shift``.

    Those of several images are ``(images, m)``, and those of one ``(m,)``.
    """

    query: Complex
    image: Complex
    factor: Complex

    def __init__(self, query: NDArray[Any], image: NDArray[Any]) -> None:
        self.query = query["x"].astype(np.float64) + 1j * query["y"].astype(np.float64)
        self.image = image["x"].astype(np.float64) + 1j * image["y"].astype(np.float64)
        turn = np.radians(image["angle"].astype(np.float64) - query["angle"].astype(np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):  # keypoints of size 0 propose nothing
            scale = image["size"].astype(np.float64) / query["size"].astype(np.float64)
            self.factor = scale * (np.cos(turn) + 1j * np.sin(turn))

    def padded(self, first: NDArray[np.int64], sizes: NDArray[np.int64], widest: int) -> _Pairs:
        """Return the pairs of some images, each with as many as the widest; those that are added agree with nothing."""
        at = first[:, np.newaxis] + np.arange(widest)
        there = np.arange(widest) < sizes[:, np.newaxis]
        at[~there] = 0
        found = copy(self)
        found.query, found.image = self.query[at], self.image[at]
        found.factor = np.where(there, self.factor[at], np.nan)
        return found

    def agreeing(self, factors: Complex, shifts: Complex) -> NDArray[np.bool_]:
        """Return which matches are inliers of which transforms, ``(transforms, m)`` bool, of each image.

        Where a transform puts a place, and how a match is turned against it, are products of matrices of real numbers,
        which takes a fifth of the time of complex numbers.
        """
        one, scale, own = np.ones(factors.shape), np.abs(factors), np.abs(self.factor)
        places = (self.query.real, self.query.imag, np.ones(self.query.shape))
        with np.errstate(all="ignore"):  # keypoints of size 0 agree with nothing
            x = _products((factors.real, -factors.imag, shifts.real, one), (*places, -self.image.real))
            y = _products((factors.imag, factors.real, shifts.imag, one), (*places, -self.image.imag))
            x *= x
            y *= y
            x += y
            inliers: NDArray[np.bool_] = x <= np.square(TOLERANCE * np.maximum(1, scale))[..., np.newaxis]
            turned, direction = factors / scale, self.factor / own
            cosine = _products((turned.real, turned.imag), (direction.real, direction.imag))
        inliers &= cosine >= np.cos(np.radians(TURN))
        inliers &= own[..., np.newaxis, :] <= (SCALE_FACTOR * scale)[..., np.newaxis]
        inliers &= (SCALE_FACTOR * own)[..., np.newaxis, :] >= scale[..., np.newaxis]
        return inliers


def _products(left: Sequence[NDArray[np.float64]], right: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the sum of the outer products of each of ``left`` with the same of ``right``, of each image."""
    found: NDArray[np.float64] = np.stack(left, axis=-1) @ np.stack(right, axis=-2)
    return found


def _counts(pairs: _Pairs) -> NDArray[np.int64]:
    """Return the inliers of the transform of each image, ``(images,)``: as `fit_similarity`, for several at once."""
    images = np.arange(len(pairs.factor))
    proposed = np.isfinite(pairs.factor) & (pairs.factor != 0)
    with np.errstate(all="ignore"):  # of matches that propose nothing
        shifts = pairs.image - pairs.factor * pairs.query
        votes = np.where(proposed, pairs.agreeing(pairs.factor, shifts).sum(axis=-1), -1)
        best = votes.argmax(axis=1)
        inliers = pairs.agreeing(pairs.factor[images, best, np.newaxis], shifts[images, best, np.newaxis])[:, 0]
        going = proposed[images, best]
        for _ in range(REFINEMENTS):
            factor, shift = _least_squares(pairs, inliers)
            found = pairs.agreeing(factor[:, np.newaxis], shift[:, np.newaxis])[:, 0]
            going &= np.isfinite(factor) & (factor != 0) & (found.sum(axis=1) >= inliers.sum(axis=1))
            same = (found == inliers).all(axis=1)
            inliers[going] = found[going]
            going &= ~same
            if not going.any():
                break
    counts: NDArray[np.int64] = np.where(proposed.any(axis=1), inliers.sum(axis=1), 0)
    return counts


def _least_squares(pairs: _Pairs, inliers: NDArray[np.bool_]) -> tuple[Complex, Complex]:
    """Return factors and shifts ``(images,)`` that fit the inliers ``(images, m)``; not finite where none does."""
    n = inliers.sum(axis=1)
    mean, target = (np.where(inliers, values, 0).sum(axis=1) / n for values in (pairs.query, pairs.image))
    centred = np.where(inliers, pairs.query - mean[:, np.newaxis], 0)
    spread = np.sum(np.abs(centred) ** 2, axis=1)
    factor = np.sum(np.conj(centred) * (pairs.image - target[:, np.newaxis]), axis=1) / spread
    return factor, target - factor * mean


def _refined(pairs: _Pairs, factor: np.complex128, shift: np.complex128) -> Similarity:
    """Fit the inliers by least squares, again and again while their number does not fall."""
    inliers = pairs.agreeing(np.array([factor]), np.array([shift]))[0]
    for _ in range(REFINEMENTS):
        x, y = pairs.query[inliers], pairs.image[inliers]
        centred = x - x.mean()
        spread = float(np.sum(np.abs(centred) ** 2))
        if not spread:
            break
        next_factor = np.sum(np.conj(centred) * (y - y.mean())) / spread
        if next_factor == 0:
            break
        next_shift = y.mean() - next_factor * x.mean()
        found = pairs.agreeing(np.array([next_factor]), np.array([next_shift]))[0]
        if found.sum() < inliers.sum():
            break
        same = bool(np.array_equal(found, inliers))
        factor, shift, inliers = next_factor, next_shift, found
        if same:
            break
    matrix = np.array([(factor.real, -factor.imag, shift.real), (factor.imag, factor.real, shift.imag)])
    return Similarity(matrix, inliers)
