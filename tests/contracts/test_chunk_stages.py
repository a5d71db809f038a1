"""What every chunk stage that reads another keeps to."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.rows import KEYPOINT, Layout, Row
from featurestore.stages import FLOW, ChunkStage, Extract, FitStage, Stage, TransformStage
from featurestore.storage.partition_writer import to_table

N = 40
RNG = np.random.default_rng(0)
KEYPOINTS = np.zeros(N, KEYPOINT)
KEYPOINTS["x"] = range(N)

# What each reads: a layout, an image of it, and a model.
READS: dict[str, tuple[Layout, NDArray[Any], dict[str, NDArray[Any]]]] = {
    "project": (
        Extract().layout(),
        RNG.integers(0, 256, (N, 128)).astype(np.uint8),
        {"components_": RNG.normal(size=(8, 128)), "mean_": RNG.normal(size=128)},
    ),
    "quantize": (
        Layout(dim=8, dtype="float32"),
        RNG.normal(size=(N, 8)).astype(np.float32),
        {"low": np.full(8, -2, np.float32), "high": np.full(8, 2, np.float32)},
    ),
}
STAGES = [stage for stage in FLOW if issubclass(stage, TransformStage)]


@pytest.fixture(params=STAGES, ids=lambda stage: stage.name)
def stage(request: pytest.FixtureRequest) -> TransformStage:
    made: TransformStage = request.param()
    return made


def image(stage: TransformStage, *, keypoints: bool = True) -> Row:
    _, descriptors, _ = READS[stage.name]
    return Row(5, "a.jpg", "ok", "a remark", descriptors, KEYPOINTS if keypoints else None)


def test_every_stage_that_transforms_rows_is_tested_here() -> None:
    assert {stage.name for stage in STAGES} == set(READS)


@pytest.mark.parametrize("kind", FLOW, ids=lambda kind: kind.name)
def test_every_stage_is_frozen_travels_and_has_an_identity(kind: type[Stage]) -> None:
    made = kind()
    assert pickle.loads(pickle.dumps(made)) == made
    assert isinstance(made, ChunkStage) != isinstance(made, FitStage)
    with pytest.raises(FrozenInstanceError):
        setattr(made, next(iter(made.parameters())), None)
    variants = {made.variant(reads=reads, model_id=model) for reads in ("", "a") for model in (None, "m")}
    assert len(variants) == 4
    assert all(len(variant) == 16 for variant in variants)
    assert kind().variant(reads="a", model_id="m") in variants


@pytest.mark.parametrize("keypoints", [True, False])
def test_what_it_makes_is_of_the_layout_it_promises(stage: TransformStage, keypoints: bool) -> None:
    reads, _, model = READS[stage.name]
    layout = stage.layout(Layout(reads.dim, reads.dtype, keypoints, reads.extra), model)
    row = stage.transform(image(stage, keypoints=keypoints), model)
    assert row.descriptors is not None
    assert row.descriptors.shape[1] == layout.dim
    assert row.descriptors.dtype == np.dtype(layout.dtype)
    assert set(row.extra) == {name for name, _ in layout.extra}
    assert (row.keypoints is not None) == layout.keypoints == keypoints
    table = to_table([row], layout)
    assert table.schema.equals(layout.schema())
    assert layout.matrix(table["descriptors"][0].as_buffer()).tolist() == row.descriptors.tolist()


def test_it_says_whose_row_it_is_and_keeps_the_remark(stage: TransformStage) -> None:
    row = stage.transform(image(stage), READS[stage.name][2])
    assert (row.image_id, row.filename, row.status, row.error) == (5, "a.jpg", "ok", "a remark")


def test_every_descriptor_keeps_a_keypoint_of_its_own(stage: TransformStage) -> None:
    row = stage.transform(image(stage), READS[stage.name][2])
    assert row.keypoints is not None
    assert len(row.keypoints) == row.n_descriptors > 0
    assert len(set(row.keypoints["x"].tolist())) == row.n_descriptors


@pytest.mark.parametrize("status", ["empty", "missing", "unreadable", "truncated", "too_large", "crashed"])
def test_an_image_without_descriptors_stays_what_it_is(stage: TransformStage, status: str) -> None:
    row = Row(5, "a.jpg", status, "why", extra={"width": 3})
    assert stage.transform(row, READS[stage.name][2]) == Row(5, "a.jpg", status, "why")


def test_the_same_row_gives_the_same_bytes_and_is_left_alone(stage: TransformStage) -> None:
    _, descriptors, model = READS[stage.name]
    before = descriptors.tobytes()
    first, again = (stage.transform(image(stage), model) for _ in range(2))
    assert first.descriptors is not None
    assert again.descriptors is not None
    assert first.descriptors.tobytes() == again.descriptors.tobytes()
    assert repr(first.extra) == repr(again.extra)
    assert descriptors.tobytes() == before


def test_one_descriptor_is_enough(stage: TransformStage) -> None:
    _, descriptors, model = READS[stage.name]
    row = stage.transform(Row(5, "a.jpg", "ok", None, descriptors[:1], KEYPOINTS[:1]), model)
    assert row.n_descriptors == 1
    assert row.keypoints is not None
    assert row.keypoints.tolist() == KEYPOINTS[:1].tolist()
