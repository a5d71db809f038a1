from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.rows import KEYPOINT
from featurestore.stages import Sift
from featurestore.stages.extractors import RootSift
from tests.broken_images import picture

PIXELS = picture(seed=4)


class Given(RootSift):
    """RootSIFT of descriptors that are given."""

    given: NDArray[np.float32] = np.empty((0, 128), np.float32)

    def compute_float(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Leave out SIFT."""
        return np.zeros(len(self.given), KEYPOINT), self.given


def test_it_is_the_square_root_of_each_share_in_the_sum() -> None:
    keypoints, descriptors = RootSift().detect_and_compute(PIXELS)
    sift_keypoints, sift = Sift().detect_and_compute(PIXELS)
    assert descriptors.dtype == np.float32
    assert np.array_equal(keypoints, sift_keypoints)
    for ours, theirs in zip(descriptors, sift.astype(float), strict=True):
        np.testing.assert_allclose(ours, [np.sqrt(value / theirs.sum()) for value in theirs], rtol=1e-6)


def test_every_norm_is_one() -> None:
    _, descriptors = RootSift().detect_and_compute(PIXELS)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, rtol=1e-6)


def test_the_euclidean_distance_is_the_hellinger_kernel() -> None:
    _, sift = Sift().detect_and_compute(PIXELS)
    _, descriptors = RootSift().detect_and_compute(PIXELS)
    one, other = (row / row.sum() for row in sift[:2].astype(float))
    kernel = np.sqrt(one * other).sum()
    assert np.square(descriptors[0] - descriptors[1]).sum() == pytest.approx(2 - 2 * kernel, rel=1e-5)


def test_a_descriptor_of_zeros_stays_one() -> None:
    extractor = Given()
    object.__setattr__(extractor, "given", np.stack([np.zeros(128), np.ones(128)]).astype(np.float32))
    with np.errstate(all="raise"):
        _, descriptors = extractor.detect_and_compute(PIXELS)
    assert descriptors[0].tolist() == [0] * 128
    np.testing.assert_allclose(descriptors[1], np.sqrt(1 / 128), rtol=1e-6)


def test_the_parameters_of_sift_are_its_own() -> None:
    keypoints, _ = RootSift(nfeatures=20).detect_and_compute(PIXELS)
    assert np.array_equal(keypoints, Sift(nfeatures=20).detect_and_compute(PIXELS)[0])
