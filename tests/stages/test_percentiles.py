from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from featurestore.stages.percentiles import percentile

PERCENTILES = st.one_of(st.sampled_from([0, 0.1, 0.5, 1, 25, 50, 75, 99, 99.5, 99.9, 100]), st.floats(0, 100))


def assert_numpys(values: NDArray[Any], q: float) -> None:
    expected = np.percentile(values, q, axis=0)
    found = percentile(values, q)
    assert found.dtype == expected.dtype == np.float32
    assert found.tobytes() == expected.tobytes(), (values.shape, q)


@given(n=st.integers(1, 2500), q=PERCENTILES, seed=st.integers(0, 9))
def test_of_any_number_of_rows_it_is_numpys(n: int, q: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_numpys((rng.normal(size=(n, 5)) * [1e-30, 1e-3, 1, 50, 1e30]).astype(np.float32), q)


@given(n=st.integers(1, 600), q=PERCENTILES, seed=st.integers(0, 9), levels=st.integers(1, 4))
def test_of_values_that_are_equal_it_is_numpys(n: int, q: float, seed: int, levels: int) -> None:
    values = np.random.default_rng(seed).integers(0, levels, (n, 4))
    assert_numpys((values * 0.1).astype(np.float32), q)


@pytest.mark.parametrize("descending", [False, True])
def test_of_sorted_rows_it_is_numpys(descending: bool) -> None:
    values = np.sort(np.random.default_rng(0).normal(size=(1800, 64)), axis=0).astype(np.float32)
    for q in (0.1, 99.9, 3, 97):
        assert_numpys(values[:: -1 if descending else 1], q)


def test_where_all_of_the_smallest_are_in_one_block() -> None:
    values = np.random.default_rng(0).normal(size=(1800, 3)).astype(np.float32)
    values[64:70] -= 100
    values[1798:] += 100  # behind the last whole block
    for q in (0, 0.1, 0.2, 99.8, 99.9, 100):
        assert_numpys(values, q)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_as_numpy_has_it(value: float) -> None:
    values = np.random.default_rng(0).normal(size=(1800, 3)).astype(np.float32)
    values[700, 1] = value
    for q in (0.1, 99.9):
        assert_numpys(values, q)


def test_the_rows_are_left_alone() -> None:
    values = np.random.default_rng(0).normal(size=(1800, 3)).astype(np.float32)
    before = values.tobytes()
    percentile(values, 0.1)
    percentile(values, 99.9)
    assert values.tobytes() == before


@pytest.mark.parametrize("row", [0, 700, 1799])
@pytest.mark.parametrize("n", [40, 1800])
def test_one_nan_in_any_row_is_found(n: int, row: int) -> None:
    values = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    values[row % n, 1] = np.nan
    for q in (0, 0.1, 50, 99.9, 100):
        assert_numpys(values, q)
