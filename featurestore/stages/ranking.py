"""Rankings of an image's keypoints: which descriptors `project` keeps, other than those of largest norm."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Select = Literal["norm", "scale", "response", "mix", "grid"]
CELLS = 8  # of a grid, along each side


def ranked(select: Select, keypoints: NDArray[Any], top: int) -> NDArray[np.intp]:
    """Return the indices of the ``top`` keypoints of a selection, in order of selection; ties in keypoint order.

    ``scale`` takes the largest keypoints, ``response`` those of largest response. ``mix`` takes half of them by size,
    the larger half if ``top`` is odd, and then the rest by response. ``grid`` takes the keypoint of largest response in
    each cell of a grid, then the second of each cell, and so on, those of one turn by response.

    Args:
        select: the selection; not ``norm``, which depends on descriptors.
        keypoints: ``(n,)`` of dtype `featurestore.rows.KEYPOINT`.
        top: how many are kept, if there are as many.
    """
    by_response = _descending(keypoints["response"])
    if select == "response":
        return by_response[:top]
    if select == "grid":
        return by_response[np.argsort(_turns(_cells(keypoints)[by_response]), kind="stable")][:top]
    by_size = _descending(keypoints["size"])
    if select == "scale":
        return by_size[:top]
    assert select == "mix", select
    largest = by_size[: top - top // 2]
    others = by_response[~np.isin(by_response, largest)]
    return np.concatenate([largest, others])[:top]


def _descending(values: NDArray[np.float32]) -> NDArray[np.intp]:
    return np.argsort(-values, kind="stable")


def _cells(keypoints: NDArray[Any]) -> NDArray[np.int64]:
    """Return the cell of each keypoint of the rectangle that they span."""
    row, column = (_bins(keypoints[axis].astype(np.float64)) for axis in ("y", "x"))
    return row * CELLS + column


def _bins(values: NDArray[np.float64]) -> NDArray[np.int64]:
    if not len(values):
        return np.empty(0, np.int64)
    low, high = float(values.min()), float(values.max())
    bins: NDArray[np.int64] = np.floor(CELLS * (values - low) / (high - low or 1.0)).astype(np.int64)
    return np.minimum(bins, CELLS - 1)


def _turns(cells: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return how many earlier elements are in the same cell, for each."""
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    turns = np.empty(len(cells), np.intp)
    turns[order] = np.arange(len(cells)) - np.searchsorted(ordered, ordered)
    return turns
