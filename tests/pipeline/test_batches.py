"""An extractor that takes several images at a time gives the rows that it gives of each alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import PluginError
from featurestore.images.image_folder import open_folder
from featurestore.pipeline.image_row import make_row, make_rows
from featurestore.rows import KEYPOINT, Row
from featurestore.stages import Extract, Extractor
from tests.broken_images import encoded, picture

POINT = np.dtype([("x", "<f4"), ("y", "<f4")])


class Means(Extractor):
    """The mean of each channel, at one point; it notes how many images come together."""

    name: ClassVar[str] = "means"
    dim: ClassVar[int] = 3
    dtype: ClassVar[str] = "float32"
    batch_size: ClassVar[int] = 3
    absent: ClassVar[Mapping[str, float]] = {"size": 1, "angle": -1, "response": 0.5, "octave": 2}
    together: ClassVar[list[int]] = []

    def detect_and_compute(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        if pixels.shape[:2] == (7, 7):
            raise ValueError("seven")
        return np.array([(2, 3)], POINT), pixels.mean(axis=(0, 1), keepdims=True)[0].astype(np.float32)

    def detect_and_compute_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        self.together.append(len(images))
        return super().detect_and_compute_batch(images)


@pytest.fixture
def images(tmp_path: Path) -> list[tuple[int, str]]:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encoded(".png", picture(seed=number)))
    Means.together.clear()
    return [(number, f"{number}.png") for number in range(3)]


def values(row: Row) -> tuple[Any, ...]:
    descriptors = None if row.descriptors is None else row.descriptors.tolist()
    keypoints = None if row.keypoints is None else row.keypoints.tolist()
    return row.image_id, row.filename, row.status, row.error, descriptors, keypoints, dict(row.extra)


def rows_of(folder: Path, images: list[tuple[int, str]]) -> list[Row]:
    stage, opened = Extract(Means()), open_folder(folder, read=[], wanted=[name for _, name in images])
    rows = make_rows(stage, images, opened)
    assert [values(row) for row in rows] == [values(make_row(stage, *image, opened)) for image in images]
    return rows


def test_a_batch_is_what_each_is_alone(tmp_path: Path, images: list[tuple[int, str]]) -> None:
    rows = rows_of(tmp_path, images)
    assert Means.together == [3]
    assert {row.status for row in rows} == {"ok"}


def test_what_an_extractor_does_not_give_is_what_it_named(tmp_path: Path, images: list[tuple[int, str]]) -> None:
    keypoints = rows_of(tmp_path, images)[0].keypoints
    assert keypoints is not None
    assert keypoints.dtype == KEYPOINT
    assert keypoints.tolist() == [(2.0, 3.0, 1.0, -1.0, 0.5, 2)]


def test_an_image_that_fails_does_not_take_the_others_with_it(tmp_path: Path, images: list[tuple[int, str]]) -> None:
    (tmp_path / "1.png").write_bytes(encoded(".png", picture(7, 7)))
    assert [(row.status, row.error) for row in rows_of(tmp_path, images)] == [
        ("ok", None),
        ("crashed", "ValueError: seven"),
        ("ok", None),
    ]


@pytest.mark.parametrize("absent", [False, True])
def test_a_file_that_is_no_picture_is_tried_alone(tmp_path: Path, images: list[tuple[int, str]], absent: bool) -> None:
    (tmp_path / "2.png").unlink() if absent else (tmp_path / "2.png").write_bytes(b"none")
    assert [row.status for row in rows_of(tmp_path, images)] == ["ok", "ok", "missing" if absent else "unreadable"]
    assert Means.together == [2]


class Wrong(Means):
    """It breaks its promises."""

    found: ClassVar[Any] = None

    def detect_and_compute(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        keypoints, descriptors = self.found
        return keypoints, descriptors


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            (np.zeros(2, POINT), np.zeros((1, 3), np.float32)),
            r"descriptors \(1, 3\) float32 for 2 keypoints, and not \(2, 3\) float32",
        ),
        (
            (np.zeros(1, POINT), np.zeros((1, 4), np.float32)),
            r"descriptors \(1, 4\) float32 for 1 keypoints, and not \(1, 3\) float32",
        ),
        (
            (np.zeros(1, POINT), np.zeros((1, 3), np.float64)),
            r"descriptors \(1, 3\) float64 for 1 keypoints, and not \(1, 3\) float32",
        ),
        (
            (np.zeros(1, POINT[["x"]]), np.zeros((1, 3), np.float32)),
            r"keypoints with the fields x, and {'size': 1, .*'octave': 2} as absent",
        ),
    ],
)
def test_a_broken_promise_ends_the_run_and_blames_the_plugin(found: Any, message: str) -> None:
    Wrong.found = found
    with pytest.raises(PluginError, match=f"^the extractor means gave {message}. That is a fault of the plug-in"):
        Extract(Wrong()).describe([picture()])
