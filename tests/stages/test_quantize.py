from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featurestore.rows import KEYPOINT, Layout, Row
from featurestore.stages import Quantize
from featurestore.stages.fit_scale import FitScale
from featurestore.stages.quantize import dequantize, quantize

UNIT = {"low": np.zeros(2, np.float32), "high": np.ones(2, np.float32)}
READS = Layout(dim=2, dtype="float32")


def codes_of(values: Any, low: Any, high: Any) -> tuple[list[list[int]], int]:
    arrays = [np.asarray(array, np.float32) for array in (values, low, high)]
    codes, n_clipped = quantize(arrays[0], low=arrays[1], high=arrays[2])
    assert codes.dtype == np.uint8
    return codes.tolist(), n_clipped


def test_the_bounds_become_0_and_255() -> None:
    assert codes_of([[-1, 10], [1, 20]], [-1, 10], [1, 20]) == ([[0, 0], [255, 255]], 0)


def test_what_is_outside_is_clipped_and_counted_value_by_value() -> None:
    assert codes_of([[-5, 0.5], [2, 9]], [0, 0], [1, 1]) == ([[0, 128], [255, 255]], 3)


def test_the_bounds_themselves_are_not_clipped() -> None:
    assert codes_of([[0, 1]], [0, 0], [1, 1])[1] == 0


def test_halves_are_rounded_to_even() -> None:
    values = [[0.5], [1.5], [2.5], [253.5], [254.5]]
    assert codes_of(values, [0], [255]) == ([[0], [2], [2], [254], [254]], 0)


def test_a_dimension_without_any_span_divides_by_one() -> None:
    with np.errstate(all="raise"):
        assert codes_of([[3], [3.5], [2]], [3], [3]) == ([[0], [128], [0]], 1)


def bounded(count: int) -> st.SearchStrategy[Any]:
    """Finite values that float32 can tell apart."""
    elements = st.floats(-1000, 1000, width=32, allow_subnormal=False)
    return hnp.arrays(np.float32, (count, 3), elements=elements)


@given(values=bounded(8), ends=bounded(2))
def test_codes_are_inverted_to_within_half_a_step(values: Any, ends: Any) -> None:
    low, high = ends.min(axis=0), ends.max(axis=0) + np.float32(1)
    codes, _ = quantize(values, low=low, high=high)
    back = dequantize(codes, low=low, high=high)
    assert back.dtype == np.float32
    half_a_step = (high - low) / 255 / 2
    rounding = 8 * np.finfo(np.float32).eps * np.maximum(abs(low), abs(high))
    assert np.all(abs(back - np.clip(values, low, high)) <= half_a_step + rounding)


@given(codes=hnp.arrays(np.uint8, (6, 3)), ends=bounded(2))
def test_a_code_comes_back_as_itself(codes: Any, ends: Any) -> None:
    low, high = ends.min(axis=0), ends.max(axis=0) + np.float32(1)
    assert np.array_equal(quantize(dequantize(codes, low=low, high=high), low=low, high=high)[0], codes)


@given(values=bounded(8), ends=bounded(2))
def test_larger_values_never_have_smaller_codes(values: Any, ends: Any) -> None:
    low, high = ends.min(axis=0), ends.max(axis=0)
    codes, _ = quantize(np.sort(values, axis=0), low=low, high=high)
    assert np.all(np.diff(codes.astype(int), axis=0) >= 0)


def test_far_outside_of_a_very_narrow_dimension_is_clipped_without_a_warning() -> None:
    assert codes_of([[-4], [4]], [0], [1e-38]) == ([[0], [255]], 2)


def test_quantizing_leaves_its_input_alone() -> None:
    values = np.array([[-1, 2]], np.float32)
    quantize(values, low=UNIT["low"], high=UNIT["high"])
    assert values.tolist() == [[-1, 2]]


def test_a_row_of_one_descriptor_keeps_its_keypoint() -> None:
    row = Row(1, "a.jpg", "ok", "a remark", np.array([[0, 2]], np.float32), np.ones(1, KEYPOINT))
    made = Quantize().transform(row, UNIT)
    assert made.descriptors is not None
    assert made.descriptors.tolist() == [[0, 255]]
    assert made.keypoints is row.keypoints
    assert (made.image_id, made.filename, made.status, made.error) == (1, "a.jpg", "ok", "a remark")
    assert made.extra == {"n_clipped": 1}


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_keypoints_are_stored_if_wanted_and_there(wanted: bool, there: bool) -> None:
    stage = Quantize(keypoints=wanted)
    row = Row(1, "a.jpg", "ok", None, np.zeros((1, 2), np.float32), np.ones(1, KEYPOINT) if there else None)
    assert (stage.transform(row, UNIT).keypoints is not None) == (wanted and there)
    layout = stage.layout(Layout(dim=2, dtype="float32", keypoints=there), FitScale())
    assert (layout.dim, layout.dtype, layout.keypoints) == (2, "uint8", wanted and there)


def test_an_image_without_descriptors_goes_on_as_it_is() -> None:
    row = Row(3, "b.jpg", "empty", "no keypoints found")
    assert Quantize().transform(row, UNIT) == row
