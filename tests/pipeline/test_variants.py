"""A changed parameter recomputes its stage and later ones beside the old variants, and no earlier stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.errors import ConfigError, LossyDescriptors
from featurestore.stages import Sift
from featurestore.stages.ranking import ranked
from tests.catalogs import change
from tests.conftest import LONG
from tests.once import copied
from tests.small import configure, copy, current_model, digests, make_small, rows_of, small_store

STAGES = ["extract", "fit_pca", "project", "fit_scale", "quantize"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A finished store of small pictures. Not to be changed: see `store`."""

    def make(folder: Path) -> None:
        make_small(folder / "images", n=6)
        small_store(folder / "store", folder / "images", chunk_size=4).run(workers=0)

    return FeatureStore(copied(tmp_path_factory, "variants", make) / "store")


@pytest.fixture
def store(done: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A finished store that the test may change."""
    return copy(done, tmp_path / "store")


def variants(store: FeatureStore) -> dict[str, str | None]:
    return {stage.stage: stage.variant for stage in store.status().stages}


def redone(store: FeatureStore) -> list[str]:
    return [summary.stage for summary in store.run(workers=0)]


@pytest.mark.parametrize(
    ("stage", "values"),
    [
        ("extract", {"sift": {"contrast_threshold": 0.05}}),
        ("project", {"high_percentile": 99.0}),
        *([("fit_pca", {"seed": 1}), ("fit_scale", {"margin": 0.1})] if LONG else []),
        ("quantize", {"keypoints": False}),
    ],
)
def test_a_changed_parameter_redoes_its_stage_and_what_follows(
    store: FeatureStore, stage: str, values: dict[str, Any]
) -> None:
    before, files = variants(store), digests(store)
    configure(store, stage, **values)
    assert redone(store) == STAGES[STAGES.index(stage) :]
    after = variants(store)
    assert {name for name in STAGES if after[name] != before[name]} == set(STAGES[STAGES.index(stage) :])
    assert files.items() <= digests(store).items(), "what was there stays as it is"
    assert redone(store) == []


def test_the_old_parameters_find_the_old_partitions_again(store: FeatureStore) -> None:
    before, files = variants(store), digests(store)
    configure(store, "project", top=50)
    store.run(workers=0)
    configure(store, "project", top=200)
    assert variants(store) == before
    assert redone(store) == []
    assert files.items() < digests(store).items()


@pytest.mark.parametrize("values", [{"max_pixels": 1_000_000}, {"truncated": "keep"}])
def test_a_policy_that_decides_no_row_otherwise_redoes_nothing(store: FeatureStore, values: dict[str, Any]) -> None:
    configure(store, "extract", **values)
    assert redone(store) == []


def test_without_keypoints_the_codes_are_the_same_and_the_columns_are_gone(store: FeatureStore) -> None:
    before = rows_of(store, "quantize")
    configure(store, "quantize", keypoints=False)
    store.run(workers=0)
    after = rows_of(store, "quantize")
    assert all(row.keypoints is not None for row in before)
    assert [row.keypoints for row in after] == [None] * 6
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(np.asarray(one.descriptors), np.asarray(other.descriptors))
    columns = store.sql("SELECT * FROM quantized LIMIT 0").columns
    assert columns[:6] == ["image_id", "filename", "status", "error", "n_descriptors", "descriptors"]
    assert not {"x", "y", "size", "angle", "response", "octave"} & set(columns)
    assert "x" in store.sql("SELECT * FROM projected LIMIT 0").columns


def test_keypoints_follow_their_descriptors_through_the_flow(done: FeatureStore) -> None:
    for extracted, projected, quantized in zip(*(rows_of(done, s) for s in STAGES[::2]), strict=True):
        assert quantized.keypoints is not None
        assert projected.keypoints is not None
        assert extracted.keypoints is not None
        assert quantized.keypoints.tolist() == projected.keypoints.tolist()
        assert set(projected.keypoints.tolist()) <= set(extracted.keypoints.tolist())
        assert len(projected.keypoints) == projected.n_descriptors == 200


def test_a_selection_is_a_variant_beside_the_others(done: FeatureStore, store: FeatureStore) -> None:
    before = variants(store)
    configure(store, "project", select="mix")
    assert redone(store) == ["project", "fit_scale", "quantize"]
    for extracted, quantized in zip(rows_of(store, "extract"), rows_of(store, "quantize"), strict=True):
        assert extracted.keypoints is not None
        assert quantized.keypoints is not None
        expected = extracted.keypoints[ranked("mix", extracted.keypoints, 200)]
        assert quantized.keypoints.tolist() == expected.tolist()
    stored = store.descriptors("000.png"), store.keypoints("000.png")
    encoded = store.encode(done.path.parent / "images" / "000.png", keypoints=True)
    assert [array.tolist() for array in encoded] == [array.tolist() for array in stored]
    configure(store, "project", select="norm")
    assert variants(store) == before
    assert redone(store) == []


def test_rootsift_runs_from_end_to_end(store: FeatureStore) -> None:
    sift = rows_of(store, "extract")
    configure(store, "extract", extractor="rootsift")
    assert redone(store) == STAGES
    rows = rows_of(store, "extract")
    assert {row.status for row in rows} == {"ok"}
    for row, plain in zip(rows, sift, strict=True):
        assert row.descriptors is not None
        assert plain.descriptors is not None
        assert row.descriptors.dtype == np.float32
        total = plain.descriptors.sum(axis=1, keepdims=True, dtype=float)
        np.testing.assert_allclose(row.descriptors, np.sqrt(plain.descriptors / total), rtol=1e-5)
    assert 0.2 < current_model(store, "fit_pca").summary["explained_variance_ratio"] < 1
    codes = np.vstack([np.asarray(row.descriptors) for row in rows_of(store, "quantize")])
    assert codes.dtype == np.uint8
    assert codes.shape[1] == 16
    assert codes.std(axis=0).min() > 10, "the codes use their range"


def test_more_components_than_values_end_the_run_in_one_line(store: FeatureStore) -> None:
    configure(store, "fit_pca", n_components=129)
    with pytest.raises(ConfigError, match=r"\[fit_pca\] n_components is 129, and a descriptor has only 128 values"):
        store.run(workers=0)


def halves(sift: Sift, pixels: Any) -> Any:
    """What a build of OpenCV with other descriptors would give."""
    keypoints, descriptors = COMPUTE(sift, pixels)
    return keypoints, descriptors + np.float32(0.5)


COMPUTE = Sift.compute_float


def test_descriptors_that_would_lose_something_end_the_run_and_leave_nothing(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(store)
    monkeypatch.setattr(Sift, "compute_float", halves)
    configure(store, "extract", sift={"sigma": 1.7})
    with pytest.raises(LossyDescriptors, match=r"can't hold without loss.*Install opencv-python-headless"):
        store.run(workers=0)
    assert digests(store) == before


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"opencv-python-headless": "5.1.0"}, "made by several versions of OpenCV, which give other descriptors"),
        ({"numpy": "9.0.0"}, "made by several versions of the libraries"),
    ],
)
def test_status_tells_of_a_variant_that_several_versions_made(
    store: FeatureStore, changed: dict[str, str], note: str
) -> None:
    ((versions,),) = store.sql("SELECT versions FROM partitions WHERE stage = 'extract' AND chunk_id = 0").fetchall()
    other = json.dumps({**json.loads(versions), **changed})
    change(store.path, f"UPDATE partitions SET versions = '{other}' WHERE stage = 'extract' AND chunk_id = 0")
    extract = store.status().stages[0]
    assert [line.startswith(note) for line in extract.notes] == [True]
    assert set(changed) <= {"numpy"} or "5.1.0" in extract.notes[0]
