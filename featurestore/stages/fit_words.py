"""fit_words: the codebook of the index, by k-means of a sample of the train images' codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.config import option
from featurestore.errors import NothingUsable
from featurestore.rows import Row
from featurestore.stages.base import Arrays, FitStage
from featurestore.stages.codebook import learn_words, rotation
from featurestore.stages.quantize import LARGEST, dequantize, largest_of
from featurestore.system import one_blas_thread

PER_WORD = 32  # sampled codes for each word, at least
MOST_WORDS = 65_536
PER_WORD_OF_MOST = 15  # the same, for so many words: what a full sample of a million codes has
KEYS = ("sample", "keys")


@dataclass(frozen=True)
class FitWords(FitStage):
    """Learn the words of the index from train images only."""

    name: ClassVar[str] = "fit_words"
    reads: ClassVar[str] = "quantize"
    needs_input_model: ClassVar[bool] = True
    without: ClassVar[tuple[str, ...]] = ("x", "y", "size", "angle", "response", "octave")

    codes_per_image: int = option(400, "codes drawn from an image, at most", low=1)
    sample_size: int = option(1_000_000, "codes that are learnt from, at most", low=1)
    seed: int = option(0, "of the sample, the first centroids and the rotation", low=0)

    def selects(self, subset: str) -> bool:
        """Return whether it learns images of this subset: only ``train``."""
        return subset == "train"

    def joins(self) -> bool:
        """Return whether its learners are joinable: the sample is the same in any order."""
        return True

    def sample(self, row: Row) -> Row:
        """Return the row: what is sampled depends on all images."""
        return replace(row, keypoints=None)

    def learner(self, arrays: Arrays | None) -> WordLearner:
        """Return a new learner, or one that resumes from a state or continues from a parent's model."""
        return WordLearner(self, arrays)

    def complete(self, arrays: Arrays, input_model: Arrays) -> dict[str, NDArray[Any]]:
        """Return the model: the sample, the codebook that k-means makes of it, and the bounds of the codes.

        ``cells`` ``(cells, dim)``, ``words`` ``(words, dim)`` and ``rotation`` ``(dim, 64)`` are float32 in the space
        of the PCA, ``starts`` ``(cells + 1,)`` int64. ``largest_code`` is there if it is not 255.
        """
        low, high = input_model["low"], input_model["high"]
        with one_blas_thread():
            values = dequantize(arrays["sample"], low=low, high=high, largest=largest_of(input_model))
            cells, words, starts = learn_words(values, n_words(len(values)), seed=self.seed)
            directions = rotation(values.shape[1], seed=self.seed)
        made: dict[str, NDArray[Any]] = {"cells": cells, "words": words, "starts": starts, "rotation": directions}
        of_codes = {name: input_model[name] for name in ("low", "high", LARGEST) if name in input_model}
        return {**arrays, **made, **of_codes}

    def summary(self, arrays: Arrays) -> dict[str, Any]:
        """Return the number of words, and of the codes that they were learnt from."""
        return {"n_words": len(arrays.get("words", ())), "n_descriptors": len(arrays["sample"])}


def n_words(n: int) -> int:
    """Return the number of words for ``n`` sampled codes: a power of 4 from 16 to 65,536, with 32 codes for each.

    65,536 take 15 codes each: with a quarter of the words, a query of a large store would look at eight times as many
    entries.
    """
    if n >= MOST_WORDS * PER_WORD_OF_MOST:
        return MOST_WORDS
    words = 16
    while words < MOST_WORDS and words * 4 * PER_WORD <= n:
        words *= 4
    return words


class WordLearner:
    """The codes with the smallest keys, which are pseudo-random and depend on image and row alone."""

    def __init__(self, stage: FitWords, arrays: Arrays | None) -> None:
        """Start empty, or continue from ``arrays``."""
        self._most, self._seed, self._of_image = stage.sample_size, stage.seed, stage.codes_per_image
        self._waiting: list[tuple[NDArray[np.uint8], NDArray[np.uint64]]] = []
        self._n = 0
        if arrays and "sample" in arrays:
            self._add(arrays["sample"], arrays["keys"])

    def learn(self, row: Row) -> None:
        """Learn one image's codes."""
        assert row.descriptors is not None
        rng = np.random.default_rng([self._seed, row.image_id])
        keys = rng.integers(0, 1 << 63, len(row.descriptors), np.uint64)
        kept = np.argsort(keys, kind="stable")[: self._of_image]
        self._add(row.descriptors[kept], keys[kept])

    def join(self, part: Arrays) -> None:
        """Merge the sample of another learner."""
        if "sample" in part:
            self._add(part["sample"], part["keys"])

    def _add(self, codes: NDArray[np.uint8], keys: NDArray[np.uint64]) -> None:
        self._waiting.append((codes, keys))
        self._n += len(codes)
        if self._n > 2 * self._most:
            self._thin()

    def _thin(self) -> None:
        codes = np.concatenate([one for one, _ in self._waiting])
        keys = np.concatenate([one for _, one in self._waiting])
        kept = np.argsort(keys, kind="stable")[: self._most]
        self._waiting, self._n = [(codes[kept], keys[kept])], len(kept)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the sample so far: codes ``(n, dim)`` uint8 and keys ``(n,)`` uint64, by key."""
        if not self._n:
            return {}
        self._thin()
        return dict(zip(KEYS, self._waiting[0], strict=True))

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return the sample.

        Raises:
            NothingUsable: no train image has codes.
        """
        if not self._n:
            raise NothingUsable(
                "fit_words found no train image with codes; look at the split, and at the failures: "
                'featurestore sql STORE "SELECT status, error, filename FROM failures"'
            )
        return self.state()
