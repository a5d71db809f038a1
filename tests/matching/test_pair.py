"""The check of a pair: what counts, and what it is called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.matching import Features, Verdict, check_pair
from featurestore.rows import KEYPOINT

SIDE = 400


def features(places: NDArray[Any], seed: int = 0, *, common: int | None = None) -> Features:
    """Return features at places ``(n, 2)``; the first ``common`` descriptors are the same for every seed."""
    keypoints = np.zeros(len(places), KEYPOINT)
    keypoints["x"], keypoints["y"] = places[:, 0], places[:, 1]
    keypoints["size"] = 8
    values = np.random.default_rng(99).normal(0, 100, (len(places), 16)).astype(np.float32)
    own = np.random.default_rng(seed).normal(0, 100, values.shape).astype(np.float32)
    shared = len(places) if common is None else common
    return Features(np.concatenate([values[:shared], own[shared:]]), keypoints, (SIDE, SIDE))


def inside(n: int, seed: int = 1) -> NDArray[Any]:
    """Return places away from the border, with the four corners as the last ones."""
    rng = np.random.default_rng(seed)
    corners = [(0, 0), (0, SIDE), (SIDE, 0), (SIDE, SIDE)]
    return np.concatenate([rng.uniform(60, SIDE - 60, (n, 2)), corners])


def test_a_pair_is_printed_in_a_line() -> None:
    query = features(inside(40))
    assert repr(query) == "<Features of (400, 400) pixels; descriptors: (44, 16)>"
    said = repr(check_pair(query, query))
    assert said.startswith("<PairMatch found: 4")
    assert "transform: (2, 3)" in said
    assert "\n" not in said
    assert len(said) < 250


@pytest.mark.parametrize(
    ("common", "status"),
    [(12, Verdict.FOUND), (10, Verdict.FOUND), (9, Verdict.POSSIBLE), (7, Verdict.POSSIBLE), (6, Verdict.CANDIDATE)],
)
def test_the_status_follows_the_inliers(common: int, status: Verdict) -> None:
    places = inside(40)
    found = check_pair(features(places, 1, common=common), features(places, 2, common=common))
    assert (found.inliers, found.status) == (common, status)
    assert len(found.query_points) == len(found.image_points) == len(found.distances) == common


def test_the_least_number_of_inliers_can_be_chosen() -> None:
    places = inside(40)
    one, other = features(places, 1, common=8), features(places, 2, common=8)
    assert check_pair(one, other, min_inliers=8).status is Verdict.FOUND
    assert check_pair(one, other, min_inliers=30).status is Verdict.POSSIBLE


def test_matches_on_the_border_of_both_do_not_count() -> None:
    rng = np.random.default_rng(3)
    along, near = rng.uniform(0, SIDE, 30), rng.uniform(0, 8, 30)
    sides = [np.stack(pair, axis=1) for pair in ((along, near), (along, SIDE - near), (near, along))]
    frame = np.concatenate([*sides, inside(20)])
    found = check_pair(features(frame, 1, common=90), features(frame, 2, common=90))
    assert found.on_border == 90
    assert (found.inliers, found.status) == (0, Verdict.CANDIDATE)
    again = check_pair(features(frame, 1), features(frame, 2))  # the picture within is the same too
    assert (again.inliers, again.status) == (20, Verdict.FOUND)


@pytest.mark.parametrize(("n_inside", "status"), [(0, Verdict.POSSIBLE), (3, Verdict.POSSIBLE), (20, Verdict.FOUND)])
def test_two_pictures_in_a_wide_frame_are_not_found(n_inside: int, status: Verdict) -> None:
    rng = np.random.default_rng(5)
    along, near = rng.uniform(0, SIDE, 40), rng.uniform(45, 90, 40)
    sides = [np.stack(pair, axis=1) for pair in ((along, near), (along, SIDE - near), (near, along))]
    middle = rng.uniform(120, SIDE - 120, (80, 2))
    places = np.concatenate([*sides, middle, inside(0)])
    common = 120 + n_inside
    found = check_pair(features(places, 1, common=common), features(places, 2, common=common))
    assert found.inliers >= 80
    assert found.status is status


def moved(n_elsewhere: int, *, apart: bool) -> tuple[Features, Features]:
    """Return features of which 20 have stayed and others have moved by 50 pixels: among the 20, or apart from them."""
    places = np.random.default_rng(6).uniform(60, SIDE - 120, (20 + n_elsewhere, 2))
    if apart:
        places[:20, 0] = places[:20, 0] % 60 + 60
        places[20:, 0] = places[20:, 0] % 60 + 200
    elsewhere = places + np.where(np.arange(len(places)) < 20, 0, 50)[:, np.newaxis]
    return features(np.concatenate([places, inside(0)])), features(np.concatenate([elsewhere, inside(0)]))


def test_matches_of_a_pattern_that_fit_several_places_are_not_found() -> None:
    cases = ((18, False), (11, False), (5, False), (18, True))
    pattern, half, few, depth = (check_pair(*moved(n, apart=apart)) for n, apart in cases)
    assert (pattern.inliers, pattern.status) == (20, Verdict.POSSIBLE)
    assert (half.inliers, half.status) == (20, Verdict.POSSIBLE)
    assert (few.inliers, few.status) == (20, Verdict.FOUND)
    assert (depth.inliers, depth.status) == (20, Verdict.FOUND)  # what is nearer moves more, and contradicts nothing


def test_a_border_that_lies_inside_the_other_image_counts() -> None:
    detail = inside(0)  # a detail whose only matches are at its corners
    rng = np.random.default_rng(4)
    detail = np.concatenate([np.stack([rng.uniform(0, SIDE, 20), rng.uniform(0, 10, 20)], axis=1), detail])
    detail[10:20, 1] = SIDE - detail[10:20, 1]
    whole = detail + SIDE
    around = np.array([(0, 0), (3 * SIDE, 3 * SIDE)])
    there = features(np.concatenate([whole, around]))
    found = check_pair(features(np.concatenate([detail, inside(1)[:2]])), there)
    assert found.on_border == 0
    assert found.status is Verdict.FOUND


def test_places_with_several_angles_count_once() -> None:
    places = inside(9)
    places[:5] = (150, 150)
    found = check_pair(features(places, 1, common=9), features(places, 2, common=9))
    assert len(found.query_points) == 9
    assert (found.inliers, found.status) == (5, Verdict.CANDIDATE)


def test_inliers_on_a_line_are_not_found() -> None:
    places = inside(30)
    places[:20, 1] = 200 + np.linspace(-2, 2, 20)
    places[:20, 0] = np.linspace(60, 340, 20)
    found = check_pair(features(places, 1, common=20), features(places, 2, common=20))
    assert (found.inliers, found.status) == (20, Verdict.POSSIBLE)


def test_the_outline_is_where_the_query_lies() -> None:
    places = inside(30)
    whole = features(np.concatenate([places / 2 + 100, inside(0)]), 1, common=30)
    whole.keypoints["size"] /= 2
    found = check_pair(features(places, 2, common=30), whole)
    assert found.outline is not None
    assert np.allclose(found.outline, [(100, 100), (300, 100), (300, 300), (100, 300)])
    assert found.scale == pytest.approx(0.5)
    assert found.degrees == pytest.approx(0, abs=1e-4)


def test_nothing_in_common() -> None:
    places = inside(30)
    none = features(places[:0])
    for one, other in ((none, none), (none, features(places)), (features(places), none)):
        found = check_pair(one, other)
        assert (found.status, found.inliers, found.n_matches, found.outline) == (Verdict.CANDIDATE, 0, 0, None)
        assert found.as_dict()["matches"] == []
