from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import ConfigError, LossyDescriptors, MissingDependency
from featurestore.stages import Sift, flow_from
from featurestore.stages.extractors.sift import as_uint8
from tests.broken_images import picture

PIXELS = picture(seed=3)


def opencv(pixels: NDArray[np.uint8], **parameters: Any) -> tuple[list[Any], NDArray[np.float32]]:
    """Keypoints and descriptors straight from OpenCV."""
    detector = cv2.SIFT.create(**parameters)
    keypoints, descriptors = detector.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), None)
    found = [(k.pt[0], k.pt[1], k.size, k.angle, k.response, k.octave) for k in keypoints]
    return found, np.asarray(descriptors, np.float32)


def test_it_is_opencv_descriptor_by_descriptor_and_keypoint_by_keypoint() -> None:
    expected_keypoints, expected = opencv(PIXELS)
    keypoints, descriptors = Sift().detect_and_compute(PIXELS)
    assert len(descriptors) > 400
    assert descriptors.dtype == np.uint8
    assert np.array_equal(descriptors, expected)
    assert [tuple(keypoint) for keypoint in keypoints.tolist()] == expected_keypoints


def test_the_order_of_the_colours_matters() -> None:
    assert not np.array_equal(opencv(PIXELS)[1], opencv(np.ascontiguousarray(PIXELS[:, :, ::-1]))[1])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"nfeatures": 50}, {"nfeatures": 50}),
        ({"n_octave_layers": 5}, {"nOctaveLayers": 5}),
        ({"contrast_threshold": 0.06}, {"contrastThreshold": 0.06}),
        ({"edge_threshold": 3.0}, {"edgeThreshold": 3.0}),
        ({"sigma": 2.5}, {"sigma": 2.5}),
        ({"enable_precise_upscale": True}, {"enable_precise_upscale": True}),
    ],
)
def test_every_parameter_reaches_opencv(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    expected_keypoints, expected = opencv(PIXELS, **theirs)
    keypoints, descriptors = Sift(**ours).detect_and_compute(PIXELS)
    assert np.array_equal(descriptors, expected)
    assert [tuple(keypoint) for keypoint in keypoints.tolist()] == expected_keypoints
    assert not np.array_equal(expected, opencv(PIXELS)[1]), "the parameter makes a difference here"


@pytest.mark.parametrize("precise", [False, True])
def test_the_first_pixel_is_where_the_extractor_says(precise: bool) -> None:
    """Turned by 180 degrees, a point x of the picture is at width - 1 - x, counted from the first pixel's centre."""
    sift = Sift(enable_precise_upscale=precise)
    (here, one), (there, other) = (sift.detect_and_compute(p) for p in (PIXELS, PIXELS[::-1, ::-1].copy()))
    matches = cv2.BFMatcher(crossCheck=True).match(one.astype(np.float32), other.astype(np.float32))
    same = [(m.queryIdx, m.trainIdx) for m in matches if m.distance < 100]
    assert len(same) > 400
    for name, side in (("x", PIXELS.shape[1]), ("y", PIXELS.shape[0])):
        sums = [float(here[name][i] + there[name][j]) for i, j in same]
        assert np.median(sums) == pytest.approx(side - 1 + 2 * sift.first_pixel, abs=0.01)


def test_an_older_opencv_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "__version__", "4.12.0")
    with pytest.raises(MissingDependency, match=r"OpenCV 4\.12\.0, and OpenCV 5 or newer is needed"):
        Sift().detect_and_compute(PIXELS)


def test_whole_numbers_become_uint8_as_they_are() -> None:
    values = np.arange(256, dtype=np.float32).reshape(2, 128)
    assert as_uint8(values).dtype == np.uint8
    assert np.array_equal(as_uint8(values), values)
    assert as_uint8(np.empty((0, 128), np.float32)).shape == (0, 128)


@pytest.mark.parametrize("value", [0.5, 254.99998, 256.0, -1.0, 1e9, float("nan"), float("inf"), float("-inf")])
def test_what_uint8_cannot_hold_raises(value: float) -> None:
    values = np.full((3, 4), 7, np.float32)
    values[1, 2] = value
    message = (
        f"SIFT gave the value {float(np.float32(value))}, which uint8 can't hold without loss; this build of OpenCV "
        "computes other descriptors than the released ones. Install opencv-python-headless from its wheel"
    )
    with pytest.raises(LossyDescriptors, match=re.escape(message)):
        as_uint8(values)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sigma": 0.0}, r"\[extract.sift\] sigma is 0.0, and should be at least 0.01 and at most 100.0"),
        ({"sigma": 10_000}, "sigma is 10000.0, and should be"),  # OpenCV would blur for hours
        ({"nfeatures": 2**31}, "nfeatures is 2147483648, and should be at least 0 and at most 2147483647"),
        ({"nOctaveLayers": 3}, r"\[extract.sift\] has no key 'nOctaveLayers'; its keys are nfeatures, n_octave_layers"),
    ],
)
def test_parameters_that_opencv_would_choke_on(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        flow_from({"extract": {"sift": table}})
