"""Features of one image: descriptors as floats, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, repr=False)
class Features:
    """Descriptors and keypoints of one image.

    Args:
        descriptors: ``(n, dim)`` float32.
        keypoints: ``(n,)`` of dtype `KEYPOINT`, in pixels and degrees.
        size: width and height of the image in pixels; None if unknown.
    """

    descriptors: NDArray[np.float32]
    keypoints: NDArray[Any]
    size: tuple[int, int] | None = None

    def __repr__(self) -> str:
        """Return the shapes."""
        return f"<Features of {self.size or 'unknown'} pixels; descriptors: {self.descriptors.shape}>"

    def __len__(self) -> int:
        """Return the number of descriptors."""
        return len(self.descriptors)

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Where the keypoints are, ``(n, 2)`` float64: x and y in pixels."""
        return np.stack([self.keypoints["x"], self.keypoints["y"]], axis=1).astype(np.float64)

    @cached_property
    def box(self) -> NDArray[np.float64]:
        """The box of the keypoints, ``(2, 2)`` float64: the smallest x and y, and the largest, in pixels."""
        if not len(self):
            return np.zeros((2, 2))
        return np.stack([self.points.min(axis=0), self.points.max(axis=0)])

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """The corners of the image, ``(4, 2)`` float64 in pixels, clockwise from the upper left.

        They are those of the keypoints' box where the size is unknown.
        """
        (left, top), (right, bottom) = self.box if self.size is None else ((0.0, 0.0), self.size)
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
