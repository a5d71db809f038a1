"""The contract of extractors."""

from __future__ import annotations

import pickle
import tomllib
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.config import render
from featurestore.rows import KEYPOINT, KEYPOINT_COLUMNS
from featurestore.stages import EXTRACTORS, Extract, Extractor, flow_from
from featurestore.testing.pictures import picture

PIXELS = picture(1)
Found = tuple[NDArray[Any], NDArray[Any]]


def as_bytes(found: list[Found]) -> list[list[bytes]]:
    """Return what was found in images, to be compared."""
    return [[array.tobytes() for array in one] for one in found]


class ExtractorContract:
    """The suite of an extractor: give the fixture ``extractor``. Its package has to be installed."""

    @pytest.fixture
    def extractor(self) -> Extractor:
        """Return the extractor with its defaults."""
        raise NotImplementedError(f"{type(self).__name__}.extractor")

    def test_it_is_found_by_its_name(self, extractor: Extractor) -> None:
        assert EXTRACTORS.find(extractor.name) is type(extractor)

    def test_it_is_a_frozen_dataclass_whose_fields_are_options(self, extractor: Any) -> None:
        assert is_dataclass(extractor)
        assert all(field.metadata["doc"] for field in fields(extractor))
        for field in fields(extractor)[:1]:
            with pytest.raises(FrozenInstanceError):
                setattr(extractor, field.name, None)

    def test_a_recipe_keeps_its_parameters(self, extractor: Extractor) -> None:
        stage = Extract(extractor)
        (again, *_) = flow_from(tomllib.loads(render([("extract", stage)])))
        assert again == stage

    def test_it_travels_to_workers(self, extractor: Extractor) -> None:
        assert pickle.loads(pickle.dumps(extractor)) == extractor

    def test_a_field_of_a_keypoint_is_given_or_named_absent(self, extractor: Extractor) -> None:
        keypoints, _ = extractor.detect_and_compute(PIXELS)
        assert {*(keypoints.dtype.names or ()), *extractor.absent} == set(KEYPOINT_COLUMNS)

    def test_keypoints_and_descriptors_belong_together(self, extractor: Extractor) -> None:
        ((keypoints, descriptors),) = extractor.describe([PIXELS])
        assert len(descriptors) > 0, "a picture full of blobs has something to describe"
        assert descriptors.shape == (len(keypoints), extractor.dim)
        assert keypoints.dtype == KEYPOINT
        assert descriptors.dtype == np.dtype(extractor.dtype)
        assert extractor.dtype in ("uint8", "float32")
        assert np.isfinite(descriptors).all()

    def test_keypoints_lie_in_the_image(self, extractor: Extractor) -> None:
        ((keypoints, _),) = extractor.describe([PIXELS])
        height, width = PIXELS.shape[:2]
        assert ((keypoints["x"] >= 0) & (keypoints["x"] < width)).all()
        assert ((keypoints["y"] >= 0) & (keypoints["y"] < height)).all()

    @pytest.mark.parametrize("shape", [(60, 80, 3), (1, 1, 3), (2, 300, 3)])
    def test_images_of_any_size_are_taken(self, extractor: Extractor, shape: tuple[int, ...]) -> None:
        ((keypoints, descriptors),) = extractor.describe([np.full(shape, 128, np.uint8)])
        assert keypoints.dtype == KEYPOINT
        assert descriptors.shape == (len(keypoints), extractor.dim)
        assert descriptors.dtype == np.dtype(extractor.dtype)

    def test_the_same_pixels_give_the_same_bytes(self, extractor: Extractor) -> None:
        assert as_bytes(extractor.describe([PIXELS.copy()])) == as_bytes(extractor.describe([PIXELS.copy()]))

    def test_the_pixels_are_left_as_they_are(self, extractor: Extractor) -> None:
        pixels = PIXELS.copy()
        extractor.detect_and_compute(pixels)
        assert np.array_equal(pixels, PIXELS)

    def test_images_of_a_batch_do_not_change_each_other(self, extractor: Extractor) -> None:
        images = [picture(seed, width=80 + 16 * seed) for seed in range(max(2, min(extractor.batch_size, 5)))]
        alone = [extractor.describe([pixels])[0] for pixels in images]
        assert as_bytes(extractor.describe(images)) == as_bytes(alone)
