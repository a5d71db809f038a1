"""Exact PCA: the eigenvectors of the covariance matrix, from a count, a sum and a scatter matrix.

For uint8 descriptors all three are integers far below 2^53 (for a billion descriptors the largest is 6.5e13), so
float64 holds them exactly, and the order of the images does not matter. No information is lost, unlike in
IncrementalPCA, which keeps only ``n_components`` directions of the images so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import NothingUsable
from featurestore.rows import Row
from featurestore.stages.axes import principal_axes
from featurestore.stages.base import Arrays
from featurestore.stages.sampler import Sampler
from featurestore.system import blas_controller, one_blas_thread


class CovarianceLearner:
    """The count of descriptors, their sum ``(dim,)`` and their scatter ``(dim, dim)`` about the origin, float64."""

    def __init__(self, sampler: Sampler, arrays: Arrays | None) -> None:
        """Start empty, or continue from ``arrays``."""
        self._sampler = sampler
        # With several BLAS threads the last bits of the eigenvectors differ, and so would the model id.
        self._blas = blas_controller()
        arrays = {} if arrays is None else arrays
        self._n = int(arrays.get("n_samples_seen_", 0))
        self._sum: NDArray[np.float64] | None = arrays.get("sum")
        self._scatter: NDArray[np.float64] | None = arrays.get("scatter")

    def learn(self, row: Row) -> None:
        """Add the sample of one image's descriptors.

        Raises:
            ConfigError: a descriptor has fewer values than there are components to learn.
        """
        drawn = self._sampler.draw(row).astype(np.float64)
        with one_blas_thread(self._blas):
            scatter = drawn.T @ drawn
        self._add(len(drawn), drawn.sum(axis=0), scatter)

    def join(self, part: Arrays) -> None:
        """Add the sums of another learner."""
        if part:
            self._add(int(part["n_samples_seen_"]), part["sum"], part["scatter"])

    def _add(self, n: int, total: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        self._n += n
        # new arrays: a state that was returned earlier must not change
        self._sum = total if self._sum is None else self._sum + total
        self._scatter = scatter if self._scatter is None else self._scatter + scatter

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the sums so far."""
        if self._sum is None or self._scatter is None:
            return {}
        return {"n_samples_seen_": np.array(self._n), "sum": self._sum, "scatter": self._scatter}

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return the model: arrays with scikit-learn's names, and the sums, from which a child model continues.

        Raises:
            NothingUsable: there are fewer descriptors than components, or no images to learn from.
        """
        if self._sum is None or self._scatter is None or self._n < self._sampler.n_components:
            raise NothingUsable(self._sampler.too_few(self._n))
        mean = self._sum / self._n
        centred = self._scatter - np.outer(self._sum, mean)
        with one_blas_thread(self._blas):
            components, singular_values = principal_axes(centred, self._sampler.n_components)
        return {
            **self.state(),
            "components_": components,
            "singular_values_": singular_values,
            "mean_": mean,
            "var_": np.diag(centred) / self._n,
            "n_components_": np.array(self._sampler.n_components),
        }
