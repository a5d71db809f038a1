"""Principal axes: the eigenvectors of a scatter matrix, as both solvers that have one take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def principal_axes(scatter: NDArray[np.float64], n_components: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the right singular vectors and the singular values of centred rows, largest first.

    A scatter matrix has the squares of the singular values, so its condition number is squared too: singular values
    below ``sqrt(eps)`` (1.5e-8) times the largest are noise, and so are the directions that belong to them. Rounding
    can make an eigenvalue slightly negative; it counts as 0.

    Args:
        scatter: ``rows.T @ rows``, ``(dim, dim)`` float64.
        n_components: how many.

    Returns:
        ``(n_components, dim)`` and ``(n_components,)``, float64. Signs are those of scikit-learn's ``svd_flip``: the
        value of largest magnitude in each vector is positive.
    """
    values, vectors = np.linalg.eigh(scatter)
    largest = slice(None, -n_components - 1, -1)  # eigh has them ascending
    return _with_signs(vectors.T[largest]), np.sqrt(np.maximum(values[largest], 0))


def _with_signs(components: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return np.ascontiguousarray(components * np.sign(largest))
