"""project: PCA, the descriptors of largest norm in descending order, and the percentiles that fit_scale needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.config import option
from featurestore.rows import Layout, Row
from featurestore.stages.base import Arrays, FitStage, TransformStage


@dataclass(frozen=True)
class Project(TransformStage):
    """Project an image's descriptors and keep those of largest norm."""

    name: ClassVar[str] = "project"
    reads: ClassVar[str] = "extract"
    model: ClassVar[str | None] = "fit_pca"
    view: ClassVar[str] = "projected"
    typical_bytes: ClassVar[int] = 500_000

    top: int = option(1800, "descriptors that are kept of an image, those of largest L2 norm", low=1)
    low_percentile: float = option(
        0.1, "the percentile of every dimension that fit_scale takes as low", low=0, high=100
    )
    high_percentile: float = option(99.9, "and as high", low=0, high=100)

    def __post_init__(self) -> None:
        """Check the order of the two percentiles."""
        if not self.low_percentile < self.high_percentile:
            raise ValueError(
                f"low_percentile {self.low_percentile} is not below high_percentile {self.high_percentile}"
            )

    def layout(self, reads: Layout | None, fit: FitStage | None) -> Layout:
        """Return the columns: float32 descriptors, their keypoints, and ``low`` and ``high`` of every dimension."""
        assert reads is not None and fit is not None
        extra = (("low", pa.list_(pa.float32())), ("high", pa.list_(pa.float32())))
        return Layout(dim=fit.dim(reads), dtype="float32", keypoints=reads.keypoints, extra=extra)

    def apply(self, row: Row, model: Arrays) -> Row:
        """Return the projected descriptors ``(min(n, top), n_components)`` float32 and their percentiles."""
        assert row.descriptors is not None
        projected = project(row.descriptors, model)
        kept = strongest(projected, self.top)
        descriptors = projected[kept].astype(np.float32)
        keypoints = None if row.keypoints is None else row.keypoints[kept]
        # One percentile at a time, as in the notebook: with a list, NumPy computes in float64. Sorting is faster if the
        # values of a dimension are contiguous.
        dimensions = descriptors.T.copy()
        bounds = {
            "low": np.percentile(dimensions, self.low_percentile, axis=1, overwrite_input=True),
            "high": np.percentile(dimensions, self.high_percentile, axis=1, overwrite_input=True),
        }
        return Row(row.image_id, row.filename, "ok", row.error, descriptors, keypoints, bounds)


def project(descriptors: NDArray[Any], model: Arrays) -> NDArray[np.float64]:
    """Return ``(descriptors - mean) @ components.T``, ``(n, n_components)`` float64.

    The order of the operations is that of scikit-learn's ``PCA.transform``. Call it with one whole image: the last bits
    of BLAS results depend on the shape.
    """
    components = model["components_"].astype(np.float64)
    projected = descriptors.astype(np.float64) @ components.T
    projected -= model["mean_"].reshape(1, -1) @ components.T
    return projected


def strongest(projected: NDArray[Any], top: int) -> NDArray[np.intp]:
    """Return the indices of the ``top`` rows of largest L2 norm, largest first, ties in keypoint order."""
    norms = np.linalg.norm(projected, axis=1)
    return np.argsort(-norms, kind="stable")[:top]
