"""Incremental PCA on whole images, with an exact state; scikit-learn's estimator, or the same by a Gram matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import NothingUsable
from featurestore.rows import Row
from featurestore.stages.base import Arrays
from featurestore.stages.gram import GramPca
from featurestore.stages.sampler import Sampler
from featurestore.system import blas_controller, one_blas_thread

# The attributes from which an estimator resumes exactly.
ESTIMATOR = ("components_", "singular_values_", "mean_", "var_", "n_samples_seen_", "n_components_")


class PcaLearner:
    """Incremental PCA (Ross et al., IJCV 2008) in batches of whole images, with an exact state."""

    def __init__(self, sampler: Sampler, arrays: Arrays | None, *, batch_size: int, solver: str) -> None:
        """Start empty, or continue from ``arrays``; a batch has at least ``batch_size`` rows."""
        self._sampler, self._batch_size = sampler, batch_size
        self._estimator, self._dtype = _estimator(solver, sampler.n_components)
        # Made after scikit-learn has loaded its own BLAS, which an earlier limit would not affect. With several BLAS
        # threads the last bits differ, and so would the model id.
        self._blas = blas_controller()
        self._pending: list[NDArray[Any]] = []
        if arrays is not None and "components_" in arrays:
            for name in ESTIMATOR:
                value = arrays[name]
                setattr(self._estimator, name, value[()] if value.ndim == 0 else value)
            self._estimator.n_features_in_ = arrays["components_"].shape[1]  # which scikit-learn compares
        if arrays is not None and len(arrays.get("pending", ())):
            self._pending = [arrays["pending"]]

    @property
    def _fitted(self) -> bool:
        return getattr(self._estimator, "n_samples_seen_", 0) > 0

    def learn(self, row: Row) -> None:
        """Sample one image's descriptors, and fit a batch when enough rows are pending.

        Raises:
            ConfigError: a descriptor has fewer values than there are components to learn.
        """
        self._pending.append(self._sampler.draw(row))
        least = self._batch_size if self._fitted else max(self._batch_size, self._sampler.n_components)
        if sum(map(len, self._pending)) >= least:
            self._learn_pending()

    def _learn_pending(self) -> None:
        with one_blas_thread(self._blas):
            self._estimator.partial_fit(np.concatenate(self._pending, dtype=self._dtype))
        self._pending = []

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the estimator's arrays and the pending rows."""
        state = self._arrays() if self._fitted else {}
        if self._pending:
            state["pending"] = np.vstack(self._pending)
        return state

    def finish(self) -> dict[str, NDArray[Any]]:
        """Fit the pending rows and return the model.

        Raises:
            NothingUsable: there are fewer descriptors than components, or no images to learn from.
        """
        rows = sum(map(len, self._pending))
        if not self._fitted and rows < self._sampler.n_components:
            raise NothingUsable(self._sampler.too_few(rows))
        if rows:
            self._learn_pending()
        return self._arrays()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.array(getattr(self._estimator, name), order="C") for name in ESTIMATOR}


def _estimator(solver: str, n_components: int) -> tuple[Any, type[np.floating[Any]]]:
    """Return an empty estimator, and the dtype of the batches that it takes."""
    if solver == "gram":
        return GramPca(n_components), np.float64
    from sklearn.decomposition import IncrementalPCA

    return IncrementalPCA(n_components=n_components), np.float32
