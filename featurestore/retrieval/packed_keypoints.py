"""Keypoints in 38 bits, for the quick check of many candidates: where a descriptor is, its size and its angle.

They are a part of an entry's id in the index, which has 64 bits whatever it means, so that they take no bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = 38
STEPS = (1 << 11) - 1  # of a place, from the left or upper edge to the last keypoint
PER_OCTAVE = 16  # steps of a size's logarithm: 4 %
TURN = 256  # steps of an angle: 1.4 degrees

Extent = NDArray[np.float32]


def pack(
    x: NDArray[Any], y: NDArray[Any], size: NDArray[Any], angle: NDArray[Any], extents: Extent
) -> NDArray[np.int64]:
    """Return keypoints ``(n,)`` int64, of 38 bits: places in 2,047 steps, sizes to 4 %, angles to 1.4 degrees.

    Args:
        x: ``(n,)``, pixels, from 0.
        y: the same.
        size: ``(n,)``, pixels, from 1 to 65,000; 0 is not a size.
        angle: ``(n,)``, degrees.
        extents: ``(n, 2)``, of the image of each: the largest x and y in it, above 0.
    """
    packed = np.zeros(len(x), np.int64)
    for axis, values in enumerate((x, y)):
        steps = np.clip(np.rint(np.nan_to_num(values) * (STEPS / extents[:, axis])), 0, STEPS)
        packed = packed << 11 | steps.astype(np.int64)
    logarithm = np.log2(np.maximum(np.nan_to_num(size), 1e-9))
    sizes = np.where(size > 0, np.clip(np.rint(PER_OCTAVE * logarithm) + 1, 1, 255), 0).astype(np.int64)
    angles = np.rint(np.nan_to_num(angle) * TURN / 360).astype(np.int64) % TURN
    found: NDArray[np.int64] = packed << 16 | sizes << 8 | angles
    return found


def unpack(packed: NDArray[np.int64], extent: Extent, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return packed keypoints as the fields ``x``, ``y``, ``size`` and ``angle`` of a dtype; the others are 0.

    Args:
        packed: ``(n,)``.
        extent: ``(2,)`` of their image, or ``(n, 2)`` of the image of each.
        dtype: with these fields.
    """
    keypoints = np.zeros(len(packed), dtype)
    keypoints["x"] = (packed >> 27 & STEPS) * (extent[..., 0] / STEPS)
    keypoints["y"] = (packed >> 16 & STEPS) * (extent[..., 1] / STEPS)
    size = (packed >> 8 & 255).astype(np.float32)
    keypoints["size"] = np.where(size > 0, 2 ** ((size - 1) / PER_OCTAVE), 0)
    keypoints["angle"] = (packed & 255).astype(np.float32) * 360 / TURN
    return keypoints


@dataclass(frozen=True)
class Extents:
    """The extents of images: how far the keypoints of each reach, which packed ones are shares of.

    Args:
        image_ids: ``(m,)`` int64, ascending: the images with descriptors.
        extents: ``(m, 2)`` float32, the largest x and y in each, above 0.
    """

    image_ids: NDArray[np.int64]
    extents: Extent

    @classmethod
    def joined(cls, parts: Sequence[tuple[NDArray[np.int64], Extent]]) -> Extents:
        """Return the extents of parts, which are in the order of their images."""
        ids = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
        return cls(ids, np.concatenate([np.empty((0, 2), np.float32), *(part[1] for part in parts)]))

    def of(self, image_ids: NDArray[np.int64]) -> Extent:
        """Return the extents of images, ``(n, 2)``; those of images that are not here are 0."""
        if not len(self.image_ids):
            return np.zeros((len(image_ids), 2), np.float32)
        row = np.minimum(np.searchsorted(self.image_ids, image_ids), len(self.image_ids) - 1)
        found = self.extents[row]
        found[self.image_ids[row] != image_ids] = 0
        return found
