"""Which keypoints are kept, against a restatement in plain Python that sorts by tuples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from featurestore.rows import KEYPOINT
from featurestore.stages.ranking import Select, ranked

SELECTIONS: list[Select] = ["scale", "response", "mix", "grid"]


def restated(select: Select, keypoints: NDArray[Any], top: int) -> list[int]:
    """The same selection, one keypoint at a time."""
    by_size = sorted(range(len(keypoints)), key=lambda i: (-keypoints["size"][i], i))
    by_response = sorted(range(len(keypoints)), key=lambda i: (-keypoints["response"][i], i))
    if select == "scale":
        return by_size[:top]
    if select == "response":
        return by_response[:top]
    if select == "mix":
        half = by_size[: (top + 1) // 2]
        return (half + [i for i in by_response if i not in half])[:top]
    taken: dict[tuple[int, ...], int] = {}
    turns: list[tuple[int, int, int]] = []
    for i in by_response:
        cell = tuple(cell_of(keypoints[axis], i) for axis in ("x", "y"))
        turns.append((taken.get(cell, 0), len(turns), i))
        taken[cell] = taken.get(cell, 0) + 1
    return [i for _, _, i in sorted(turns)][:top]


def cell_of(places: NDArray[np.float32], i: int) -> int:
    low, high = float(min(places)), float(max(places))
    return min(int(8 * (float(places[i]) - low) / (high - low)), 7) if high > low else 0


def keypoints_of(n: int, *, levels: int, seed: int) -> NDArray[Any]:
    """Keypoints of which many have the same size, response and place, as those of SIFT with two angles do."""
    rng = np.random.default_rng(seed)
    found = np.zeros(n, KEYPOINT)
    for name in ("x", "y", "size", "response"):
        found[name] = rng.integers(0, levels, n) / 3
    return found


@given(
    select=st.sampled_from(SELECTIONS),
    n=st.integers(0, 120),
    top=st.integers(1, 140),
    levels=st.sampled_from([1, 2, 9, 1000]),
    seed=st.integers(0, 9),
)
def test_a_selection_is_its_restatement(select: Select, n: int, top: int, levels: int, seed: int) -> None:
    keypoints = keypoints_of(n, levels=levels, seed=seed)
    assert ranked(select, keypoints, top).tolist() == restated(select, keypoints, top)


@pytest.mark.parametrize("select", SELECTIONS)
def test_more_than_there_are_keeps_each_once(select: Select) -> None:
    keypoints = keypoints_of(50, levels=7, seed=1)
    assert sorted(ranked(select, keypoints, 1800).tolist()) == list(range(50))


def test_a_grid_takes_the_best_of_each_cell_first() -> None:
    keypoints = np.zeros(64 + 30, KEYPOINT)
    keypoints["x"][:64], keypoints["y"][:64] = np.tile(np.arange(8), 8), np.repeat(np.arange(8), 8)
    keypoints["response"] = [*np.linspace(0.1, 0.2, 64), *[0.9] * 30]  # the last 30 are all in the first cell
    assert ranked("grid", keypoints, 65).tolist() == [64, *range(63, 0, -1), 65]
