"""The contract of chunk stages that read another stage."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.rows import KEYPOINT, Layout, Row
from featurestore.stages import STAGES, Arrays, FitStage, TransformStage

N = 40
KEYPOINTS = np.zeros(N, KEYPOINT)
KEYPOINTS["x"] = range(N)


class ChunkStageContract:
    """The suite of a transform: give the fixtures ``stage`` and ``reads``, and ``fit`` and ``model`` if it has one."""

    @pytest.fixture
    def stage(self) -> TransformStage:
        """Return the stage with its defaults."""
        raise NotImplementedError(f"{type(self).__name__}.stage")

    @pytest.fixture
    def reads(self) -> Layout:
        """Return the columns of its input."""
        raise NotImplementedError(f"{type(self).__name__}.reads")

    @pytest.fixture
    def fit(self) -> FitStage | None:
        """Return the stage whose model it uses."""
        return None

    @pytest.fixture
    def model(self) -> Arrays:
        """Return the arrays of its model."""
        return {}

    @pytest.fixture
    def descriptors(self, reads: Layout) -> NDArray[Any]:
        """Return the descriptors of an image that it reads."""
        rng = np.random.default_rng(0)
        values = rng.integers(0, 256, (N, reads.dim)) if reads.dtype == "uint8" else rng.normal(size=(N, reads.dim))
        return values.astype(reads.dtype)

    @pytest.fixture
    def image(self, descriptors: NDArray[Any]) -> Row:
        """Return an image that it reads; override it if the stage looks at ``extra``."""
        return Row(5, "a.jpg", "ok", "a remark", descriptors, KEYPOINTS)

    def test_it_is_found_by_its_name(self, stage: TransformStage) -> None:
        assert STAGES.find(stage.name) is type(stage)

    def test_it_is_frozen_travels_and_has_an_identity(self, stage: TransformStage) -> None:
        assert pickle.loads(pickle.dumps(stage)) == stage
        for name in list(stage.parameters())[:1]:
            with pytest.raises(FrozenInstanceError):
                setattr(stage, name, None)
        variants = {stage.variant(reads=reads, model_id=model) for reads in ("", "a") for model in (None, "m")}
        assert len(variants) == 4
        assert type(stage)().variant(reads="a", model_id="m") in variants

    def test_it_says_what_people_see_of_it(self, stage: TransformStage) -> None:
        assert stage.view.isidentifier()
        assert stage.view == stage.view.lower()
        assert stage.typical_bytes > 0, "bytes an image, so that a first run knows whether the disk has room"

    @pytest.mark.parametrize("keypoints", [True, False])
    def test_what_it_makes_is_of_the_layout_it_promises(
        self, stage: TransformStage, reads: Layout, fit: FitStage | None, model: Arrays, image: Row, keypoints: bool
    ) -> None:
        layout = stage.layout(Layout(reads.dim, reads.dtype, keypoints, reads.extra), fit)
        found = KEYPOINTS if keypoints else None
        row = stage.transform(
            Row(image.image_id, image.filename, "ok", None, image.descriptors, found, image.extra), model
        )
        assert row.descriptors is not None
        assert row.descriptors.shape[1] == layout.dim
        assert row.descriptors.dtype == np.dtype(layout.dtype)
        assert set(row.extra) == {name for name, _ in layout.extra}
        assert (row.keypoints is not None) == layout.keypoints
        assert not layout.keypoints or keypoints
        assert row.keypoints is None or len(row.keypoints) == row.n_descriptors

    def test_it_says_whose_row_it_is_and_keeps_the_remark(
        self, stage: TransformStage, model: Arrays, image: Row
    ) -> None:
        row = stage.transform(image, model)
        assert (row.image_id, row.filename, row.status, row.error) == (5, "a.jpg", "ok", "a remark")

    @pytest.mark.parametrize("status", ["empty", "missing", "unreadable", "truncated", "too_large", "crashed"])
    def test_an_image_without_descriptors_stays_what_it_is(
        self, stage: TransformStage, model: Arrays, status: str
    ) -> None:
        row = Row(5, "a.jpg", status, "why", extra={"width": 3})
        assert stage.transform(row, model) == Row(5, "a.jpg", status, "why")

    def test_the_same_row_gives_the_same_bytes_and_is_left_alone(
        self, stage: TransformStage, model: Arrays, image: Row
    ) -> None:
        assert image.descriptors is not None
        before = image.descriptors.tobytes()
        first, again = (stage.transform(image, model) for _ in range(2))
        assert first.descriptors is not None
        assert again.descriptors is not None
        assert first.descriptors.tobytes() == again.descriptors.tobytes()
        assert repr(first.extra) == repr(again.extra)
        assert image.descriptors.tobytes() == before

    def test_one_descriptor_is_enough(self, stage: TransformStage, model: Arrays, image: Row) -> None:
        assert image.descriptors is not None
        row = stage.transform(Row(5, "a.jpg", "ok", None, image.descriptors[:1], KEYPOINTS[:1], image.extra), model)
        assert row.status == "ok"
        assert row.n_descriptors == 1
