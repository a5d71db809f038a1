"""Matches of descriptors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.matching import nearest
from featurestore.matching.nearest import mutual_matches


def by_hand(query: NDArray[np.float32], image: NDArray[np.float32], ratio: float) -> list[tuple[int, int]]:
    """Find the matches one at a time, in float64."""
    away = np.linalg.norm(query[:, None].astype(np.float64) - image[None].astype(np.float64), axis=2)
    found = []
    for i, row in enumerate(away):
        j = int(row.argmin())
        second = np.delete(row, j).min(initial=np.inf)
        if row[j] < ratio * second and int(away[:, j].argmin()) == i:
            found.append((i, j))
    return found


def descriptors(n: int, seed: int, *, like: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return descriptors, and between them noisy copies of others in another order."""
    rng = np.random.default_rng(seed)
    made = rng.normal(0, 100, (n, 16)).astype(np.float32)
    if like is not None:
        made[: n // 2] = like[rng.permutation(len(like))[: n // 2]] + rng.normal(0, 30, (n // 2, 16))
    return made


@pytest.mark.parametrize("rows", [1 << 22, 100, 1])
@pytest.mark.parametrize("ratio", [0.6, 0.85, 1.0])
def test_they_are_those_found_by_hand(rows: int, ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "BLOCK", rows)  # blocks of one to all rows
    query = descriptors(60, 1)
    image = descriptors(43, 2, like=query)
    found = mutual_matches(query, image, ratio=ratio)
    expected = by_hand(query, image, ratio)
    assert list(zip(found.query.tolist(), found.image.tolist(), strict=True)) == expected
    assert 10 < len(found) < 43
    away = np.linalg.norm(query[found.query] - image[found.image], axis=1)
    assert found.distances.dtype == np.float32
    assert np.allclose(found.distances, away)


def test_no_descriptor_is_in_two_matches() -> None:
    query = descriptors(80, 3)
    twice = np.concatenate([query[:40], query[:40] + np.float32(0.5)])
    found = mutual_matches(twice, query)
    assert len(set(found.image.tolist())) == len(found) == 40
    assert found.query.max() < 40  # the nearer ones


def test_what_is_in_the_image_twice_matches_nothing() -> None:
    query = descriptors(20, 4)
    assert len(mutual_matches(query, np.concatenate([query, query]))) == 0
    assert len(mutual_matches(query, query)) == 20


@pytest.mark.parametrize(("n", "k", "matches"), [(0, 5, 0), (5, 0, 0), (0, 0, 0), (5, 1, 1)])
def test_few_descriptors(n: int, k: int, matches: int) -> None:
    found = mutual_matches(descriptors(n, 5), descriptors(k, 6))
    assert len(found) == matches
    assert [str(of.dtype) for of in (found.query, found.image, found.distances)] == ["int64", "int64", "float32"]


def test_every_descriptor_has_the_distance_to_its_nearest() -> None:
    query, image = descriptors(9, 1), descriptors(7, 2)
    every = np.linalg.norm(query[:, np.newaxis] - image, axis=2)
    for k in (7, 1):
        found = mutual_matches(query, image[:k])
        np.testing.assert_allclose(np.sqrt(found.squares), every[:, :k].min(axis=1), rtol=1e-4)
    assert np.isinf(mutual_matches(query, image[:0]).squares).all()
