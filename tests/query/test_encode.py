"""A new image through the same extractor, models and bounds as those in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.errors import NothingUsable, NotReady, QueryError

NAME = "china/whole-000.jpg"


def test_every_sample_gives_the_bytes_that_were_stored(finished: FeatureStore, samples: Any) -> None:
    for row in finished.load(columns=["filename", "status", "descriptors"]).to_pylist():
        if row["status"] == "truncated":
            continue
        codes = finished.encode(samples.images / row["filename"])
        assert isinstance(codes, np.ndarray)
        assert codes.dtype == np.uint8
        assert codes.shape[1] == 64
        assert codes.tobytes() == (row["descriptors"] or b"")


def test_pixels_give_what_the_file_gives(finished: FeatureStore, samples: Any) -> None:
    pixels = cv2.imread(str(samples.images / NAME))
    assert pixels is not None
    codes, keypoints = finished.encode(pixels, keypoints=True)
    assert np.array_equal(codes, finished.descriptors(NAME))
    assert np.array_equal(keypoints, finished.keypoints(NAME))
    turned = finished.encode(pixels[:, ::-1])  # a view with negative strides
    assert np.array_equal(turned, finished.encode(pixels[:, ::-1].copy()))
    flat = finished.encode(np.full((50, 60, 3), 128, np.uint8), keypoints=True)
    assert (flat[0].shape, flat[1].shape) == ((0, 64), (0,))


def test_keypoints_of_a_query_do_not_depend_on_what_is_stored(store: FeatureStore, samples: Any) -> None:
    expected = store.keypoints(NAME)
    path = store.path / "featurestore.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("keypoints = true", "keypoints = false"), encoding="utf-8")
    assert np.array_equal(store.encode(samples.images / NAME, keypoints=True)[1], expected)


@pytest.mark.parametrize(
    ("image", "error", "says"),
    [
        ("nowhere.jpg", NothingUsable, r"nowhere.jpg can't be encoded: the file does not exist \(missing\)"),
        ("broken.jpg", NothingUsable, r"broken.jpg can't be encoded: .* \(truncated\)"),
        (np.zeros((5, 5), np.uint8), QueryError, r"encode takes pixels of shape .* this is \(5, 5\) uint8"),
        (np.zeros((5, 5, 3)), QueryError, r"this is \(5, 5, 3\) float64"),
        (np.zeros((0, 5, 3), np.uint8), QueryError, r"this is \(0, 5, 3\) uint8"),
        (7, QueryError, "encode takes the path of an image or an array of pixels, not int"),
    ],
)
def test_what_can_not_be_encoded(finished: FeatureStore, samples: Any, image: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        finished.encode(samples.images / image if isinstance(image, str) else image)


def test_more_pixels_than_the_recipe_allows(store: FeatureStore) -> None:
    path = store.path / "featurestore.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("max_pixels = 50000000", "max_pixels = 100"), encoding="utf-8")
    with pytest.raises(NothingUsable, match="an image of 20x10 pixels can't be encoded: over the limit of 100; make"):
        store.encode(np.zeros((10, 20, 3), np.uint8))


def test_without_models(fresh: FeatureStore, samples: Any) -> None:
    with pytest.raises(NotReady, match="the model of fit_pca has not been fitted yet; run: featurestore run"):
        fresh.encode(samples.images / NAME)
    with pytest.raises(NotReady, match="the model of fit_scale has not been fitted yet; run: featurestore run"):
        fresh.dequantize(np.zeros((1, 64), np.uint8))


def test_codes_become_floats_again(finished: FeatureStore) -> None:
    exact = finished.descriptors(NAME, "project")
    floats = finished.dequantize(finished.descriptors(NAME))
    assert floats.dtype == np.float32
    arrays = np.load(next(Path(finished.path).glob("models/fit_scale/*/*.npz")), allow_pickle=False)
    inside = (exact > arrays["low"]) & (exact < arrays["high"])
    half = (arrays["high"] - arrays["low"]) / 255 / 2
    assert inside.mean() > 0.9
    assert (np.abs(floats - exact) <= half * 1.001)[inside].all()
    variant = finished.info(NAME).stages[-1].variant
    assert np.array_equal(finished.dequantize(finished.descriptors(NAME), variant=variant), floats)


@pytest.mark.parametrize("codes", [np.zeros((2, 64)), np.zeros((2, 63), np.uint8), np.zeros(64, np.uint8)])
def test_codes_of_another_kind(finished: FeatureStore, codes: Any) -> None:
    with pytest.raises(QueryError, match=r"dequantize takes codes of shape \(n, 64\) and dtype uint8, and this is"):
        finished.dequantize(codes)


def test_codes_of_an_older_model(store: FeatureStore) -> None:
    codes, variant = store.descriptors(NAME), store.info(NAME).stages[-1].variant
    before = store.dequantize(codes)
    path = store.path / "featurestore.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("margin = 0.01", "margin = 0.5"), encoding="utf-8")
    store.run(workers=0)
    assert not np.array_equal(store.dequantize(codes), before)
    assert np.array_equal(store.dequantize(codes, variant=variant), before)
    with pytest.raises(QueryError, match="quantize has no variant 'beef'; the variants of quantize are"):
        store.dequantize(codes, variant="beef")
