from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import ConfigError, NothingUsable
from featurestore.rows import Row
from featurestore.stages import flow_from
from featurestore.stages.fit_scale import FitScale
from featurestore.stages.quantize import quantize


def image(low: Any, high: Any) -> Row:
    """A row of project as it is read back: the percentiles are lists."""
    low, high = (np.asarray(bound, np.float32).tolist() for bound in (low, high))
    return Row(0, "a.jpg", "ok", extra={"low": low, "high": high})


def fitted(stage: FitScale, *rows: Row) -> dict[str, NDArray[Any]]:
    learner = stage.learner(None)
    for row in rows:
        learner.learn(row)
    return learner.finish()


def test_the_least_low_and_the_greatest_high_with_a_margin() -> None:
    model = fitted(FitScale(margin=0.25), image([0, -1], [1, 3]), image([-2, 0], [0, 1]))
    assert model["least_low"].tolist() == [-2, -1]
    assert model["greatest_high"].tolist() == [1, 3]
    assert model["low"].tolist() == [-2.75, -2]
    assert model["high"].tolist() == [1.75, 4]
    assert model["low"].dtype == model["high"].dtype == np.float32


def test_the_default_margin_is_one_percent() -> None:
    model = fitted(FitScale(), image([0], [100]))
    assert (model["low"].tolist(), model["high"].tolist()) == ([-1], [101])


@pytest.mark.parametrize("span", [0.0, 9e-9])
def test_a_constant_dimension_counts_as_of_span_one(span: float) -> None:
    model = fitted(FitScale(margin=0.25), image([0, 0], [span, 1]))
    assert model["low"].tolist() == [-0.25, -0.25]
    assert model["high"].tolist() == [np.float32(span + 0.25), 1.25]
    codes, n_clipped = quantize(np.zeros((1, 2), np.float32), low=model["low"], high=model["high"])
    assert n_clipped == 0
    assert codes.tolist() == [[128, 42]], "a constant value is in the middle: rint(255 / 2) = 128"


def test_a_narrow_dimension_that_is_not_constant_keeps_its_span() -> None:
    model = fitted(FitScale(margin=0.5), image([0], [2e-8]))
    np.testing.assert_allclose([model["low"][0], model["high"][0]], [-1e-8, 3e-8], rtol=1e-6)


def test_without_images_there_are_no_bounds() -> None:
    with pytest.raises(NothingUsable, match=r"fit_scale found no image with descriptors.*look at the failures: feat"):
        fitted(FitScale())


def test_over_decides_whose_percentiles_count() -> None:
    assert [FitScale(over="all").selects(subset) for subset in ("train", "test")] == [True, True]
    assert [FitScale(over="train").selects(subset) for subset in ("train", "test")] == [True, False]


def test_a_child_goes_on_from_the_bounds_without_their_margin() -> None:
    stage, rows = FitScale(margin=0.1), [image([0, -1], [1, 3]), image([-2, 0], [0, 1])]
    child = stage.learner(fitted(stage, rows[0]))
    child.learn(rows[1])
    expected = fitted(stage, *rows)
    assert {name: array.tolist() for name, array in child.finish().items()} == {
        name: array.tolist() for name, array in expected.items()
    }


def test_the_summary_tells_the_spans() -> None:
    stage = FitScale(margin=0.0)
    assert stage.summary(fitted(stage, image([0, 0, 0], [1, 4, 2]))) == {
        "n_dimensions": 3,
        "narrowest": 1.0,
        "widest": 4.0,
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"over": "test"}, r"\[fit_scale\] over is 'test', and can be all or train"),
        ({"margin": -0.1}, r"\[fit_scale\] margin is -0.1, and should be at least 0.0"),
    ],
)
def test_parameters_that_make_no_sense(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        flow_from({"fit_scale": table})
