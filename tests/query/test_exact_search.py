"""The oracle: every descriptor compared, one vote for an image, and none dropped by the check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore import FeatureStore
from featurestore.matching import PairMatch, Verdict
from featurestore.query import exact_search, select_images
from featurestore.query.exact_search import NEIGHBOURS, search_exactly
from featurestore.query.search import ranking
from tests.small import context_of

NAME = "china/whole-000.jpg"


def votes_by_hand(query: NDArray[np.float32], images: dict[int, NDArray[np.float32]]) -> dict[int, float]:
    """Return the votes of each image, one descriptor at a time, in float64."""
    votes = dict.fromkeys(images, 0.0)
    for one in query.astype(np.float64):
        nearest = sorted((float(np.linalg.norm(of - one, axis=1).min()), row) for row, of in images.items())
        last = nearest[min(NEIGHBOURS, len(nearest) - 1)][0]
        for distance, row in nearest[:NEIGHBOURS]:
            votes[row] += 1.0 if len(nearest) == 1 else (1 - distance / last if last else 0.0)
    return votes


@pytest.mark.parametrize("where", [None, "filename LIKE 'flower%'", "filename = 'flower/left-000.jpg'"])
def test_the_votes_are_those_counted_by_hand(
    finished: FeatureStore, where: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_search, "BLOCK", 3000)
    selection = select_images(context_of(finished), where=where)
    decoder = finished._current_lookup().decoder(None)
    query = finished.dequantize(finished.descriptors(NAME)[:25])
    codes = FeatureStore.arrays(finished.load(where=where))
    images = {row: finished.dequantize(one) for row, one in enumerate(codes) if one is not None and len(one)}
    expected = votes_by_hand(query, images)
    for images_at_once in (1, 7, 64):
        monkeypatch.setattr(exact_search, "IMAGES", images_at_once)
        found = search_exactly(query, selection, decoder, most=100)
        assert found.n_images == len(images), images_at_once
        assert found.n_missing == 0, images_at_once
        assert dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True)) == pytest.approx(
            {row: votes for row, votes in expected.items() if row in found.rows}, abs=0.02
        ), images_at_once
        assert sum(votes for row, votes in expected.items() if row not in found.rows) == 0, images_at_once
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True), images_at_once


def test_how_images_are_read_makes_no_difference(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finished.search(NAME, top=30).as_dict()
    monkeypatch.setattr(exact_search, "IMAGES", 2)
    again = finished.search(NAME, top=30).as_dict()
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}


def test_an_image_can_be_left_out(finished: FeatureStore) -> None:
    selection = select_images(context_of(finished))
    query = finished.dequantize(finished.descriptors(NAME))
    decoder = finished._current_lookup().decoder(None)
    names = selection.images["filename"].to_pylist()
    best = search_exactly(query, selection, decoder, most=1)
    assert names[best.rows[0]] == NAME
    image_id = int(selection.image_ids[best.rows[0]])
    others = search_exactly(query, selection, decoder, most=100, without=image_id)
    assert NAME not in [names[row] for row in others.rows]
    assert others.n_images == best.n_images - 1


def checked(inliers: int, *, found: bool | None = None) -> Any:
    status = Verdict.FOUND if (inliers >= 10 if found is None else found) else Verdict.CANDIDATE
    none: NDArray[Any] = np.empty((0, 2))
    return PairMatch(status, inliers, 0, 0, None, 0, 0, None, none, none, np.empty(0, np.float32))


@pytest.mark.parametrize(
    ("inliers", "order"),
    [
        ([0, 3, 12, 40], [3, 2, 0, 1, 4, 5]),
        ([5, 1, 6, 5], [2, 0, 1, 3, 4, 5]),
        ([], [0, 1, 2, 3, 4, 5]),
        ([20, 20], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_what_fails_the_check_stays_below_in_order(inliers: list[int], order: list[int]) -> None:
    assert ranking([checked(n) for n in inliers], 6) == order


def test_found_is_above_more_inliers_on_a_line() -> None:
    assert ranking([checked(30, found=False), checked(11)], 2) == [1, 0]
