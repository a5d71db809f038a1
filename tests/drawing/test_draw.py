"""Keypoints and matches are drawn where they are, on pictures of any size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.drawing import ALL, KEPT, Layer, Picture, draw_keypoints, draw_pair
from featurestore.drawing.draw import BAR, GAP, OUTLINE, PAPER
from featurestore.errors import OutputError
from featurestore.rows import KEYPOINT

WHITE = np.full((100, 200, 3), 255, np.uint8)


def keypoint(x: float, y: float, size: float, angle: float = 0) -> NDArray[np.void]:
    return np.array([(x, y, size, angle, 1, 0)], KEYPOINT)


def coloured(picture: Picture, colour: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return the places of a colour, and its blends with white, as ``(n, 2)`` of x and y."""
    near = np.abs(picture.pixels.astype(int) - colour).max(axis=2) < 60
    return np.argwhere(near)[:, ::-1]


@pytest.mark.parametrize("longest", [1000, 100])
def test_a_keypoint_is_a_circle_of_its_size_around_its_place(longest: int) -> None:
    picture = draw_keypoints(WHITE, [Layer(keypoint(60, 40, 40), KEPT)], title="one", longest=longest)
    scale = min(1, longest / 200)
    assert picture.pixels.shape == (100 * scale, 200 * scale, 3)
    found = coloured(picture, KEPT)
    assert np.abs(found.min(axis=0) - np.array([40, 20]) * scale).max() <= 2
    assert np.abs(found.max(axis=0) - np.array([80, 60]) * scale).max() <= 2
    assert (WHITE == 255).all()  # what is given stays as it is


def test_the_radius_points_in_the_direction_of_the_angle() -> None:
    picture = draw_keypoints(WHITE, [Layer(keypoint(100, 50, 60, angle=90), ALL)], title="one")
    assert (picture.pixels[50:78, 100] != 255).any(axis=1).all()  # clockwise from the right: down
    assert (picture.pixels[25:45, 100] == 255).all()


def test_later_layers_are_drawn_over_earlier_ones() -> None:
    one = keypoint(100, 50, 60)
    picture = draw_keypoints(WHITE, [Layer(one, ALL), Layer(one, KEPT)], title="both")
    alone = draw_keypoints(WHITE, [Layer(one, KEPT)], title="one")
    assert len(coloured(picture, KEPT)) >= len(coloured(alone, KEPT)) > 0
    assert not len(coloured(picture, ALL))


def test_a_match_is_a_line_between_its_places() -> None:
    grey = np.full((60, 80, 3), 128, np.uint8)
    points, there = np.array([[10.0, 20.0]]), np.array([[150.0, 50.0]])
    outline = np.array([[100.0, 30.0], [190.0, 30.0], [190.0, 90.0], [100.0, 90.0]])
    picture = draw_pair(
        grey,
        WHITE,
        query_points=points,
        image_points=there,
        distances=np.zeros(1, np.float32),
        outline=outline,
        title="",
    )
    assert picture.pixels.shape == (BAR + 100, 80 + GAP + 200, 3)
    assert (picture.pixels[BAR + 70, :80] == PAPER).all()  # below the smaller image
    green = coloured(picture, OUTLINE)
    assert np.abs(green.min(axis=0) - (80 + GAP + 100, BAR + 30)).max() <= 2
    assert np.abs(green.max(axis=0) - (80 + GAP + 190, BAR + 90)).max() <= 2
    for x, y in ((10, BAR + 20), (80 + GAP + 150, BAR + 50), ((10 + 80 + GAP + 150) // 2, BAR + 35)):
        near = picture.pixels[y - 2 : y + 3, x - 2 : x + 3].astype(int)
        assert (np.ptp(near, axis=2) > 100).any(), (x, y)  # a colour, on grey, white or paper


def test_only_the_nearest_matches_are_drawn() -> None:
    points = np.random.default_rng(0).uniform(5, 90, (300, 2))

    def drawn(n: int) -> NDArray[np.uint8]:
        part, far = points[:n], np.arange(n, dtype=np.float32)
        return draw_pair(
            WHITE, WHITE, query_points=part, image_points=part, distances=far, outline=None, title=""
        ).pixels

    assert (drawn(300) == drawn(200)).all()
    assert (drawn(200) != drawn(199)).any()


def test_a_pair_without_matches() -> None:
    none = np.empty((0, 2))
    nothing = np.empty(0, np.float32)
    picture = draw_pair(WHITE, WHITE, query_points=none, image_points=none, distances=nothing, outline=None, title="")
    assert (picture.pixels[BAR:, :200] == 255).all()


def test_the_outline_and_the_title_stay_where_they_belong() -> None:
    empty, dark = np.empty((0, 2)), np.zeros((40, 30, 3), np.uint8)
    outline = np.array([(-20.0, 5), (50, 5), (50, 30), (-20, 30)])  # of a query that shows more than the image
    picture = draw_pair(
        dark,
        dark,
        query_points=empty,
        image_points=empty,
        distances=np.empty(0, np.float32),
        outline=outline,
        title="found: 120 of 200 matches agree",
    )
    places = coloured(picture, OUTLINE)
    assert len(places)
    assert places[:, 0].min() >= 30 + GAP
    assert places[:, 0].max() < 30 + GAP + 30
    written = np.flatnonzero((picture.pixels[:BAR] != PAPER).any(axis=(0, 2)))
    assert 200 < written[-1] < picture.pixels.shape[1] - 1, "the text is not cut off"


def test_a_picture_is_written_as_its_suffix_says(tmp_path: Path) -> None:
    picture = Picture(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8), "noise")
    for suffix, start in ((".png", b"\x89PNG"), (".JPG", b"\xff\xd8"), (".webp", b"RIFF")):
        path = tmp_path / f"out{suffix}"
        picture.save(path)
        assert path.read_bytes().startswith(start)
    written = cv2.imread(str(tmp_path / "out.png"))
    assert written is not None
    assert (written == picture.pixels).all()
    assert picture._repr_png_() == (tmp_path / "out.png").read_bytes()
    assert repr(picture) == "<Picture of 60 x 40 pixels: noise>"


def test_a_picture_replaces_nothing_unasked(tmp_path: Path) -> None:
    picture, path = Picture(WHITE, "white"), tmp_path / "out.png"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        picture.save(path)
    assert path.read_bytes() == b"mine"
    picture.save(path, force=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputError, match=r"out.gif ends in none of .png, .jpg, .jpeg, .webp"):
        picture.save(tmp_path / "out.gif")
    with pytest.raises(OutputError, match="is not a folder"):
        picture.save(tmp_path / "nowhere" / "out.png")


def test_a_picture_too_wide_for_a_format(tmp_path: Path) -> None:
    wide = Picture(np.zeros((2, 20_000, 3), np.uint8), "wide")
    with pytest.raises(OutputError, match=r"20000 x 2 pixels can't be written as .webp; take .png"):
        wide.save(tmp_path / "out.webp")
    assert not list(tmp_path.iterdir())
