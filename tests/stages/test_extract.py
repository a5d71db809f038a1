from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any, ClassVar

import cv2
import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import LossyDescriptors, MissingDependency, NotEnoughSpace
from featurestore.rows import Row
from featurestore.stages import Extract, Sift
from featurestore.stages.extractors import RootSift
from tests.broken_images import NOT_IMAGES, bomb_png, encoded, picture


class Failing(Sift):
    """An extractor that fails as OpenCV does, or that computes something else than SIFT."""

    error: ClassVar[BaseException | None] = None
    value: ClassVar[float] = 0.5

    def compute_float(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Fail, or give descriptors of one value."""
        if self.error is not None:
            raise self.error
        keypoints, descriptors = super().compute_float(pixels)
        return keypoints, np.full_like(descriptors, self.value)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    """`Failing`, whose error is None to begin with."""
    monkeypatch.setattr(Failing, "error", None)
    return Failing


def write(folder: Path, data: bytes, name: str = "a.png") -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def extract(path: str, stage: Extract | None = None) -> Row:
    return (stage or Extract()).extract(7, "a.png", path)


def whole(folder: Path) -> str:
    return write(folder, encoded(".png", picture()))


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_it_is_what_opencv_makes_of_the_file(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path, encoded(extension, picture()), f"a{extension}")
    image = cv2.imread(path)
    assert image is not None
    keypoints, descriptors = cv2.SIFT.create().detectAndCompute(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), None)
    row = extract(path)
    assert (row.image_id, row.filename, row.status, row.error) == (7, "a.png", "ok", None)
    assert row.descriptors is not None
    assert row.keypoints is not None
    assert row.descriptors.dtype == np.uint8
    assert np.array_equal(row.descriptors, descriptors)
    assert row.keypoints.tolist() == [(*k.pt, k.size, k.angle, k.response, k.octave) for k in keypoints]


def test_the_source_is_described(tmp_path: Path) -> None:
    data = encoded(".png", picture(160, 120))
    assert extract(write(tmp_path, data)).extra == {
        "width": 160,
        "height": 120,
        "source_bytes": len(data),
        "source_hash": hashlib.sha256(data).hexdigest(),
        "exif_orientation": 1,
        "source_version": None,
    }


@pytest.mark.parametrize("name", sorted(NOT_IMAGES))
def test_what_is_no_image_is_unreadable(tmp_path: Path, name: str) -> None:
    row = extract(write(tmp_path, NOT_IMAGES[name], name))
    assert row.status == "unreadable"
    assert row.error
    assert (row.descriptors, row.keypoints, row.n_descriptors) == (None, None, 0)


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    row = extract(str(tmp_path / "nowhere.jpg"))
    assert (row.status, row.error) == ("missing", "the file does not exist")
    assert set(row.extra) == {"width", "height", "source_bytes", "source_hash", "exif_orientation", "source_version"}


def test_a_truncated_jpeg_is_refused_or_kept_as_the_recipe_says(tmp_path: Path) -> None:
    data = encoded(".jpg", picture())
    path = write(tmp_path, data[: len(data) // 2], "half.jpg")
    refused, kept = extract(path), extract(path, Extract(truncated="keep"))
    assert (refused.status, refused.n_descriptors) == ("truncated", 0)
    assert kept.status == "ok"
    assert kept.error is not None
    assert kept.error.startswith("truncated, kept: ")
    image = cv2.imread(path)
    assert image is not None
    descriptors = cv2.SIFT.create().detectAndCompute(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), None)[1]
    assert np.array_equal(np.asarray(kept.descriptors), descriptors), "the rest is grey, as OpenCV leaves it"


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    row = extract(write(tmp_path, bomb_png(30_000, 30_000)))
    assert row.status == "too_large"
    assert (row.extra["width"], row.extra["height"]) == (30_000, 30_000)
    assert extract(whole(tmp_path), Extract(max_pixels=160 * 120)).status == "ok"
    assert extract(whole(tmp_path), Extract(max_pixels=160 * 120 - 1)).status == "too_large"


def test_an_image_without_keypoints_is_empty(tmp_path: Path) -> None:
    row = extract(write(tmp_path, encoded(".png", np.full((50, 50, 3), 200, np.uint8))))
    assert (row.status, row.error, row.descriptors, row.keypoints) == ("empty", "no keypoints found", None, None)
    assert row.extra["width"] == 50


def test_an_error_of_opencv_in_sift_costs_one_image(tmp_path: Path) -> None:
    row = extract(whole(tmp_path), Extract(Sift(nfeatures=2**31)))  # OpenCV takes a C int
    assert row.status == "crashed"
    assert row.error is not None
    assert row.error.startswith("cv2.error: OpenCV(")
    assert "integer won't fit into a C int" in row.error
    assert "\n" not in row.error
    assert row.extra["width"] == 160


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("octave"), "KeyError: 'octave'"),
        (ValueError("bad\n  value \x1b[31m"), "ValueError: bad value [31m"),
        (AssertionError(), "AssertionError"),
        (
            RuntimeError("<Net object at 0x7f12ab34cd56> in /home/me/net.so"),
            "RuntimeError: <Net object at 0x...> in net.so",
        ),
        (
            FileNotFoundError(2, "No such file", "/tmp/x9/weights"),
            "FileNotFoundError: [Errno 2] No such file: 'weights'",
        ),
        (RecursionError("x" * 1000), f"RecursionError: {'x' * 281}..."),
        (StopIteration(), "StopIteration"),
    ],
)
def test_any_exception_of_an_extractor_is_the_images_row(
    failing: type[Failing], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, message: str
) -> None:
    monkeypatch.setattr(failing, "error", error)
    row = extract(whole(tmp_path), Extract(failing()))
    assert (row.status, row.error, row.descriptors) == ("crashed", message, None)
    assert row.extra["source_bytes"] > 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        cv2.error("OpenCV(5.0.0) /io/alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 12 bytes"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENFILE, "Too many open files in system"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        KeyboardInterrupt(),
        SystemExit(3),
        NotEnoughSpace("the disk is full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_the_images_fault_is_raised(
    failing: type[Failing], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException
) -> None:
    monkeypatch.setattr(failing, "error", error)
    with pytest.raises(type(error)) as caught:
        extract(whole(tmp_path), Extract(failing()))
    assert caught.value is error


def test_a_module_that_an_extractor_lacks_ends_the_run(
    failing: type[Failing], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(failing, "error", ModuleNotFoundError("No module named 'torch'"))
    with pytest.raises(MissingDependency) as caught:
        extract(whole(tmp_path), Extract(failing()))
    assert str(caught.value) == (
        "the extractor sift can't work: No module named 'torch'; install what it needs where the workers run, then run "
        "the same command again"
    )


def test_images_that_had_less_time_than_today_are_stale() -> None:
    errors = {
        "took more than 600 CPU seconds": 600,
        "the file can't be read, nor could it a second time (no answer within 6000 seconds)": 600,
        "ValueError: took more than 5 CPU seconds": None,
        "took more than a million CPU seconds": None,
        None: None,
    }
    for error, given in errors.items():
        for today in (0, 1, 600, 601):
            with duckdb.connect() as connection:
                columns = "SELECT 'crashed' AS status, $error AS error, 100 AS pixels"
                extract = Extract(max_seconds=today)
                query = f"SELECT {extract.stale_rows()}, {extract.perhaps_stale_rows()} FROM ({columns})"
                (found,) = connection.execute(query, {"error": error}).fetchall()
            assert found[1] or not found[0]
            assert found[0] == (given is not None and (today == 0 or today > given)), (error, today)


def test_descriptors_that_would_lose_something_end_the_run(failing: type[Failing], tmp_path: Path) -> None:
    with pytest.raises(LossyDescriptors, match=r"SIFT gave the value 0\.5, which uint8 can't hold without loss"):
        extract(whole(tmp_path), Extract(failing()))


def test_rootsift_is_chosen_in_the_recipe_and_shares_the_parameters(tmp_path: Path) -> None:
    stage = Extract(RootSift(nfeatures=30))
    row = extract(whole(tmp_path), stage)
    assert row.descriptors is not None
    assert row.descriptors.dtype == np.float32
    assert row.n_descriptors == extract(whole(tmp_path), Extract(Sift(nfeatures=30))).n_descriptors
    assert (stage.layout().dim, stage.layout().dtype) == (128, "float32")


def test_policies_are_no_part_of_the_identity() -> None:
    variant = Extract().variant(reads="", model_id=None)
    assert Extract(max_pixels=5, truncated="keep", max_seconds=9).variant(reads="", model_id=None) == variant
    others = [Extract(RootSift()), *(Extract(Sift(**{k: v})) for k, v in CHANGES.items())]
    assert len({variant, *(other.variant(reads="", model_id=None) for other in others)}) == 1 + len(others)


CHANGES: dict[str, Any] = {
    "nfeatures": 1,
    "n_octave_layers": 4,
    "contrast_threshold": 0.1,
    "edge_threshold": 9.0,
    "sigma": 2.0,
    "enable_precise_upscale": True,
}
