"""Words and signatures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.stages.codebook import PROBED, assign, k_means, learn_words, nearest, rotation, signatures
from featurestore.stages.fit_words import FitWords, n_words


def clusters(n: int, *, around: int, seed: int = 0) -> NDArray[np.float32]:
    """Return ``n`` descriptors around as many centres, far apart."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 100, (around, 12))
    return (centres[np.arange(n) % around] + rng.normal(0, 1, (n, 12))).astype(np.float32)


def test_k_means_finds_separate_clusters() -> None:
    values = clusters(600, around=5)
    centres = k_means(values, 40, np.random.default_rng(0))
    away = np.linalg.norm(values - centres[nearest(values, centres)], axis=1)
    assert away.max() < 8
    assert len(centres) == 40


def test_the_nearest_is_that_found_by_hand() -> None:
    values, centres = clusters(300, around=300), clusters(30, around=30, seed=1)
    by_hand = np.linalg.norm(values[:, None] - centres[None], axis=2).argmin(axis=1)
    assert nearest(values, centres).tolist() == by_hand.tolist()


@pytest.mark.parametrize("n", [1, 3, 16, 5000])
def test_few_values_have_few_words(n: int) -> None:
    values = clusters(n, around=n)
    cells, words, starts = learn_words(values, 16, seed=0)
    assert starts[-1] == len(words) <= 16
    assert len(starts) == len(cells) + 1
    assert np.isfinite(words).all()
    of = assign(values, cells, words, starts)
    assert of.max() < len(words)
    if n <= 3:
        assert np.allclose(words[of], values, atol=1e-3)


def test_the_same_values_are_the_same_words_and_another_seed_others() -> None:
    values = clusters(3000, around=200)
    one, again, other = (learn_words(values, 64, seed=seed) for seed in (0, 0, 1))
    assert [a.tobytes() for a in one] == [a.tobytes() for a in again]
    assert one[1].tobytes() != other[1].tobytes()


def test_words_are_nearly_always_the_nearest() -> None:
    values = np.random.default_rng(3).normal(size=(8000, 12)).astype(np.float32)
    cells, words, starts = learn_words(values, 1024, seed=0)
    assert len(cells) > PROBED
    of = assign(values, cells, words, starts)
    assert np.mean(of == nearest(values, words)) > 0.9
    assert len(np.unique(of)) > 900


def test_a_signature_says_on_which_side_of_its_word_a_descriptor_lies() -> None:
    values = np.random.default_rng(4).normal(size=(2000, 64)).astype(np.float32)
    directions = rotation(64, seed=0)
    assert np.allclose(directions.T @ directions, np.eye(64), atol=1e-5)
    words = np.zeros((1, 64), np.float32)
    none = np.zeros(2000, np.uint32)
    bits = signatures(values, words, none, directions)
    assert (bits.shape, str(bits.dtype)) == ((2000, 8), "uint8")
    opposite = signatures(-values, words, none, directions)
    assert (bits ^ opposite == 255).all()
    near = signatures(values + np.float32(0.05), words, none, directions)
    assert np.unpackbits(bits ^ near, axis=1).sum(axis=1).mean() < 3
    apart = np.unpackbits(bits[:1000] ^ bits[1000:], axis=1).sum(axis=1).mean()
    assert apart == pytest.approx(32, abs=1)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, 16), (2047, 16), (2048, 64), (8192, 256), (983_039, 16_384), (FitWords().sample_size, 65_536)],
)
def test_the_number_of_words_follows_that_of_codes(n: int, expected: int) -> None:
    assert n_words(n) == expected
