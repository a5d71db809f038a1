"""The transform that matched keypoints agree on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.matching.similarity import TOLERANCE, count_inliers, fit_similarity
from featurestore.rows import KEYPOINT


def keypoints(n: int, seed: int, *, side: float = 500) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    made = np.zeros(n, KEYPOINT)
    made["x"], made["y"] = rng.uniform(0, side, (2, n))
    made["size"], made["angle"] = rng.uniform(2, 30, n), rng.uniform(0, 360, n)
    return made


def moved(points: NDArray[Any], *, scale: float, degrees: float, shift: tuple[float, float]) -> NDArray[Any]:
    """Return keypoints as they are in a scaled, turned and shifted picture."""
    found, turn = points.copy(), np.radians(degrees)
    found["x"] = scale * (np.cos(turn) * points["x"] - np.sin(turn) * points["y"]) + shift[0]
    found["y"] = scale * (np.sin(turn) * points["x"] + np.cos(turn) * points["y"]) + shift[1]
    found["size"] *= scale
    found["angle"] = (found["angle"] + degrees) % 360
    return found


@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("degrees", [-170.0, 0.0, 33.0, 90.0])
def test_a_known_transform_is_found_among_wrong_matches(scale: float, degrees: float) -> None:
    query = keypoints(100, 1)
    image = moved(query, scale=scale, degrees=degrees, shift=(30, -80))
    image[20:] = keypoints(80, 2, side=3000)  # four of five are wrong
    found = fit_similarity(query, image)
    assert found is not None
    assert found.inliers[:20].all()
    assert found.inliers[20:].sum() <= 1
    assert found.scale == pytest.approx(scale, rel=0.02)
    assert found.degrees == pytest.approx(degrees, abs=1)
    points = np.stack([query["x"], query["y"]], axis=1).astype(np.float64)[:20]
    there = np.stack([image["x"], image["y"]], axis=1)[:20]
    assert np.abs(found.apply(points) - there).max() < TOLERANCE


def test_the_best_proposal_may_be_among_the_last_of_many() -> None:
    query = keypoints(600, 20)  # which are more than one block
    image = moved(query, scale=0.7, degrees=20, shift=(9, 9))
    image[:500] = keypoints(500, 21, side=3000)
    found = fit_similarity(query, image)
    assert found is not None
    assert found.inliers[500:].all()
    assert found.scale == pytest.approx(0.7, rel=0.01)


def test_it_is_fitted_to_all_inliers_and_not_to_one() -> None:
    query = keypoints(50, 3)
    image = moved(query, scale=1.0, degrees=10, shift=(5, 5))
    rng = np.random.default_rng(0)
    image["x"] += rng.normal(0, 2, 50).astype(np.float32)
    image["size"] *= rng.uniform(0.8, 1.25, 50).astype(np.float32)
    image["angle"] = (image["angle"] + rng.normal(0, 5, 50).astype(np.float32)) % 360
    found = fit_similarity(query, image)
    assert found is not None
    assert found.inliers.all()
    assert found.scale == pytest.approx(1, abs=0.005)
    assert found.degrees == pytest.approx(10, abs=0.3)


def test_a_match_of_another_size_or_angle_is_no_inlier() -> None:
    query = keypoints(30, 4)
    image = moved(query, scale=1.0, degrees=0, shift=(0, 0))
    image["size"][0] *= 3
    image["angle"][1] = (image["angle"][1] + 90) % 360
    image["angle"][2] = (image["angle"][2] + 359) % 360  # one degree
    found = fit_similarity(query, image)
    assert found is not None
    assert found.inliers.tolist() == [False, False, *[True] * 28]


def test_the_same_matches_give_the_same_bytes() -> None:
    query, image = keypoints(300, 5), keypoints(300, 6)
    one, other = fit_similarity(query, image), fit_similarity(query, image)
    assert one is not None
    assert other is not None
    assert one.matrix.tobytes() == other.matrix.tobytes()


def test_nothing_to_fit() -> None:
    assert fit_similarity(keypoints(0, 7), keypoints(0, 7)) is None
    flat = keypoints(5, 8)
    flat["size"] = 0
    assert fit_similarity(flat, flat) is None
    one = fit_similarity(keypoints(1, 9), keypoints(1, 10))
    assert one is not None
    assert one.inliers.tolist() == [True]
    again = np.repeat(keypoints(1, 11), 4)  # four at one place
    same = fit_similarity(again, again)
    assert same is not None
    assert same.scale == pytest.approx(1)


def test_of_many_images_as_many_agree_as_of_each() -> None:
    """Images with many matches and few, noisy ones, some that are all wrong, none, and those of size 0."""
    query, image, expected = [], [], []
    for i, n in enumerate([40, 8, 0, 130, 8, 25, 1, 4, 60]):
        ours = keypoints(n, i)
        theirs = moved(ours, scale=0.5 + i / 4, degrees=40 * i, shift=(i, -i))
        rng = np.random.default_rng(i)
        theirs["x"] += rng.normal(0, 6, n).astype(np.float32)
        theirs["size"] *= rng.uniform(0.8, 1.25, n).astype(np.float32)  # so that the fit adds some
        theirs["angle"] = (theirs["angle"] + rng.normal(0, 5, n).astype(np.float32)) % 360
        theirs[n // 2 :] = keypoints(n - n // 2, 90 + i, side=40 if i % 2 else 900)
        theirs["size"][: n // 9] = 0
        ours["size"][: n // 6] = 0
        if i == 7:
            ours[:] = ours[0]
        found = fit_similarity(ours, theirs)
        query.append(ours)
        image.append(theirs)
        expected.append(0 if found is None else int(found.inliers.sum()))
    borders = np.cumsum([0, *map(len, query)])
    assert len(set(expected)) > 5
    assert count_inliers(np.concatenate(query), np.concatenate(image), borders).tolist() == expected
    nothing = np.empty(0, query[0].dtype)
    assert count_inliers(nothing, nothing, np.zeros(4, np.int64)).tolist() == [0, 0, 0]
