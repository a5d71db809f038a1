"""project: PCA, the descriptors that are kept of an image in order, and the percentiles that fit_scale needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.config import option
from featurestore.errors import NotReady
from featurestore.rows import Compression, Layout, Row, Status
from featurestore.stages.base import Arrays, FitStage, TransformStage
from featurestore.stages.percentiles import percentile
from featurestore.stages.ranking import Select, ranked
from featurestore.system import blas_kernels

BLOCK = 384  # rows, a multiple of those that each kernel takes at once
SHAPE = (128, 64)  # of the transposed components: smaller products have kernels of their own
# Of OpenBLAS, by its own names. Processors have one of these, or kernels that are not known here.
KERNELS = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids", "Haswell", "Zen", "Sandybridge", "Nehalem", "Katmai"})


@dataclass(frozen=True)
class Project(TransformStage):
    """Project an image's descriptors and keep some, by default those of largest norm."""

    name: ClassVar[str] = "project"
    reads: ClassVar[str] = "extract"
    model: ClassVar[str | None] = "fit_pca"
    view: ClassVar[str] = "projected"
    typical_bytes: ClassVar[int] = 500_000

    top: int = option(1800, "descriptors that are kept of an image", low=1)
    select: Select = option(
        "norm",
        "which: of largest L2 norm, scale (keypoint size), response, a mix of these two, or response in a grid",
        late=True,
    )
    low_percentile: float = option(
        0.1, "the percentile of every dimension that fit_scale takes as low", low=0, high=100
    )
    high_percentile: float = option(99.9, "and as high", low=0, high=100)

    compression: Compression = option(
        "none", "of descriptors on disk, in partitions made from then on: zstd or none", stored=True
    )

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
        dim, keypoints = fit.dim(reads), reads.keypoints
        return Layout(dim=dim, dtype="float32", keypoints=keypoints, extra=extra, compression=self.compression)

    def apply(self, row: Row, model: Arrays) -> Row:
        """Return the projected descriptors ``(min(n, top), n_components)`` float32 and their percentiles.

        Raises:
            NotReady: they are selected by their keypoints, and there are none.
        """
        assert row.descriptors is not None
        values, squares = _projected(row.descriptors, model)
        kept = self._kept(row, squares, model)
        descriptors = values.take(kept, axis=0)
        keypoints = None if row.keypoints is None else _taken(row.keypoints, kept)
        bounds = {
            "low": percentile(descriptors, self.low_percentile),
            "high": percentile(descriptors, self.high_percentile),
        }
        return Row(row.image_id, row.filename, Status.OK, row.error, descriptors, keypoints, bounds)

    def _kept(self, row: Row, squares: NDArray[np.float64], model: Arrays) -> NDArray[np.intp]:
        if self.select == "norm":
            kept = _by_squares(squares, len(model["components_"]), self.top)
            if kept is None:
                assert row.descriptors is not None
                kept = strongest(project(row.descriptors, model), self.top)
            return kept
        if row.keypoints is None:
            raise NotReady(
                f"the descriptors of {row.filename!r} have no keypoints, since they were imported, and select = "
                f'"{self.select}" in [project] goes by these; set select = "norm" in featurestore.toml, or make a new '
                "store and extract its images"
            )
        return ranked(self.select, row.keypoints, self.top)


def project(descriptors: NDArray[Any], model: Arrays) -> NDArray[np.float64]:
    """Return ``(descriptors - mean) @ components.T``, ``(n, n_components)`` float64.

    The order of the operations is that of scikit-learn's ``PCA.transform``. Call it with one whole image: the last bits
    of BLAS results depend on the shape.
    """
    return _product(descriptors, *_turned(model))


def _turned(model: Arrays) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``components.T`` and the projected mean, ``(1, n_components)``, both float64."""
    turned = model["components_"].astype(np.float64).T
    return turned, model["mean_"].reshape(1, -1) @ turned


def _product(descriptors: NDArray[Any], turned: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    projected: NDArray[np.float64] = descriptors.astype(np.float64) @ turned
    projected -= mean
    return projected


def _projected(descriptors: NDArray[Any], model: Arrays) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the values of `project` as float32, and the sums of squares of its rows, ``(n,)``."""
    turned, mean = _turned(model)
    values, squares = np.empty((len(descriptors), mean.size), np.float32), np.empty(len(descriptors))
    for rows in blocks(len(descriptors), turned.shape):
        projected = _product(descriptors[rows], turned, mean)
        np.einsum("ij,ij->i", projected, projected, out=squares[rows])
        values[rows] = projected
    return values, squares


def blocks(n: int, shape: tuple[int, ...]) -> list[slice]:
    """Return the blocks of an image's ``n`` rows to project one after the other; one where bits might differ.

    What is computed of a block stays in the cache. Products of blocks have the bits of the whole image's on the known
    kernels of OpenBLAS, if each block begins at a multiple of `BLOCK` rows, and the last one has as many or more.

    Args:
        n: rows.
        shape: of the transposed components.
    """
    if n < 2 * BLOCK or shape != SHAPE or not blas_kernels() or blas_kernels() - KERNELS:
        return [slice(0, n)]
    starts = range(0, n - BLOCK + 1, BLOCK)
    return [slice(start, n if start == starts[-1] else start + BLOCK) for start in starts]


def strongest(projected: NDArray[Any], top: int) -> NDArray[np.intp]:
    """Return the indices of the ``top`` rows of largest L2 norm, largest first, ties in keypoint order.

    It is the order that a stable sort of ``np.linalg.norm(projected, axis=1)`` gives, to the last tie. Sums of squares
    are faster to compute and to sort. In whatever order a sum of ``d`` squares is added up, its relative error is at
    most ``d * u`` (Higham, Accuracy and Stability of Numerical Algorithms, 3.1; ``u = eps / 2``, and terms in ``u**2``
    are left out here), and a norm adds a rounding. So if two sums differ by more than a share of ``(2 * d + 2) * eps``,
    the norms differ, in the same direction. Twice that is asked for. Where two neighbours are closer, as equal rows
    are, or so small that squares underflow, the norms decide.
    """
    kept = _by_squares(np.einsum("ij,ij->i", projected, projected), projected.shape[1], top)
    if kept is not None:
        return kept
    norms = np.linalg.norm(projected, axis=1)
    return np.argsort(-norms, kind="stable")[:top]


def _by_squares(squares: NDArray[Any], dim: int, top: int) -> NDArray[np.intp] | None:
    """Return what `strongest` does, by sums of ``dim`` squares; None if the norms have to decide."""
    last = max(len(squares) - top - 1, 0)  # one more than are kept, since the first left out has to differ too
    found = np.argpartition(squares, last)[last:]
    found = found[np.argsort(squares[found])[::-1]]
    ordered = squares[found]
    apart = ordered[:-1] > ordered[1:] * (1 + 4 * (dim + 1) * np.finfo(np.float64).eps)
    return found[:top] if apart.all() and ordered[-1] > 1e-280 else None


def _taken(records: NDArray[Any], indices: NDArray[np.intp]) -> NDArray[Any]:
    """Return some records. NumPy copies those of a structured dtype field by field, and plain bytes at once."""
    return records.view(f"V{records.dtype.itemsize}").take(indices).view(records.dtype)
