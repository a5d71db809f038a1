"""The bytes of a setting: of the quantize partitions and the index file, for a number of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from featurestore.api import FeatureStore
from featurestore.apps.trial import Setting
from featurestore.rows import KEYPOINT
from featurestore.stages import FitWords, n_words

INDEX = 16  # bytes of a descriptor in the index file: a signature, and the image and keypoint
WORD = 8  # bytes of a dimension of a word in the index file, at most
ROW = 256  # bytes of an image beside its descriptors: its name, counts, and places in both files
CHUNK = 12_000  # bytes of a partition beside its rows


@dataclass(frozen=True)
class Bytes:
    """Bytes before compression.

    Args:
        image: of quantize and the index file, for one image of the mean number of descriptors.
        collection: for all images.
    """

    image: int
    collection: int


def bytes_of(store: FeatureStore, n_images: int) -> Callable[[Setting, float], Bytes]:
    """Return what computes the bytes of a setting, by the mean number of descriptors of an image.

    They are those before zstd, so that a store takes less: about a tenth of quantize's, which varies with the images.
    """
    stored = KEYPOINT.itemsize if store.parameters("quantize")["keypoints"] else 0
    words, chunk_size = FitWords(), store.parameters("store")["chunk_size"]

    def size(setting: Setting, n_descriptors: float) -> Bytes:
        image = math.ceil(n_descriptors * (math.ceil(setting.dims * setting.bits / 8) + stored + INDEX)) + ROW
        most_words = n_words(min(words.sample_size, math.ceil(min(n_descriptors, words.codes_per_image) * n_images)))
        shared = most_words * setting.dims * WORD + math.ceil(n_images / chunk_size) * CHUNK
        return Bytes(image, n_images * image + shared)

    return size
