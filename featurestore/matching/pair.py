"""The check of one pair of images: matches, the transform that they agree on, and what their number means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.matching.features import Features
from featurestore.matching.nearest import RATIO, Matches, mutual_matches
from featurestore.matching.similarity import Similarity, fit_similarity
from featurestore.matching.verdict import MIN_INLIERS, POSSIBLE, Verdict

BORDER = 0.08  # of the keypoints' box: how near to its sides the border reaches
MIDDLE = 0.25  # of the keypoints' box: how far from its sides its middle begins
EXPECTED = 10.0  # inliers in the middle, from which on their absence means something
EMPTY = 0.1  # of the inliers that are expected in the middle: with fewer it is another picture
AGAIN = 0.4  # of the inliers: with so many on a second transform that contradicts the first, it is a pattern
FLAT = 0.03  # of the query's box: how wide the strip is that counts as a line


@dataclass(frozen=True, repr=False)
class PairMatch:
    """The result of checking a query against an image.

    Args:
        status: `Verdict`.
        inliers: matches that count, each place once.
        on_border: inliers that do not count, since they are near the border of both images.
        n_matches: all mutual matches, inliers or not.
        transform: ``(2, 3)`` float64 from the query's pixels to the image's; None without matches.
        scale: pixels of the image for one of the query; 0 without matches.
        degrees: the turn from the query to the image, clockwise, from -180 to 180.
        outline: ``(4, 2)`` float64, the query's corners in the image's pixels, clockwise from the query's upper left;
            None without matches.
        query_points: ``(m, 2)`` float64, x and y of all inliers in the query, in pixels.
        image_points: ``(m, 2)`` float64, x and y of the same inliers in the image.
        distances: ``(m,)`` float32, between the descriptors of each inlier.
    """

    status: Verdict
    inliers: int
    on_border: int
    n_matches: int
    transform: NDArray[np.float64] | None
    scale: float
    degrees: float
    outline: NDArray[np.float64] | None
    query_points: NDArray[np.float64]
    image_points: NDArray[np.float64]
    distances: NDArray[np.float32]

    def __repr__(self) -> str:
        """Return the numbers, and the shapes of the arrays."""
        arrays = ", ".join(
            f"{name}: {value.shape}" for name, value in vars(self).items() if isinstance(value, np.ndarray)
        )
        counts = f"{self.inliers:,} inliers of {self.n_matches:,} matches, {self.on_border:,} on the border"
        place = f"scale {self.scale:.3f}, {self.degrees:.1f} degrees"
        return f"<PairMatch {self.status}: {counts}, {place}; arrays {arrays}>"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON. A match is ``[x, y, x, y, distance]``, the query's place first."""
        rows = np.hstack([self.query_points, self.image_points, self.distances[:, np.newaxis].astype(np.float64)])
        return {
            "status": str(self.status),
            "inliers": self.inliers,
            "on_border": self.on_border,
            "n_matches": self.n_matches,
            "scale": round(self.scale, 5),
            "degrees": round(self.degrees, 3),
            "transform": None if self.transform is None else self.transform.round(6).tolist(),
            "outline": None if self.outline is None else self.outline.round(2).tolist(),
            "matches": rows.round(3).tolist(),
        }


def check_pair(query: Features, image: Features, *, min_inliers: int = MIN_INLIERS, ratio: float = RATIO) -> PairMatch:
    """Match two images and return what they have in common.

    Hold `one_blas_thread` around it where results have to be equal on every machine with the same BLAS.

    Args:
        query: the image that is looked for.
        image: the one that it may be a part of.
        min_inliers: the least inliers of `found`.
        ratio: of `mutual_matches`.
    """
    matches = mutual_matches(query.descriptors, image.descriptors, ratio=ratio)
    return check_matches(query, image, matches, min_inliers=min_inliers)


def check_matches(query: Features, image: Features, matches: Matches, *, min_inliers: int = MIN_INLIERS) -> PairMatch:
    """Return what two images have in common, whose descriptors have been matched; see `check_pair`."""
    fitted = fit_similarity(query.keypoints[matches.query], image.keypoints[matches.image])
    if fitted is None:
        return _nothing(len(matches))
    there = query.points[matches.query][fitted.inliers]
    here = image.points[matches.image][fitted.inliers]
    border = near_border(there, query.box, BORDER) & near_border(here, image.box, BORDER)
    inliers = min(distinct(there[~border]), distinct(here[~border]))
    flat = on_a_line(there[~border], query.box) or on_a_line(here[~border], image.box)
    frame = is_frame(query, image, fitted, there, here)
    enough = inliers >= min_inliers  # of few it need not be asked, which takes as long as the fit
    pattern = enough and is_pattern(query.keypoints[matches.query], image.keypoints[matches.image], fitted)
    return PairMatch(
        status=_verdict(inliers, min_inliers, doubtful=flat or frame or pattern),
        inliers=inliers,
        on_border=int(border.sum()),
        n_matches=len(matches),
        transform=fitted.matrix,
        scale=fitted.scale,
        degrees=fitted.degrees,
        outline=fitted.apply(query.corners),
        query_points=there,
        image_points=here,
        distances=matches.distances[fitted.inliers],
    )


def _verdict(inliers: int, min_inliers: int, *, doubtful: bool) -> Verdict:
    if inliers >= min_inliers and not doubtful:
        return Verdict.FOUND
    return Verdict.POSSIBLE if inliers >= POSSIBLE else Verdict.CANDIDATE


def near_border(points: NDArray[np.float64], box: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Return which points ``(n, 2)`` are within a share of a box ``(2, 2)`` of one of its sides."""
    margin = share * (box[1] - box[0])
    near: NDArray[np.bool_] = ((points < box[0] + margin) | (points > box[1] - margin)).any(axis=1)
    return near


def is_frame(
    query: Features,
    image: Features,
    fitted: Similarity,
    there: NDArray[np.float64],
    here: NDArray[np.float64],
) -> bool:
    """Return whether two images have their surroundings in common and not the middle, as two pictures in one frame.

    The inliers of the same picture are where the query's keypoints are. Those of a frame are around, and the middle has
    keypoints, but hardly a match.

    Args:
        query: with all keypoints.
        image: the same.
        fitted: the transform.
        there: ``(m, 2)`` the places of the inliers in the query.
        here: ``(m, 2)`` their places in the image.
    """

    def around(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
        return near_border(one, query.box, MIDDLE) & near_border(other, image.box, MIDDLE)

    placed = fitted.apply(query.points)
    covered = ((placed >= image.box[0]) & (placed <= image.box[1])).all(axis=1)
    in_middle = (covered & ~around(query.points, placed)).sum() / max(covered.sum(), 1)
    expected = float(in_middle) * len(there)
    return expected >= EXPECTED and int((~around(there, here)).sum()) < EMPTY * expected


def is_pattern(query: NDArray[Any], image: NDArray[Any], fitted: Similarity) -> bool:
    """Return whether the matches are those of a pattern that is repeated, like a wallpaper, and so fit several places.

    What is left without the inliers agrees on a second transform, and contradicts the first: it moves places further
    than they are away from the nearest inlier. Neither perspective nor depth does that.

    Args:
        query: ``(m,)`` of dtype `KEYPOINT`, the matched keypoints of the query.
        image: ``(m,)`` of dtype `KEYPOINT`, those of the image.
        fitted: the transform that most of them agree on.
    """
    least, left = AGAIN * fitted.inliers.sum(), ~fitted.inliers
    second = fit_similarity(query[left], image[left]) if left.sum() >= least else None
    if second is None or second.inliers.sum() < least:
        return False
    points = np.stack([query["x"], query["y"]], axis=1).astype(np.float64)
    ours, theirs = points[fitted.inliers], points[left][second.inliers]
    moved = np.linalg.norm(second.apply(theirs) - fitted.apply(theirs), axis=1)
    nearest = np.linalg.norm(theirs[:, np.newaxis] - ours, axis=2).min(axis=1)
    return bool((moved > fitted.scale * nearest).sum() >= least)


def distinct(points: NDArray[np.float64]) -> int:
    """Return the number of different pixels among points ``(n, 2)``: a place with several angles counts once."""
    return len(np.unique(np.rint(points), axis=0)) if len(points) else 0


def on_a_line(points: NDArray[np.float64], box: NDArray[np.float64]) -> bool:
    """Return whether points ``(n, 2)`` lie in a strip as narrow as `FLAT` of the box's diagonal."""
    if len(points) < POSSIBLE:
        return False
    centred = points - points.mean(axis=0)
    across = np.linalg.svd(centred, full_matrices=False)[2][1]
    away = centred @ across
    along = np.linalg.norm(np.ptp(points, axis=0))
    width = float(np.ptp(away))
    return bool(width <= FLAT * np.linalg.norm(box[1] - box[0]) and width * 4 < along)


def _nothing(n_matches: int) -> PairMatch:
    none = np.empty((0, 2))
    return PairMatch(Verdict.CANDIDATE, 0, 0, n_matches, None, 0.0, 0.0, None, none, none, np.empty(0, np.float32))
