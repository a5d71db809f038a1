"""What an extractor is: a frozen dataclass whose fields are its parameters, and a method from pixels to descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Extractor:
    """A kind of local descriptor.

    Its fields are declared with `featurestore.config.option`. They are its keys in ``[extract.NAME]`` of
    ``featurestore.toml`` and, with its name, its identity.
    """

    name: ClassVar[str]
    dim: ClassVar[int]  # values in a descriptor
    dtype: ClassVar[str]  # of a value, "uint8" or "float32"
    version: ClassVar[int] = 1  # raised when the code of the extractor changes its result
    table: ClassVar[str] = ""  # of the recipe that has its parameters; empty: that of its own name

    def detect_and_compute(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return keypoints ``(n,)`` of dtype `KEYPOINT` and descriptors ``(n, dim)`` of ``dtype``.

        Args:
            pixels: ``(height, width, 3)`` uint8, in OpenCV's order: blue, green, red.
        """
        raise NotImplementedError(f"{type(self).__name__}.detect_and_compute")
