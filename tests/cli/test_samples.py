"""The sample images that the demo and other tests are made of."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from featurestore.cli import samples
from featurestore.errors import MissingDependency


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "images"
    assert samples.make_samples(path) == path / "dataset.csv"
    return path


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "dataset.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def keypoint_count(path: Path) -> int:
    gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert gray is not None
    return len(cv2.SIFT.create().detect(gray, None))


def test_the_csv_lists_every_file_once(folder: Path) -> None:
    rows = read_rows(folder)
    names = [row["filename"] for row in rows]
    assert list(rows[0]) == ["filename", "subset", "photo", "crop", "rotation"]
    assert sorted(names) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    assert len(names) == len(set(names)) == 26


def test_every_fifth_image_is_held_out(folder: Path) -> None:
    subsets = [row["subset"] for row in read_rows(folder)]
    assert [number for number, subset in enumerate(subsets, start=1) if subset == "test"] == [5, 10, 15, 20, 25]
    assert set(subsets) == {"train", "test"}


def test_the_photographs_lie_on_both_sides_of_1800_descriptors(folder: Path) -> None:
    assert keypoint_count(folder / "china" / "centre-090.jpg") > 1800
    assert 0 < keypoint_count(folder / "flower" / "centre-090.jpg") < 1800


def test_the_blank_image_has_no_keypoints(folder: Path) -> None:
    assert keypoint_count(folder / samples.BLANK) == 0


def test_the_broken_file_starts_as_a_jpeg_and_ends_early(folder: Path) -> None:
    data = (folder / samples.BROKEN).read_bytes()
    assert data.startswith(b"\xff\xd8")
    assert b"\xff\xd9" not in data
    assert (folder / "china" / "whole-000.jpg").read_bytes().startswith(data)


def test_a_half_turn_of_the_picture_is_a_half_turn_of_the_pixels() -> None:
    upright, turned = (np.asarray(samples.Sample("flower", "left", angle).image()) for angle in (0, 180))
    assert max(upright.shape) == samples.LONG_SIDE
    assert np.array_equal(turned, upright[::-1, ::-1])


def test_making_them_again_gives_the_same_bytes_and_mends_what_was_damaged(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "flower").mkdir()
    (tmp_path / "flower" / "whole-000.jpg").write_bytes(b"damaged")
    samples.make_samples(tmp_path)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [name for name in files if (folder / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_without_the_photographs_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    samples._photograph.cache_clear()
    with pytest.raises(MissingDependency, match=r"china\.jpg.*reinstall"):
        samples.Sample("china", "whole", 0).image()
