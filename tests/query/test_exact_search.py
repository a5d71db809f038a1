"""The oracle: every descriptor compared, one vote for an image, and none dropped by the check."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore import FeatureStore
from featurestore.matching import PairMatch, Verdict
from featurestore.query import exact_search, select_images
from featurestore.query.exact_search import KEPT, NEIGHBOURS, most_votes, search_exactly
from featurestore.query.search import ranking
from tests.small import context_of

NAME = "china/whole-000.jpg"


def votes_by_hand(query: NDArray[np.float32], images: dict[int, NDArray[np.float32]]) -> dict[int, float]:
    """Return the votes of each image, one descriptor at a time, in float64."""
    votes = dict.fromkeys(images, 0.0)
    unit = float((query.astype(np.float64) ** 2).sum(axis=1).mean())
    for one in query.astype(np.float64):
        nearest = sorted((float(np.linalg.norm(of - one, axis=1).min()), row) for row, of in images.items())
        last, n_voting = nearest[min(NEIGHBOURS, len(nearest) - 1)][0], NEIGHBOURS
        beyond = beyond_copies_by_hand([distance for distance, _ in nearest], unit)
        if beyond:
            last, n_voting = beyond, sum(distance < beyond for distance, _ in nearest)
        for distance, row in nearest[:n_voting]:
            votes[row] += 1.0 if len(nearest) == 1 else (1 - distance / last if last else 0.0)
    return votes


def beyond_copies_by_hand(distances: list[float], unit: float) -> float | None:
    """Return the distance that votes are measured by where the nearest are copies; None where they are not."""
    halves = [math.frexp(max(distance**2 / unit, 2**-12)) for distance in distances]
    bins = [4 * exponent + int(8 * mantissa) - 4 for mantissa, exponent in halves]  # the first ends where a square is
    for n in range(11, len(bins)):  # the nearest n are copies
        if bins[n] - bins[n - 1] > (4 if len(bins) - n > 10 else 8):
            edge = bins[min(n + 10, len(bins) - 1)]
            return math.sqrt(unit * 2.0 ** (edge // 4 - 1) * (1 + edge % 4 / 4))
    return None


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


def made_up(n_copies: int, spread: float, *, n_others: int = 40) -> tuple[NDArray[np.float32], dict[int, Any]]:
    """Return a query, of which a third shows the image that has copies, and images: the copies have even numbers."""
    rng = np.random.default_rng(0)
    others, (whole,) = rng.normal(0, 30, (n_others, 60, 64)), rng.normal(0, 30, (1, 60, 64))
    query = np.concatenate([whole[:20] + rng.normal(0, 8, (20, 64)), rng.normal(0, 30, (40, 64))])
    images = {2 * i: whole + rng.normal(0, 1, whole.shape) * spread for i in range(n_copies)}
    images |= {2 * i + 1: other for i, other in enumerate(others)}
    return query.astype(np.float32), {row: images[row].astype(np.float32) for row in sorted(images)}


@pytest.mark.parametrize("spread", [0, 2])
@pytest.mark.parametrize("n_copies", [1, 2, 10, 11, 12, 20, 30, 100])
def test_copies_are_candidates_however_many(n_copies: int, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    query, images = made_up(n_copies, spread)
    rows, scores = most_votes(query, images.items(), most=20)
    n = min(20, n_copies)
    assert (rows[:n] % 2 == 0).all()
    assert (rows[n:] % 2 == 1).all()
    if spread == 0:
        assert rows[:n].tolist() == list(range(0, 2 * n, 2))  # the first of equal ones
        assert len(set(scores[:n].tolist())) == 1
        _, alone = most_votes(query, made_up(1, 0)[1].items(), most=1)
        assert scores[0] == pytest.approx(alone[0], rel=0.2)
    if n_copies <= KEPT:
        expected = votes_by_hand(query, images)
        assert dict(zip(rows.tolist(), scores, strict=True)) == pytest.approx(
            {row: expected[row] for row in rows.tolist()}, abs=1e-4
        )
    for images_at_once in (1, 7, 1000):
        monkeypatch.setattr(exact_search, "IMAGES", images_at_once)
        again = most_votes(query, images.items(), most=20)
        assert again[0].tolist() == rows.tolist(), images_at_once
        assert again[1].tolist() == scores.tolist(), images_at_once


@pytest.mark.parametrize("n_others", [0, 1, 5, 40])
@pytest.mark.parametrize("n_copies", [1, 2, 11, 30, 100])
def test_copies_of_the_query_have_whole_votes(n_copies: int, n_others: int) -> None:
    _, images = made_up(n_copies, 0, n_others=n_others)
    rows, scores = most_votes(images[0], images.items(), most=20)
    assert rows[: min(20, n_copies)].tolist() == list(range(0, 2 * min(20, n_copies), 2))
    assert scores[: min(20, n_copies)] == pytest.approx(len(images[0]), abs=0.1)


def test_a_store_of_nothing_but_copies_has_candidates() -> None:
    for spread in (0, 2):
        query, images = made_up(30, spread, n_others=0)
        rows, scores = most_votes(query, images.items(), most=20)
        assert len(rows) == 20, spread
        assert scores.tolist() == sorted(scores.tolist(), reverse=True), spread
        if spread == 0:
            assert rows.tolist() == list(range(0, 40, 2))
            assert (scores == len(query)).all()


def test_an_image_with_hardly_any_descriptors_does_not_make_the_others_copies() -> None:
    query, images = made_up(1, 0, n_others=12)
    images[99] = images[1][:1]
    rows, scores = most_votes(query, images.items(), most=20)
    expected = votes_by_hand(query, images)
    assert dict(zip(rows.tolist(), scores, strict=True)) == pytest.approx(
        {row: expected[row] for row in rows.tolist()}, abs=1e-4
    )
    nearest = np.sort([np.linalg.norm(query[:, None] - of, axis=2).min(axis=1) for of in images.values()], axis=0)
    plain = np.maximum(0, 1 - nearest[:10] / nearest[10]).sum()
    assert scores.sum() == pytest.approx(plain, rel=1e-4)


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
