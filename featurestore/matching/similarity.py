"""A similarity transform that matched keypoints agree on: each match proposes one, and all of them vote.

A SIFT keypoint has a place, a size and an angle, so that one match determines a similarity. All matches are tried,
which takes no random numbers, and the proposal with most inliers is refined by least squares (Lowe 2004, section 7.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 12.0  # pixels of the image, times the scale where the image is larger than the query
SCALE_FACTOR = 2.0  # between a match's own scale and that of the transform
TURN = 45.0  # degrees between a match's own angle and that of the transform
REFINEMENTS = 5
BLOCK = 1 << 20  # residuals in memory at once: 16 MB

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
    shifts = pairs.image - pairs.factor * pairs.query
    votes = np.empty(len(proposals), np.int64)
    rows = max(1, BLOCK // len(query))
    for start in range(0, len(proposals), rows):
        some = proposals[start : start + rows]
        votes[start : start + rows] = pairs.agreeing(pairs.factor[some], shifts[some]).sum(axis=1)
    best = proposals[int(votes.argmax())]
    return _refined(pairs, pairs.factor[best], shifts[best])


class _Pairs:
    """Matched keypoints as complex numbers: a similarity is ``image = factor * query + shift``."""

    def __init__(self, query: NDArray[Any], image: NDArray[Any]) -> None:
        self.query: Complex = query["x"].astype(np.float64) + 1j * query["y"].astype(np.float64)
        self.image: Complex = image["x"].astype(np.float64) + 1j * image["y"].astype(np.float64)
        turn = np.radians(image["angle"].astype(np.float64) - query["angle"].astype(np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):  # keypoints of size 0 propose nothing
            scale = image["size"].astype(np.float64) / query["size"].astype(np.float64)
            self.factor: Complex = scale * (np.cos(turn) + 1j * np.sin(turn))

    def agreeing(self, factors: Complex, shifts: Complex) -> NDArray[np.bool_]:
        """Return which matches are inliers of which transforms, ``(transforms, m)`` bool."""
        scale = np.abs(factors)[:, np.newaxis]
        away = np.abs(factors[:, np.newaxis] * self.query + shifts[:, np.newaxis] - self.image)
        with np.errstate(invalid="ignore"):
            own = self.factor / factors[:, np.newaxis]
            size = np.abs(own)
            turned = own.real >= size * np.cos(np.radians(TURN))
            like = (size <= SCALE_FACTOR) & (size * SCALE_FACTOR >= 1) & turned
        inliers: NDArray[np.bool_] = (away <= TOLERANCE * np.maximum(1, scale)) & like
        return inliers


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
