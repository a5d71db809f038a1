"""The index of words: distances are Hamming distances to the entries of the nearest words, and votes are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import CorruptFile, QueryError
from featurestore.retrieval import Extents, WordsIndex, count_votes, effort, merge_neighbours, pack, unpack, words_index
from featurestore.retrieval.nearest_words import hardly_farther, nearest_words
from featurestore.retrieval.words_index import LEAST_CELLS, PROBED_CELLS
from featurestore.rows import KEYPOINT
from featurestore.stages.codebook import assign, learn_words, rotation, signatures

faiss = pytest.importorskip("faiss", reason="faiss is an optional dependency")

DIM = 24


def model(n_words: int) -> dict[str, NDArray[Any]]:
    values = np.random.default_rng(1).normal(0, 50, (4000, DIM)).astype(np.float32)
    cells, words, starts = learn_words(values, n_words, seed=0)
    return {"cells": cells, "words": words, "starts": starts, "rotation": rotation(DIM, seed=0)}


def entries(of: dict[str, NDArray[Any]], n: int, seed: int) -> tuple[NDArray[Any], ...]:
    """Return values, their words and signatures, and the image and number of each."""
    values = np.random.default_rng(seed).normal(0, 50, (n, DIM)).astype(np.float32)
    words = assign(values, of["cells"], of["words"], of["starts"])
    bits = signatures(values, of["words"], words, of["rotation"])
    return values, words, bits, np.arange(n) // 30 + 7, np.arange(n) % 30


def by_hand(
    query: NDArray[np.float32], of: dict[str, NDArray[Any]], words: NDArray[Any], bits: NDArray[Any], n_words: int
) -> list[list[int]]:
    """Return the Hamming distances of each descriptor to all entries of its nearest words, ascending."""
    found = []
    for one in query:
        near = np.argsort(np.linalg.norm(of["words"] - one, axis=1))[:n_words]
        distances: list[int] = []
        for word in near:
            own = signatures(one[np.newaxis], of["words"], np.array([word], np.uint32), of["rotation"])
            distances += np.unpackbits(bits[words == word] ^ own, axis=1).sum(axis=1).tolist()
        found.append(sorted(distances))
    return found


@pytest.mark.parametrize(("n_words", "probed"), [(16, 16), (16, 3), (64, 2), (256, 1)])
def test_neighbours_are_those_counted_by_hand(n_words: int, probed: int, tmp_path: Path) -> None:
    of = model(n_words)
    values, words, bits, images, numbers = entries(of, 900, seed=2)
    index = WordsIndex.empty(of)
    for part in (slice(0, 500), slice(500, 500), slice(500, 900)):
        index.add(words[part], bits[part], images[part], numbers[part])
    assert (len(index), index.n_words) == (900, len(of["words"]))
    query = values[::9] + np.random.default_rng(3).normal(0, 4, (100, DIM)).astype(np.float32)
    found = index.search(query, k=900, n_words=probed)
    expected = by_hand(query, of, words, bits, probed)
    same = [
        sorted(row[np.isfinite(row)].astype(int).tolist()) == wanted
        for row, wanted in zip(found.distances, expected, strict=True)
    ]
    assert np.mean(same) > 0.85 if n_words == 256 else all(same)  # of many words some are in cells not looked into
    itself = index.search(values, k=1, n_words=probed)
    assert (itself.distances[:, 0] == 0).mean() > 0.97
    exact = itself.distances[:, 0] == 0
    assert np.array_equal(itself.image_ids[exact, 0] * 30 + itself.places[exact, 0] - 210, np.flatnonzero(exact))
    index.save(tmp_path / "words.faiss")
    again = WordsIndex.mapped(tmp_path / "words.faiss").search(query, k=900, n_words=probed)
    for one, other in zip(vars(found).values(), vars(again).values(), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("n_words", [1, 3, 40])
def test_many_descriptors_have_the_words_that_faiss_finds(n_words: int) -> None:
    of = model(1024)  # in 32 cells, some of which have fewer words than 32
    index = WordsIndex.empty(of)
    assert index._cells is not None
    query = entries(of, 500, seed=6)[0]
    distances, words = nearest_words(query, *index._cells, n_words=n_words, probed=PROBED_CELLS)
    expected = index._index.quantizer.search(query, n_words)
    assert (words == expected[1]).mean() > 0.999  # a few are equally near
    assert distances == pytest.approx(expected[0], rel=1e-4)


@pytest.mark.parametrize(
    ("n", "neighbours", "cells"),
    [(0, 32, 8), (100, 32, 8), (900, 32, 8), (1200, 24, 6), (1800, 16, 5), (5000, 16, 5)],
)
def test_each_descriptor_of_a_large_query_has_less_effort(n: int, neighbours: int, cells: int) -> None:
    assert effort(32, n, least=16) == neighbours
    assert effort(PROBED_CELLS, n, least=LEAST_CELLS) == cells


def test_of_many_words_those_are_looked_into_that_are_hardly_farther() -> None:
    squares = np.array([[1, 1.1, 4], [2, 2.1, 2.2], [0, 5, np.inf], [3, 9, 9]], np.float32)
    assert hardly_farther(squares, 12).all()
    assert hardly_farther(squares, 7).tolist() == [
        *[[True, True, False], [True, True, True], [True, False, False], [True, False, False]],
    ]
    for most in (4, 3, 0):
        assert hardly_farther(squares, most).tolist() == [[True, False, False]] * 4


def test_many_descriptors_look_into_fewer_words_each(monkeypatch: pytest.MonkeyPatch) -> None:
    of = model(1024)
    values, *columns = entries(of, 900, seed=2)
    index = WordsIndex.empty(of)
    index.add(*columns)
    assert index._cells is not None
    whole = index.search(values, k=900, n_words=3)
    for most, n_words in ((2700, 3), (900, 1), (0, 1)):
        expected = index.search(values, k=900, n_words=n_words)
        assert np.array_equal(index.search(values, k=900, n_words=3, most=most).image_ids, expected.image_ids)
    some = np.isfinite(index.search(values, k=900, n_words=3, most=1500).distances).sum(axis=1)
    sizes = np.bincount(columns[0], minlength=index.n_words)
    away, words = index._nearest_words(values, 3)
    assert np.array_equal(some, (sizes[words] * hardly_farther(away, 1500)).sum(axis=1))
    assert some.sum() < np.isfinite(whole.distances).sum()
    assert np.array_equal(words, nearest_words(values, *index._cells, n_words=3, probed=8)[1])
    monkeypatch.setattr(words_index, "LARGE", 300)
    assert np.array_equal(
        index._nearest_words(values, 3)[1], nearest_words(values, *index._cells, n_words=3, probed=LEAST_CELLS)[1]
    )
    few = values[:100]
    assert np.array_equal(index.search(few, k=9, n_words=3, most=300).places, index.search(few, k=9, n_words=3).places)


def test_many_entries_are_compared_by_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    of = model(256)
    values, *columns = entries(of, 900, seed=2)
    index = WordsIndex.empty(of)
    index.add(*columns)
    distances, found = index._index.search(values, 5, params=faiss.SearchParametersIVF(nprobe=3))
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    for least in (1, 1 << 30):
        monkeypatch.setattr(words_index, "MANY_ENTRIES", least)
        for n in (900, 100, 1, 0):
            near = index.search(values[:n], k=5, n_words=3)
            assert np.array_equal(near.image_ids, np.where(found < 0, -1, found >> words_index.PLACE_BITS)[:n])
            assert np.array_equal(near.distances, np.where(found < 0, np.inf, distances)[:n])


def test_nothing_near_is_told_apart() -> None:
    of = model(16)
    found = WordsIndex.empty(of).search(np.zeros((2, DIM), np.float32), k=3, n_words=2)
    assert np.isinf(found.distances).all()
    assert (found.image_ids == -1).all()


def test_two_indexes_are_one(tmp_path: Path) -> None:
    of = model(64)
    values, *columns = entries(of, 600, seed=4)
    whole, one, other = (WordsIndex.empty(of) for _ in range(3))
    whole.add(*columns)
    one.add(*(column[:350] for column in columns))
    other.add(*(column[350:] for column in columns))
    parts = [index.search(values, k=5, n_words=4) for index in (one, other)]
    merged = merge_neighbours(parts, k=5)
    assert np.array_equal(merged.distances, whole.search(values, k=5, n_words=4).distances)
    assert set(merged.image_ids[:, 0]) == set(columns[2])


def test_what_is_no_index(tmp_path: Path) -> None:
    path = tmp_path / "words.faiss"
    path.write_bytes(b"nothing")
    with pytest.raises(CorruptFile, match=r"words.faiss can't be read as an index; remove it"):
        WordsIndex.mapped(path)
    faiss.write_index(faiss.IndexFlatL2(4), str(path))
    with pytest.raises(CorruptFile, match=r"words.faiss is an index of another kind"):
        WordsIndex.mapped(path)
    one, index = np.ones(1, np.int64), WordsIndex.empty(model(16))
    with pytest.raises(CorruptFile, match="has words that the codebook lacks"):
        index.add(np.array([99], np.uint32), np.zeros((1, 8), np.uint8), one, one)


def test_a_descriptor_has_one_vote_for_an_image() -> None:
    distances = np.array([[0, 2, 12, np.inf], [5, 6, 7, 8]], np.float32)
    rows = np.array([[3, 3, 1, 0], [-1, 1, 3, 2]])
    numbers = np.array([[10, 11, 12, 13], [20, 21, 22, 23]])
    votes = count_votes(distances, rows, numbers, most=2)
    assert votes.rows.tolist() == [3, 1]
    assert votes.scores == pytest.approx([1 + np.exp(-((7 / 8) ** 2)), np.exp(-2.25) + np.exp(-((6 / 8) ** 2))])
    assert votes.borders.tolist() == [0, 2, 4]
    assert votes.descriptors.tolist() == [0, 1, 1, 0]
    assert votes.places.tolist() == [10, 22, 21, 12]
    nothing = count_votes(distances, np.full((2, 4), -1), numbers, most=2)
    assert (len(nothing.rows), nothing.borders.tolist(), len(nothing.places)) == (0, [0], 0)


def test_equal_sums_are_in_the_order_of_their_images() -> None:
    rows = np.array([[5, 9, 2, 7]])
    votes = count_votes(np.array([[1, 1, 1, 0]], np.float32), rows, rows * 10, most=3)
    assert votes.rows.tolist() == [7, 2, 5]
    assert votes.places.tolist() == [70, 20, 50]


@pytest.mark.parametrize("extent", [5000, 300])
def test_packed_keypoints_are_near_enough(extent: int) -> None:
    rng = np.random.default_rng(0)
    x, y, angle = rng.uniform(0, extent, 500), rng.uniform(0, extent / 2, 500), rng.uniform(0, 360, 500)
    size = np.append(np.exp(rng.uniform(np.log(1.5), np.log(2000), 499)), 0)
    reach = np.array([x.max(), y.max()], np.float32)
    packed = pack(x, y, size, angle, np.tile(reach, (500, 1)))
    assert packed.min() >= 0
    assert packed.max() < 1 << 38
    found = unpack(packed, reach, KEYPOINT)
    assert np.abs(found["x"] - x).max() <= extent / 4000
    assert np.abs(found["y"] - y).max() <= extent / 8000
    assert np.abs(np.log2(found["size"][:-1] / size[:-1])).max() < 0.04
    assert found["size"][-1] == 0
    assert np.abs((found["angle"] - angle + 180) % 360 - 180).max() < 0.8


def test_an_entry_has_its_image_and_its_place() -> None:
    index = WordsIndex.empty(model(16))
    words, bits = np.zeros(2, np.uint32), np.zeros((2, 8), np.uint8)
    images, places = np.array([(1 << 25) - 1, 0]), np.array([(1 << 38) - 1, 5])
    index.add(words, bits, images, places)
    found = index.search(np.zeros((1, DIM), np.float32), k=2, n_words=16)
    assert set(zip(found.image_ids[0].tolist(), found.places[0].tolist(), strict=True)) == set(
        zip(images.tolist(), places.tolist(), strict=True)
    )
    with pytest.raises(QueryError, match="an index has room for the images below number 33,554,432"):
        index.add(words, bits, np.array([0, 1 << 25]), places)


def test_extents_of_an_image() -> None:
    found = Extents.joined([(np.array([4, 9]), np.array([[1, 2], [3, 4]], np.float32))])
    assert found.of(np.array([9, 5, 10, 4])).tolist() == [[3, 4], [0, 0], [0, 0], [1, 2]]
    assert Extents.joined([]).of(np.array([3])).tolist() == [[0, 0]]
