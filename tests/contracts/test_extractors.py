"""What every extractor keeps to."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from featurestore.rows import KEYPOINT
from featurestore.stages.extractors import EXTRACTORS, Extractor
from tests.broken_images import picture

PIXELS = picture(seed=1)


@pytest.fixture(params=EXTRACTORS.names())
def extractor(request: pytest.FixtureRequest) -> Extractor:
    return EXTRACTORS.find(request.param)()


def test_its_name_is_the_one_it_is_found_by(extractor: Extractor) -> None:
    assert EXTRACTORS.find(extractor.name) is type(extractor)


def test_it_is_frozen_and_its_fields_are_the_recipes(extractor: Any) -> None:
    assert is_dataclass(extractor)
    assert all(field.metadata["doc"] for field in fields(extractor))
    with pytest.raises(FrozenInstanceError):
        setattr(extractor, fields(extractor)[0].name, None)


def test_keypoints_and_descriptors_belong_together(extractor: Extractor) -> None:
    keypoints, descriptors = extractor.detect_and_compute(PIXELS)
    assert len(descriptors) > 100
    assert descriptors.shape == (len(keypoints), extractor.dim)
    assert keypoints.dtype == KEYPOINT
    assert descriptors.dtype == np.dtype(extractor.dtype)
    assert np.isfinite(descriptors).all()


def test_keypoints_lie_in_the_image(extractor: Extractor) -> None:
    keypoints, _ = extractor.detect_and_compute(PIXELS)
    height, width = PIXELS.shape[:2]
    assert ((keypoints["x"] >= 0) & (keypoints["x"] < width)).all()
    assert ((keypoints["y"] >= 0) & (keypoints["y"] < height)).all()


@pytest.mark.parametrize("shape", [(60, 80, 3), (1, 1, 3), (2, 300, 3)])
def test_an_image_without_keypoints_gives_none(extractor: Extractor, shape: tuple[int, ...]) -> None:
    keypoints, descriptors = extractor.detect_and_compute(np.full(shape, 128, np.uint8))
    assert keypoints.shape == (0,)
    assert keypoints.dtype == KEYPOINT
    assert descriptors.shape == (0, extractor.dim)
    assert descriptors.dtype == np.dtype(extractor.dtype)


def test_the_same_pixels_give_the_same_bytes(extractor: Extractor) -> None:
    first, again = (extractor.detect_and_compute(PIXELS.copy()) for _ in range(2))
    assert [array.tobytes() for array in first] == [array.tobytes() for array in again]


def test_the_pixels_are_left_as_they_are(extractor: Extractor) -> None:
    pixels = PIXELS.copy()
    extractor.detect_and_compute(pixels)
    assert np.array_equal(pixels, PIXELS)


def test_it_travels_to_workers(extractor: Extractor) -> None:
    assert pickle.loads(pickle.dumps(extractor)) == extractor
