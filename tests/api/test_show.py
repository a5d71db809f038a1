"""Pictures of the store's images: what is drawn of which stage, and what can't be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.drawing import ALL, KEPT, Picture
from featurestore.errors import NothingUsable, NotReady, QueryError
from tests.small import configure

NAME = "china/whole-000.jpg"
PART = "china/left-000.jpg"


def n_of(picture: Picture, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture.pixels.astype(int) - colour).max(axis=2) < 20).sum())


def test_what_the_codes_keep_is_drawn_over_all_that_was_found(finished: FeatureStore) -> None:
    kept, every = len(finished.keypoints(NAME)), len(finished.keypoints(NAME, "extract"))
    assert kept < every
    picture = finished.show(NAME)
    assert picture.title == f"{NAME}: {kept} of {every} keypoints are in quantize"
    assert n_of(picture, KEPT) > 0
    assert n_of(picture, ALL) > 0
    extracted = finished.show(NAME, "extract")
    assert extracted.title == f"{NAME}: {every} keypoints of extract"
    assert n_of(extracted, ALL) > n_of(picture, ALL)
    assert not n_of(extracted, KEPT)


def test_after_extract_was_pruned_only_what_is_kept_is_drawn(store: FeatureStore) -> None:
    store.prune("quantize")
    picture = store.show(NAME)
    assert picture.title == f"{NAME}: {len(store.keypoints(NAME))} keypoints of quantize"
    assert n_of(picture, KEPT) > 0


def test_a_picture_is_as_large_as_asked(finished: FeatureStore, samples: Any) -> None:
    whole = cv2.imread(str(samples.images / NAME))
    assert whole is not None
    assert finished.show(NAME).pixels.shape == whole.shape
    assert max(finished.show(NAME, longest=50).pixels.shape) == 50
    with pytest.raises(QueryError, match="longest is a number of pixels, at least 1, and not 0"):
        finished.show(NAME, longest=0)


def test_two_images_side_by_side(finished: FeatureStore, samples: Any) -> None:
    match = finished.match(PART, NAME)
    drawn = finished.show_match(PART, NAME)
    expected = f"found: {match.inliers} of {match.n_matches} matches agree; scale {match.scale:.3f}, turned by "
    assert drawn.title.startswith(expected)
    pixels = cv2.imread(str(samples.images / PART))
    assert pixels is not None
    for query in (samples.images / PART, pixels):
        assert (finished.show_match(query, NAME).pixels == drawn.pixels).all()
    assert (finished.show_match(PART, NAME, match).pixels == drawn.pixels).all()
    nothing = finished.show_match(PART, "flower/whole-000.jpg")
    assert nothing.title.startswith("candidate: ")
    assert "scale" not in nothing.title


def test_what_can_not_be_drawn(finished: FeatureStore, samples: Any, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"there is no image 'china/whole-00.jpg' .*did you"):
        finished.show("china/whole-00.jpg")
    with pytest.raises(NothingUsable, match=r"'broken.jpg' has no descriptors"):
        finished.show("broken.jpg")
    codes = finished.encode(samples.images / PART, keypoints=True)
    assert isinstance(codes, tuple)
    with pytest.raises(QueryError, match="codes have no pixels, so they can't be drawn"):
        finished.show_match(codes, NAME)
    match = finished.match(PART, NAME)
    with pytest.raises(QueryError, match=r"there is no file .nowhere.jpg. here, and there is no image of that"):
        finished.show_match("nowhere.jpg", NAME, match)
    torn = tmp_path / "text.jpg"
    torn.write_text("no picture")
    with pytest.raises(NothingUsable, match=r"text.jpg can't be drawn: .*\(unreadable\)"):
        finished.show_match(torn, NAME, match)


def test_a_file_that_was_replaced_is_not_drawn(store: FeatureStore, samples: Any, tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "china").mkdir(parents=True)
    (images / NAME).write_bytes((samples.images / PART).read_bytes())
    configure(store, "store", images=str(images))
    with pytest.raises(NothingUsable, match=r"is another file than the one that was extracted.*run .* --check-images"):
        store.show(NAME)
    (images / NAME).unlink()
    with pytest.raises(NothingUsable, match=r"can't be drawn: the file does not exist \(missing\)"):
        store.show(NAME)


def test_without_codes_the_stage_has_to_be_named(fresh: FeatureStore) -> None:
    with pytest.raises(NotReady, match="quantize has not been computed for"):
        fresh.show(NAME)


def test_pixels_are_those_of_the_file_that_was_extracted(finished: FeatureStore, samples: Any) -> None:
    np.testing.assert_array_equal(finished.pixels(NAME), cv2.imread(str(samples.images / NAME)))
    with pytest.raises(QueryError, match="no image"):
        finished.pixels("chnia/whole-000.jpg")
    with pytest.raises(NothingUsable, match=r"broken\.jpg"):
        finished.pixels("broken.jpg")


def test_a_model_is_its_arrays(finished: FeatureStore, begun: FeatureStore) -> None:
    assert finished.model("fit_pca")["components_"].shape == (64, 128)
    with pytest.raises(QueryError, match="no stage 'project' that fits a model; these do: fit_pca, fit_scale"):
        finished.model("project")
    with pytest.raises(NotReady, match="the model of fit_pca has not been fitted yet"):
        begun.model("fit_pca")
