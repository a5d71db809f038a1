"""Percentiles of columns, equal to NumPy's to the last bit, from the few values that they depend on.

``np.percentile`` partitions every column. A percentile near 0 or 100 of a thousand values depends on two of the
smallest or largest, and these are found among the minima of blocks of rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 32  # rows


def percentile(values: NDArray[np.float32], q: float) -> NDArray[np.float32]:
    """Return ``np.percentile(values, q, axis=0)``, ``(dim,)`` float32.

    Args:
        values: ``(n, dim)`` float32, with a row at least.
        q: from 0 to 100.
    """
    n = len(values)
    index, weight, upper = _interpolation(n, q)
    after = min(index + 1, n - 1)
    low = index < n // 2
    outermost = _outermost(values, after + 1 if low else n - index, largest=not low)
    if outermost is None:  # NumPy has rules of its own for these
        return np.asarray(np.percentile(values, q, axis=0))
    first, second = (index, after) if low else (n - 1 - index, n - 1 - after)
    a, b = outermost[first], outermost[second]
    interpolated: NDArray[np.float32] = b - (b - a) * weight if upper else a + (b - a) * weight
    return interpolated


def _outermost(values: NDArray[np.float32], k: int, *, largest: bool) -> NDArray[np.float32] | None:
    """Return the ``k`` smallest values of each column, ascending, or the largest, descending; None if one is NaN.

    The smallest are in the ``k`` blocks with the smallest minima: a value of another block is not below that block's
    minimum, so each of the ``k`` blocks has a value that is not above it. A block has every ``n_blocks``-th row, since
    minima over the first axis are those that NumPy takes fastest. The largest are the smallest of the negated values.
    """
    n_blocks, dim = len(values) // BLOCK, values.shape[1]
    if n_blocks < 4 * k:
        found = -values if largest else values.copy()
    else:
        blocks = values[: n_blocks * BLOCK].reshape(BLOCK, n_blocks * dim)
        minima = (-blocks.max(axis=0) if largest else blocks.min(axis=0)).reshape(n_blocks, dim)
        if np.isnan(minima.min()):
            return None
        chosen = np.argpartition(minima, k - 1, axis=0)[:k] * dim + np.arange(dim)
        candidates = blocks.take(chosen.reshape(-1), axis=1).reshape(k * BLOCK, dim)
        found = np.concatenate([candidates, values[n_blocks * BLOCK :]])
        if largest:
            np.negative(found, out=found)
    found.sort(axis=0)
    if np.isnan(found[-1]).any():
        return None
    return -found[:k] if largest else found[:k]


@lru_cache(maxsize=1024)
def _interpolation(n: int, q: float) -> tuple[int, np.float32, bool]:
    """Return between which two of ``n`` sorted values NumPy interpolates, and how.

    NumPy computes the position in float32 or in float64, depending on its version, so it is asked: of columns that are
    -1 up to some row and 0 from there on, and of these plus 1, it returns its weights.

    Returns:
        The index of the lower value a; the weight w; whether the percentile is ``b - (b - a) * w`` or
        ``a + (b - a) * w``.
    """
    guess = int((n - 1) * q / 100)
    steps = np.arange(max(guess - 2, 0), min(guess + 3, n) + 1)
    below = -(np.arange(n)[:, None] < steps).astype(np.float32)
    down: NDArray[Any] = np.percentile(below, q, axis=0)
    position = int(np.flatnonzero(down == 0)[-1])  # of the last step that is not above the lower value
    index = min(int(steps[position]), n - 1)
    if position + 1 == len(steps):
        return index, np.float32(0), False
    up = np.float32(np.percentile(below[:, position + 1] + np.float32(1), q))
    return (index, -down[position + 1], True) if up >= 0.5 else (index, up, False)
