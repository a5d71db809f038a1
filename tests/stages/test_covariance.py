"""The covariance solver: exact, the same in every order, and gone on from without loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.cli.text import status_text
from featurestore.errors import ConfigError, NothingUsable
from featurestore.rows import Row
from featurestore.stages import Learner
from featurestore.stages.fit_pca import FitPca
from featurestore.storage import model_id
from tests.small import configure, copy, current_model, small_store

STAGE = FitPca(n_components=5, samples_per_image=40, solver="covariance")


def image(i: int) -> Row:
    matrix = np.random.default_rng(i).integers(0, 256, (30 + 7 * i, 16)).astype(np.uint8)
    return Row(i, f"{i}.jpg", "ok", None, matrix)


IMAGES = [image(i) for i in range(7)]


def fed(learner: Learner, rows: list[Row]) -> Learner:
    for row in rows:
        learner.learn(row)
    return learner


def test_it_is_the_pca_of_all_rows() -> None:
    rows = np.vstack([STAGE.sampler.draw(row) for row in IMAGES]).astype(np.float64)
    from sklearn.decomposition import PCA  # late: it takes a second of CPU time

    expected = PCA(n_components=5, svd_solver="full").fit(rows)
    model = fed(STAGE.learner(None), IMAGES).finish()
    assert np.allclose(model["components_"], expected.components_, atol=1e-9)  # their signs too
    assert np.allclose(model["singular_values_"], expected.singular_values_)
    assert np.allclose(model["mean_"], rows.mean(axis=0), rtol=1e-15)
    assert np.allclose(model["var_"], rows.var(axis=0))
    summary = STAGE.summary(model)
    assert summary["solver"] == "covariance"
    assert summary["n_descriptors"] == len(rows)
    assert summary["explained_variance_ratio"] == pytest.approx(expected.explained_variance_ratio_.sum())


def test_its_error_is_not_above_that_of_the_incremental_solver() -> None:
    rows = np.vstack([STAGE.sampler.draw(row) for row in IMAGES]).astype(np.float64)

    def error(stage: FitPca) -> float:
        model = fed(stage.learner(None), IMAGES).finish()
        centred, components = rows - model["mean_"], model["components_"]
        return float(((centred - centred @ components.T @ components) ** 2).sum())

    incremental = FitPca(n_components=5, samples_per_image=40, batch_size=50)
    assert error(STAGE) < error(incremental)


def test_the_order_of_the_images_changes_nothing() -> None:
    forth, back = (fed(STAGE.learner(None), rows).finish() for rows in (IMAGES, IMAGES[::-1]))
    assert model_id("v", forth) == model_id("v", back)


@pytest.mark.parametrize("stop", range(8))
def test_a_state_and_a_parent_are_gone_on_from_exactly(stop: int) -> None:
    straight = model_id("v", fed(STAGE.learner(None), IMAGES).finish())
    begun = fed(STAGE.learner(None), IMAGES[:stop])
    state = begun.state()
    assert model_id("v", fed(STAGE.learner(state), IMAGES[stop:]).finish()) == straight
    if stop:
        assert model_id("v", fed(STAGE.learner(begun.finish()), IMAGES[stop:]).finish()) == straight


def test_a_state_is_not_changed_by_what_is_learnt_after_it() -> None:
    learner = fed(STAGE.learner(None), IMAGES[:3])
    state = learner.state()
    before = model_id("v", state)
    fed(learner, IMAGES[3:])
    assert model_id("v", state) == before


def test_too_few_descriptors_are_refused() -> None:
    few = Row(0, "a.jpg", "ok", None, np.zeros((4, 16), np.uint8))
    with pytest.raises(NothingUsable, match=r"^fit_pca has 0 descriptors of train images to learn 5 components from; "):
        STAGE.learner(None).finish()
    with pytest.raises(NothingUsable, match=r"^fit_pca has 4 descriptors of train images to learn 5 components from; "):
        fed(STAGE.learner(None), [few]).finish()
    wide = FitPca(n_components=17, solver="covariance")
    with pytest.raises(
        ConfigError, match=r"\[fit_pca\] n_components is 17, and a descriptor has only 16 values; lower"
    ):
        wide.learner(None).learn(IMAGES[0])


def test_images_that_are_all_alike_still_give_a_model() -> None:
    flat = Row(0, "a.jpg", "ok", None, np.full((50, 16), 200, np.uint8))
    model = fed(STAGE.learner(None), [flat]).finish()
    assert np.isfinite(model["components_"]).all()
    assert np.allclose(model["components_"] @ model["components_"].T, np.eye(5))
    assert (model["singular_values_"] == 0).all()


def test_a_store_keeps_its_variant_unless_it_asks_for_the_solver() -> None:
    assert "solver" not in FitPca().parameters()
    assert FitPca().variant(reads="x", model_id=None) == "0fbcadb6c72bf0b0"  # as before there was a choice
    assert STAGE.parameters()["solver"] == "covariance"


def test_a_store_tells_the_solver_and_why_it_changed(thirteen: FeatureStore, tmp_path: Path) -> None:
    store = copy(thirteen, tmp_path / "store")
    configure(store, "fit_pca", solver="covariance")
    store.run("fit_pca", workers=0)
    assert current_model(store, "fit_pca").summary["solver"] == "covariance"
    assert " by covariance explains " in status_text(store.status())
    configure(store, "fit_pca", solver="gram")
    assert store.plan() == []  # what the other solver made is still there
    other = small_store(tmp_path / "other", thirteen.path.parent / "images", chunk_size=3)
    configure(other, "fit_pca", solver="covariance")
    other.run("extract", "fit_pca", workers=0)
    configure(store, "fit_pca", solver="covariance")
    assert current_model(other, "fit_pca").model_id == current_model(store, "fit_pca").model_id
