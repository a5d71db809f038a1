"""Extractors: one file each, from an image's pixels to keypoints and descriptors.

An extractor is a frozen dataclass whose fields are its parameters, with ``name``, ``dim`` and ``dtype``, and one
method, ``detect_and_compute``. To add one, write its file and name it in `EXTRACTORS`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from featurestore.stages.extractors.rootsift import RootSift
from featurestore.stages.extractors.sift import Sift

__all__ = ["EXTRACTORS", "Extractor", "RootSift", "Sift"]


class Extractor(Protocol):
    """What every extractor offers."""

    name: ClassVar[str]
    dim: ClassVar[int]
    dtype: ClassVar[str]

    def detect_and_compute(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return keypoints ``(n,)`` of dtype `partition.KEYPOINT` and descriptors ``(n, dim)`` of ``dtype``.

        Args:
            pixels: ``(height, width, 3)`` uint8, in OpenCV's order: blue, green, red.
        """
        ...


EXTRACTORS: dict[str, type[Sift] | type[RootSift]] = {"sift": Sift, "rootsift": RootSift}
