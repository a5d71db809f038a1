"""Keypoints in 6 bytes, for the quick check of many candidates: where a descriptor is, its size and its angle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKED = np.dtype([("x", "<u2"), ("y", "<u2"), ("size", "u1"), ("angle", "u1")])
PER_OCTAVE = 16  # steps of a size's logarithm: 4 %
TURN = 256  # steps of an angle: 1.4 degrees


def pack(x: NDArray[Any], y: NDArray[Any], size: NDArray[Any], angle: NDArray[Any]) -> NDArray[Any]:
    """Return keypoints ``(n,)`` of dtype `PACKED`: whole pixels, sizes to 4 %, angles to 1.4 degrees.

    Args:
        x: ``(n,)``, pixels, from 0 to 65,535.
        y: the same.
        size: ``(n,)``, pixels, from 1 to 65,000; 0 is not a size.
        angle: ``(n,)``, degrees.
    """
    packed = np.zeros(len(x), PACKED)
    packed["x"], packed["y"] = (np.clip(np.rint(np.nan_to_num(a)), 0, 65_535) for a in (x, y))
    logarithm = np.log2(np.maximum(np.nan_to_num(size), 1e-9))
    packed["size"] = np.where(size > 0, np.clip(np.rint(PER_OCTAVE * logarithm) + 1, 1, 255), 0)
    packed["angle"] = np.rint(np.nan_to_num(angle) * TURN / 360).astype(np.int64) % TURN
    return packed


def unpack(packed: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return packed keypoints as the fields ``x``, ``y``, ``size`` and ``angle`` of another dtype, others 0."""
    keypoints = np.zeros(len(packed), dtype)
    keypoints["x"], keypoints["y"] = packed["x"], packed["y"]
    size = packed["size"].astype(np.float32)
    keypoints["size"] = np.where(size > 0, 2 ** ((size - 1) / PER_OCTAVE), 0)
    keypoints["angle"] = packed["angle"].astype(np.float32) * 360 / TURN
    return keypoints


@dataclass(frozen=True)
class PackedKeypoints:
    """The packed keypoints of many images.

    Args:
        image_ids: ``(m,)`` int64, ascending: the images with descriptors.
        starts: ``(m + 1,)`` int64, where those of each image begin.
        keypoints: ``(n,)`` of dtype `PACKED`.
    """

    image_ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    keypoints: NDArray[Any]

    @classmethod
    def joined(cls, parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]]) -> PackedKeypoints:
        """Return the keypoints of parts in the order of their images: ids, numbers of descriptors, keypoints."""
        ids = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
        counts = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
        keypoints = np.concatenate([np.empty(0, PACKED), *(part[2] for part in parts)])
        return cls(ids, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), keypoints)

    def of(self, image_id: int, numbers: NDArray[np.int64]) -> NDArray[Any] | None:
        """Return the keypoints of an image's descriptors, or None if it is not here."""
        row = int(np.searchsorted(self.image_ids, image_id))
        if row == len(self.image_ids) or self.image_ids[row] != image_id:
            return None
        start, stop = int(self.starts[row]), int(self.starts[row + 1])
        if len(numbers) and int(numbers.max()) >= stop - start:
            return None
        found: NDArray[Any] = np.asarray(self.keypoints[start:stop])[numbers]
        return found
