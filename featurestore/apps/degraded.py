"""Degraded parts of pictures: queries whose answer is known, as a scan or a screenshot of a detail would be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

QUALITY = 20  # of the JPEG
TURN = 45.0  # degrees, at most, in both directions
TILT = 0.05  # by which each corner may be displaced, as a share of half the part

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Kind:
    """A class of parts.

    Args:
        area: of the part, as a share of the picture's.
        side: pixels of the part's longer side, to which it is rescaled.
    """

    area: float
    side: int

    @property
    def name(self) -> str:
        """Its name, like ``25% at 300 px``."""
        return f"{self.area:.0%} at {self.side} px"


KINDS = (Kind(0.25, 300), Kind(0.25, 200), Kind(0.12, 160))


def degraded_part(picture: Pixels, kind: Kind, *, seed: tuple[int, ...]) -> Pixels:
    """Return a part of a picture: turned by up to 45 degrees, tilted, blurred, rescaled, and as a JPEG shows it.

    Args:
        picture: ``(height, width, 3)`` uint8.
        kind: how large the part is, and how small it becomes.
        seed: of where it lies, and of how it is turned and tilted.
    """
    rng = np.random.default_rng([*seed, kind.side])
    height, width = picture.shape[:2]
    size = np.array([width, height]) * kind.area**0.5
    centre = size / 2 + rng.uniform(0, 1, 2) * ([width, height] - size)
    around = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * size / 2
    corners = around * rng.uniform(1 - TILT, 1 + TILT, (4, 2))
    turn = np.radians(rng.uniform(-TURN, TURN))
    turned = corners @ np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))]) + centre
    wide, high = np.maximum(1, np.rint(size * kind.side / size.max())).astype(int).tolist()
    target = np.array([(0, 0), (wide, 0), (wide, high), (0, high)], np.float32)
    smooth = cv2.GaussianBlur(picture, (0, 0), max(0.8, size.max() / kind.side / 2))
    matrix = cv2.getPerspectiveTransform(turned.astype(np.float32), target)
    return _as_jpeg(cv2.warpPerspective(smooth, matrix, (wide, high), borderMode=cv2.BORDER_REFLECT))


def _as_jpeg(pixels: NDArray[Any]) -> Pixels:
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded).astype(np.uint8)
