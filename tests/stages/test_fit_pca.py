from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import ConfigError, NothingUsable
from featurestore.rows import Row
from featurestore.stages import FitStage
from featurestore.stages.fit_pca import FitPca

if TYPE_CHECKING:
    from sklearn.decomposition import IncrementalPCA

SMALL = FitPca(n_components=4, samples_per_image=50, batch_size=100)


@pytest.fixture(params=["incremental", "gram"])
def small(request: pytest.FixtureRequest) -> FitPca:
    """A small fit by each of the solvers that learn batch after batch."""
    return replace(SMALL, solver=request.param)


def image(image_id: int, n: int, *, dim: int = 12, dtype: str = "uint8") -> Row:
    """An image of n descriptors in which some directions vary more than others."""
    rng = np.random.default_rng(image_id)
    matrix = rng.integers(0, 256, (n, dim)) // np.arange(1, dim + 1)
    return Row(image_id, f"{image_id}.jpg", "ok", None, matrix.astype(dtype))


def drawn(row: Row, stage: FitPca) -> NDArray[Any]:
    """What a fit draws from an image: all, or that many without replacement, by a generator of its own."""
    assert row.descriptors is not None
    matrix = row.descriptors.astype(np.float64 if stage.solver == "gram" else np.float32)
    if len(matrix) <= stage.samples_per_image:
        return matrix
    chosen = np.random.default_rng([stage.seed, row.image_id]).choice(
        len(matrix), stage.samples_per_image, replace=False
    )
    return matrix[chosen]


def expected(rows: Iterable[Row], stage: FitPca, batches: list[int]) -> IncrementalPCA:
    """scikit-learn's estimator, fed with batches of so many images."""
    from sklearn.decomposition import IncrementalPCA  # late: it takes a second of CPU time

    estimator, samples = IncrementalPCA(n_components=stage.n_components), [drawn(row, stage) for row in rows]
    for n in batches:
        estimator.partial_fit(np.vstack(samples[:n]))
        del samples[:n]
    assert not samples
    return estimator


def fitted(stage: FitStage, rows: Iterable[Row]) -> dict[str, NDArray[Any]]:
    learner = stage.learner(None)
    for row in rows:
        learner.learn(row)
    return learner.finish()


def assert_same(model: dict[str, NDArray[Any]], estimator: IncrementalPCA) -> None:
    assert model["n_samples_seen_"] == estimator.n_samples_seen_
    for name in ("components_", "singular_values_", "mean_", "var_"):
        np.testing.assert_allclose(model[name], getattr(estimator, name), rtol=1e-9, atol=1e-9, err_msg=name)


def test_batches_hold_whole_images_and_at_least_batch_size_rows(small: FitPca) -> None:
    # 40 + 40 + 40 >= 100; 50 (of 200 drawn) + 50 >= 100; the rest at the end
    rows = [image(i, n) for i, n in enumerate([40, 40, 40, 200, 50, 30, 3])]
    assert_same(fitted(small, rows), expected(rows, small, [3, 2, 2]))


def test_another_batching_would_give_another_model(small: FitPca) -> None:
    rows = [image(i, n) for i, n in enumerate([40, 40, 40, 200, 50, 30, 3])]
    with pytest.raises(AssertionError):
        assert_same(fitted(small, rows), expected(rows, small, [2, 3, 2]))


def test_the_first_batch_has_as_many_rows_as_components_at_least(small: FitPca) -> None:
    stage = replace(small, n_components=8, batch_size=3)
    rows = [image(i, 4) for i in range(4)]
    assert_same(fitted(stage, rows), expected(rows, stage, [2, 1, 1]))


def test_the_last_batch_may_have_fewer_rows_than_components(small: FitPca) -> None:
    rows = [image(0, 50), image(1, 50), image(2, 1)]
    assert_same(fitted(small, rows), expected(rows, small, [2, 1]))


def test_one_batch_that_never_fills_up_is_enough(small: FitPca) -> None:
    rows = [image(0, 5), image(1, 4)]
    assert_same(fitted(small, rows), expected(rows, small, [2]))


def test_what_is_drawn_depends_on_the_image_and_the_seed_alone(small: FitPca) -> None:
    rows = [image(0, 40), image(5, 500), image(9, 300)]
    again = replace(small, seed=1)
    assert_same(fitted(small, rows), expected(rows, small, [3]))
    assert_same(fitted(again, rows), expected(rows, again, [3]))
    with pytest.raises(AssertionError):
        assert_same(fitted(again, rows), expected(rows, small, [3]))


def test_uint8_and_float32_descriptors_of_the_same_values_give_the_same_model(small: FitPca) -> None:
    whole, real = ([image(i, 60, dtype=dtype) for i in range(5)] for dtype in ("uint8", "float32"))
    one, other = fitted(small, whole), fitted(small, real)
    assert {name: array.tobytes() for name, array in one.items()} == {n: a.tobytes() for n, a in other.items()}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_state_is_gone_on_from_exactly_wherever_it_was_taken(small: FitPca, dtype: str) -> None:
    rows = [image(i, n, dtype=dtype) for i, n in enumerate([30, 200, 10, 45, 45, 45, 1, 7, 90])]
    straight = fitted(small, rows)
    for stop in range(len(rows) + 1):
        before = small.learner(None)
        for row in rows[:stop]:
            before.learn(row)
        after = small.learner(before.state())
        for row in rows[stop:]:
            after.learn(row)
        model = after.finish()
        assert {n: (a.dtype, a.tobytes()) for n, a in model.items()} == {
            n: (a.dtype, a.tobytes()) for n, a in straight.items()
        }, f"stopped after {stop} images"


def test_a_child_goes_on_from_its_parent(small: FitPca) -> None:
    rows = [image(i, 45) for i in range(7)]
    child = small.learner(fitted(small, rows[:4]))
    for row in rows[4:]:
        child.learn(row)
    # the parent ended its last batch early, with image 3
    assert_same(child.finish(), expected(rows, small, [3, 1, 3]))


def test_the_explained_variance_is_scikit_learns_own(small: FitPca) -> None:
    rows = [image(i, 60) for i in range(6)]
    summary = small.summary(fitted(small, rows))
    estimator = expected(rows, small, [2, 2, 2])
    assert summary["explained_variance_ratio"] == pytest.approx(estimator.explained_variance_ratio_.sum(), rel=1e-9)
    assert 0 < summary["explained_variance_ratio"] < 1
    assert (summary["n_components"], summary["n_descriptors"]) == (4, 300)


def test_descriptors_that_are_all_alike_are_explained_wholly(small: FitPca) -> None:
    rows = [Row(0, "a.jpg", "ok", None, np.full((20, 12), 7, np.uint8))]
    divides = pytest.warns(RuntimeWarning, match="invalid value")  # scikit-learn, by a variance of nothing
    with divides if small.solver == "incremental" else nullcontext():
        model = fitted(small, rows)
    assert (model["singular_values_"] == 0).all()
    np.testing.assert_allclose(model["components_"] @ model["components_"].T, np.eye(4), atol=1e-12)
    assert small.summary(model)["explained_variance_ratio"] == 1.0


def test_only_train_images_are_learnt() -> None:
    assert [SMALL.selects(subset) for subset in ("train", "test", "val", "Train")] == [True, False, False, False]


@pytest.mark.parametrize("n", [0, 3])
def test_fewer_descriptors_than_components_are_too_few(small: FitPca, n: int) -> None:
    learner = small.learner(None)
    if n:
        learner.learn(image(0, n))
    message = (
        f"fit_pca has {n} descriptors of train images to learn 4 components from; it needs at least as many. "
        "Check the split and the failures, or lower n_components in [fit_pca]"
    )
    with pytest.raises(NothingUsable, match=re.escape(message)):
        learner.finish()


def test_more_components_than_a_descriptor_has_values(small: FitPca) -> None:
    message = "[fit_pca] n_components is 13, and a descriptor has only 12 values; lower it"
    with pytest.raises(ConfigError, match=re.escape(message)):
        replace(small, n_components=13).learner(None).learn(image(0, 40))


def test_as_many_components_as_a_descriptor_has_values(small: FitPca) -> None:
    stage = replace(small, n_components=12)
    model = fitted(stage, [image(0, 40)])
    assert stage.summary(model)["explained_variance_ratio"] == pytest.approx(1)


def correlated(image_id: int, n: int, *, rank: int) -> Row:
    """An image of n descriptors of 32 values that span so many directions, of the spectrum and dtype of SIFT's."""
    axes = np.random.default_rng(0).normal(size=(rank, 32)) * 40 * 0.9 ** np.arange(rank)[:, None]
    values = 100 + np.random.default_rng([1, image_id]).normal(size=(n, rank)) @ axes
    return Row(image_id, f"{image_id}.jpg", "ok", None, np.clip(values, 0, 255).astype(np.uint8))


def test_after_many_batches_the_gram_matrix_gives_what_scikit_learn_gives() -> None:
    svd = FitPca(n_components=16, samples_per_image=60, batch_size=100)
    rows = [correlated(i, 50 + i % 20, rank=32) for i in range(320)]
    ours, theirs = fitted(replace(svd, solver="gram"), rows), fitted(svd, rows)
    assert ours["n_samples_seen_"] == theirs["n_samples_seen_"]
    # scikit-learn takes the first batch and the mean of each batch in float32
    np.testing.assert_allclose(ours["components_"], theirs["components_"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours["singular_values_"], theirs["singular_values_"], rtol=1e-7)
    np.testing.assert_allclose(ours["mean_"], theirs["mean_"], rtol=1e-12)
    np.testing.assert_allclose(ours["var_"], theirs["var_"], rtol=1e-12)
    assert {array.dtype for name, array in ours.items() if not name.startswith("n_")} == {np.dtype(np.float64)}


def test_directions_in_which_nothing_varies_are_noise_and_no_more() -> None:
    stage = FitPca(n_components=8, samples_per_image=60, batch_size=100, solver="gram")
    rows = [Row(i, "", "ok", None, np.repeat(image(i, 60, dim=3).descriptors, 4, axis=1)) for i in range(20)]  # type: ignore[arg-type]
    ours, theirs = fitted(stage, rows), fitted(replace(stage, solver="incremental"), rows)
    np.testing.assert_allclose(ours["singular_values_"][:3], theirs["singular_values_"][:3], rtol=1e-6)
    np.testing.assert_allclose(ours["components_"][:3], theirs["components_"][:3], rtol=0, atol=1e-5)
    assert (ours["singular_values_"][3:] <= 1e-6 * ours["singular_values_"][0]).all()
    assert np.isfinite(ours["singular_values_"]).all(), "the root of an eigenvalue that rounding has made negative"
    np.testing.assert_allclose(ours["components_"] @ ours["components_"].T, np.eye(8), atol=1e-12)
    assert stage.summary(ours)["explained_variance_ratio"] == pytest.approx(1)
