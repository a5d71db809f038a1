"""EXIF orientations are those by which OpenCV turns pictures, and points find the way to the file's grid and back."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featurestore.exchange.orientation import (
    angle_from_file,
    angle_to_file,
    from_file,
    sides_swapped,
    to_file,
)
from featurestore.images import orientation_of
from tests.broken_images import saved

EVERY = range(1, 9)


def of(path: Path) -> int:
    with path.open("rb") as stream:
        return orientation_of(stream)


def turned(orientation: int, kind: str = "PNG") -> bytes:
    """A picture of 7 x 5 pixels, each of another colour, with an EXIF orientation."""
    pixels = np.arange(105, dtype=np.uint8).reshape(5, 7, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker, whose name stands before the orientation"
    return saved(kind, Image.fromarray(pixels), exif=exif)


@pytest.mark.parametrize("orientation", EVERY)
def test_every_pixel_finds_its_place_in_the_file(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(turned(orientation))
    assert of(path) == orientation
    shown, raw = cv2.imread(str(path)), cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert shown is not None
    assert raw is not None
    height, width = shown.shape[:2]
    assert sides_swapped(orientation) == (shown.shape != raw.shape)
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    centres = np.stack([x, y], axis=1) + 0.5
    found = to_file(centres, (width, height), orientation)
    np.testing.assert_array_equal(np.mod(found, 1), 0.5)
    column, line = (found - 0.5).astype(int).T
    np.testing.assert_array_equal(raw[line, column], shown[y, x])
    np.testing.assert_array_equal(from_file(found, (width, height), orientation), centres)


@pytest.mark.parametrize("orientation", EVERY)
def test_angles_turn_with_the_picture(orientation: int) -> None:
    degrees = np.array([0.0, 10, 90, 200, 359])
    one, size = np.array([[20.0, 20]]), (50, 40)
    towards = one + np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)
    moved = to_file(towards, size, orientation) - to_file(one, size, orientation)
    found = angle_to_file(degrees, orientation)
    np.testing.assert_allclose(np.cos(np.radians(found)), moved[:, 0], atol=1e-9)
    np.testing.assert_allclose(np.sin(np.radians(found)), moved[:, 1], atol=1e-9)
    np.testing.assert_allclose(angle_from_file(found, orientation), degrees)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_of_every_format_that_is_turned(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(turned(6, kind))
    assert of(path) == 6
    path.write_bytes(saved(kind, Image.new("RGB", (7, 5))))
    assert of(path) == 1


@given(
    cut=st.integers(0, 1000),
    place=st.integers(0, 1000),
    byte=st.integers(0, 255),
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]),
)
def test_a_damaged_header_says_something_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, cut: int, place: int, byte: int, kind: str
) -> None:
    data = bytearray(turned(6, kind))
    data[place % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: cut % len(data)] if cut % 3 else data)
    assert of(path) in EVERY


def test_segments_and_fill_bytes_before_the_exif_data_are_passed(tmp_path: Path) -> None:
    data = turned(8, "JPEG")
    before = b"\xff\xe2" + struct.pack(">H", 6) + b"icc " + b"\xff" + b"\xff\xe1" + struct.pack(">H", 5) + b"xmp"
    path = tmp_path / "picture.jpg"
    path.write_bytes(data[:2] + before + data[2:])
    assert of(path) == 8
