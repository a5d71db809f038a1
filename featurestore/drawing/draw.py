"""Drawing on pixels: keypoints with place, size and angle, and two images side by side with their matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore.drawing.picture import LONGEST, Picture

Colour = tuple[int, int, int]  # blue, green, red
ALL: Colour = (200, 170, 90)
KEPT: Colour = (0, 140, 255)
OUTLINE: Colour = (60, 220, 60)
INK: Colour = (40, 40, 40)
PAPER = 245
BAR = 30  # pixels of the line of text above a pair
GAP = 8  # pixels between its two images
MARGIN = 8  # pixels beside the line of text
FONT = (0, 0.5)  # of OpenCV, FONT_HERSHEY_SIMPLEX, and its size
MOST_LINES = 200  # of the nearest matches: more could not be told apart


@dataclass(frozen=True)
class Layer:
    """Keypoints ``(n,)`` of dtype `KEYPOINT` that are drawn in one colour."""

    keypoints: NDArray[np.void]
    colour: Colour


def draw_keypoints(
    pixels: NDArray[np.uint8], layers: Sequence[Layer], *, title: str, longest: int = LONGEST
) -> Picture:
    """Draw keypoints: a circle of the keypoint's size, and a radius in the direction of its angle.

    Args:
        pixels: of the image, ``(height, width, 3)`` uint8, BGR.
        layers: later ones are drawn over earlier ones.
        title: of the picture.
        longest: pixels of the longer side of the picture, at most; a larger image is made smaller.
    """
    import cv2

    drawn, scale = _shrunk(pixels, longest)
    for layer in layers:
        found = layer.keypoints
        x, y = (_moved(found[name].astype(np.float64), scale).tolist() for name in ("x", "y"))
        size, angle = (found["size"] * scale).tolist(), found["angle"].tolist()
        points = [cv2.KeyPoint(*one) for one in zip(x, y, size, angle, strict=True)]
        flags = cv2.DRAW_MATCHES_FLAGS_DRAW_RICH_KEYPOINTS | cv2.DRAW_MATCHES_FLAGS_DRAW_OVER_OUTIMG
        cv2.drawKeypoints(drawn, points, drawn, layer.colour, flags)
    return Picture(drawn, title)


def draw_pair(
    query: NDArray[np.uint8],
    image: NDArray[np.uint8],
    *,
    query_points: NDArray[np.float64],
    image_points: NDArray[np.float64],
    distances: NDArray[np.float32],
    outline: NDArray[np.float64] | None,
    title: str,
    longest: int = LONGEST,
) -> Picture:
    """Draw two images side by side, a line for each match, and the query's outline in the image.

    Args:
        query: pixels of the left image, ``(height, width, 3)`` uint8, BGR.
        image: pixels of the right image.
        query_points: ``(m, 2)``, x and y of each match in pixels of the query.
        image_points: ``(m, 2)``, in pixels of the image.
        distances: ``(m,)``, of descriptors; only the nearest `MOST_LINES` matches are drawn.
        outline: ``(4, 2)``, corners in pixels of the image; None for none.
        title: drawn above the images; ASCII.
        longest: pixels of the longer side of each image, at most.
    """
    import cv2

    (left, left_scale), (right, right_scale) = _shrunk(query, longest), _shrunk(image, longest)
    height, width = max(left.shape[0], right.shape[0]), left.shape[1] + GAP + right.shape[1]
    (written, _), _ = cv2.getTextSize(title, *FONT, 1)
    sheet = np.full((BAR + height, max(width, written + 2 * MARGIN), 3), PAPER, np.uint8)
    begin, start = np.array([0, BAR]), np.array([left.shape[1] + GAP, BAR])  # the upper left corners of the two
    sheet[BAR : BAR + left.shape[0], : left.shape[1]] = left
    beside = sheet[BAR : BAR + right.shape[0], start[0] : width]
    beside[:] = right
    nearest = np.argsort(distances, kind="stable")[:MOST_LINES]
    ends = (
        np.rint(_moved(query_points[nearest], left_scale) + begin).astype(int).tolist(),
        np.rint(_moved(image_points[nearest], right_scale) + start).astype(int).tolist(),
    )
    for (one, other), colour in zip(zip(*ends, strict=True), _colours(query_points[nearest]), strict=True):
        cv2.line(sheet, one, other, colour, 1, cv2.LINE_AA)
        for place in (one, other):
            cv2.circle(sheet, place, 3, colour, 1, cv2.LINE_AA)
    if outline is not None:
        corners = np.rint(_moved(outline, right_scale)).astype(np.int32)
        cv2.polylines(beside, [corners.reshape(-1, 1, 2)], True, OUTLINE, 2, cv2.LINE_AA)  # and not over the query
    cv2.putText(sheet, title, (MARGIN, BAR - 10), *FONT, INK, 1, cv2.LINE_AA)
    return Picture(sheet, title)


def _shrunk(pixels: NDArray[np.uint8], longest: int) -> tuple[NDArray[np.uint8], float]:
    """Return a copy whose longer side has at most so many pixels, and its scale."""
    import cv2

    scale = min(1.0, longest / max(pixels.shape[:2]))
    if scale == 1.0:
        return pixels.copy(), scale
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8), scale


def _moved(places: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Return coordinates in a picture of another scale; the centre of the first pixel is 0 in both."""
    return (places + 0.5) * scale - 0.5


def _colours(points: NDArray[np.float64]) -> list[Colour]:
    """Return a colour for each point, from red at the top over green to violet at the bottom."""
    import cv2

    ranks = np.empty(len(points))
    ranks[np.argsort(points[:, 1], kind="stable")] = np.linspace(0, 150, len(points))
    hues = np.full((len(points), 1, 3), 230, np.uint8)
    hues[:, 0, 0] = ranks
    if not len(points):
        return []
    found = cv2.cvtColor(hues, cv2.COLOR_HSV2BGR)[:, 0].tolist()
    return [(blue, green, red) for blue, green, red in found]
