"""RootSIFT: SIFT compared by the Hellinger kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.stages.extractors.sift import Sift


@dataclass(frozen=True)
class RootSift(Sift):
    """The square root of L1-normalized SIFT, float32 (Arandjelovic and Zisserman, CVPR 2012)."""

    name: ClassVar[str] = "rootsift"
    dtype: ClassVar[str] = "float32"
    table: ClassVar[str] = "sift"  # the parameters are those of SIFT

    def detect_and_compute(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return keypoints ``(n,)`` and descriptors ``(n, 128)`` float32 of unit L2 norm."""
        keypoints, descriptors = self.compute_float(pixels)
        total = descriptors.sum(axis=1, keepdims=True)
        return keypoints, np.sqrt(descriptors / np.where(total == 0, 1, total))
