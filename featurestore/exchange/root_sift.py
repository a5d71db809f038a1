"""RootSIFT of descriptors that are SIFT or RootSIFT already."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.stages import Colmap, Extractor, RootSift, Sift


def is_sift(extractor: Extractor) -> bool:
    """Return whether an extractor makes SIFT, with whatever norm."""
    return isinstance(extractor, (Sift, Colmap))


def is_root(extractor: Extractor) -> bool:
    """Return whether its descriptors have the square roots of RootSIFT already."""
    if isinstance(extractor, Colmap):
        return extractor.normalization == "l1_root"
    return isinstance(extractor, RootSift)


def unit_root(descriptors: NDArray[Any], extractor: Extractor) -> NDArray[np.float32]:
    """Return RootSIFT of unit L2 norm, ``(n, 128)`` float32 (Arandjelovic and Zisserman, CVPR 2012).

    Args:
        descriptors: ``(n, 128)`` of ``extractor``, SIFT or RootSIFT at any scale. One of zeros stays as it is.
        extractor: that made them.
    """
    values = descriptors.astype(np.float32)
    squares = values**2 if is_root(extractor) else values
    total = squares.sum(axis=1, keepdims=True)
    root: NDArray[np.float32] = np.sqrt(squares / np.where(total == 0, 1, total))
    return root
