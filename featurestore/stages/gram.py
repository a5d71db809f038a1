"""Incremental PCA without an SVD: the eigenvectors of a Gram matrix.

scikit-learn's IncrementalPCA puts the axes so far, scaled by their singular values, on top of the centred batch and of
a row that corrects the mean, and takes the SVD of all these rows (Ross et al., IJCV 2008), 2,065 and more. Its right
singular vectors are the eigenvectors of the Gram matrix of the rows, which is only 128 x 128.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.stages.axes import principal_axes


class GramPca:
    """The recurrence of scikit-learn's IncrementalPCA, under the names of its attributes, in float64.

    A Gram matrix squares the condition number, see `principal_axes`: an axis is noise if its singular value is below
    1.5e-8 times the largest. With an SVD in float64 that begins at 2e-16, and in float32, scikit-learn's for the first
    batch, at 1e-7. All singular values of SIFT descriptors lie within a factor of about 20.
    """

    def __init__(self, n_components: int) -> None:
        """Start empty."""
        self.n_components_, self.n_samples_seen_ = n_components, 0
        self.components_: NDArray[Any] = np.zeros((0, 1))
        self.singular_values_: NDArray[Any] = np.zeros(0)
        self.mean_: NDArray[Any] = np.zeros(1)
        self.var_: NDArray[Any] = np.zeros(1)

    def partial_fit(self, batch: NDArray[np.float64]) -> None:
        """Learn a batch ``(n, dim)``, which is overwritten; the first one has ``n_components`` rows at least."""
        before, n = self.n_samples_seen_, len(batch)
        total, batch_sum = before + n, batch.sum(axis=0)
        batch_mean = batch_sum / n
        batch -= batch_mean
        correction = np.sqrt(before / total * n) * (self.mean_ - batch_mean)
        added = batch.T @ batch + np.outer(correction, correction)
        axes = self.singular_values_[:, None] * self.components_
        self.components_, self.singular_values_ = principal_axes(axes.T @ axes + added, self.n_components_)
        self.mean_ = (self.mean_ * before + batch_sum) / total
        self.var_ = (self.var_ * before + np.diag(added)) / total
        self.n_samples_seen_ = total
