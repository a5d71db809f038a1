"""Is this picture a part of that one? Samples and crops of them, and the optional folder of paintings."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore import FeatureStore
from featurestore.apps import pairs
from featurestore.errors import FeatureStoreError, NothingUsable, NotReady, QueryError
from featurestore.matching import Verdict
from featurestore.progress import Silent
from tests.small import configure

NAME = "china/whole-000.jpg"
OTHER = "flower/whole-000.jpg"


def crop(samples: Any, name: str = NAME, *, scale: float = 2.0, turns: int = 0) -> NDArray[np.uint8]:
    """Return the middle of a sample, enlarged, and turned counter-clockwise by quarters."""
    pixels = cv2.imread(str(samples.images / name))
    assert pixels is not None
    height, width = pixels.shape[:2]
    part = pixels[height // 4 : -height // 4, width // 4 : -width // 4]
    large = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(np.rot90(large, turns)).astype(np.uint8)


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_an_enlarged_and_turned_crop_is_found_where_it_was_cut(
    finished: FeatureStore, samples: Any, turns: int
) -> None:
    pixels = crop(samples, turns=turns)
    found = finished.match(pixels, NAME)
    whole = cv2.imread(str(samples.images / NAME))
    assert whole is not None
    assert found.status is Verdict.FOUND
    assert found.scale == pytest.approx(0.5, abs=0.03)
    assert (found.degrees - 90 * turns + 180) % 360 - 180 == pytest.approx(0, abs=3)
    assert found.outline is not None
    height, width = whole.shape[:2]
    box = [found.outline.min(axis=0), found.outline.max(axis=0)]
    assert np.abs(np.array(box) - [(width / 4, height / 4), (width * 3 / 4, height * 3 / 4)]).max() < 5
    assert finished.match(pixels, OTHER).status is Verdict.CANDIDATE


def test_names_files_pixels_and_codes_are_one_query(finished: FeatureStore, samples: Any, tmp_path: Path) -> None:
    path = tmp_path / "copy.jpg"
    path.write_bytes((samples.images / NAME).read_bytes())
    expected = finished.match(NAME, "china/left-000.jpg").as_dict()
    assert expected["status"] == "found"
    pixels = cv2.imread(str(path))
    assert pixels is not None
    for query in (path, str(path), pixels):
        assert finished.match(query, "china/left-000.jpg").as_dict() == expected
    arrays = finished.encode(path, keypoints=True)
    assert isinstance(arrays, tuple)
    again = finished.match(arrays, "china/left-000.jpg").as_dict()
    assert {**again, "outline": expected["outline"]} == expected  # without a size: that of the keypoints


def test_an_image_matches_itself_exactly(finished: FeatureStore) -> None:
    found = finished.match(NAME, NAME)
    assert found.transform is not None
    assert np.allclose(found.transform, [(1, 0, 0), (0, 1, 0)], atol=1e-9)
    assert not found.distances.any()
    assert len(found.query_points) == found.n_matches


@pytest.mark.parametrize(
    ("query", "error", "says"),
    [
        (
            "china/whole-00.jpg",
            QueryError,
            "there is no file 'china/whole-00.jpg' here, and there is no image .*did you",
        ),
        ("blank.jpg", NothingUsable, "blank.jpg has no keypoints, so there is nothing to match; take another picture"),
        ("broken.jpg", NothingUsable, r"'broken.jpg' has no descriptors: .* \(truncated\)"),
        (np.zeros((50, 60, 3), np.uint8), NothingUsable, "the query has no keypoints"),
        (np.zeros((5, 5)), QueryError, "encode takes pixels of shape"),
        (7, QueryError, "encode takes the path of an image or an array of pixels, not int"),
        (
            (np.zeros((2, 64), np.uint8),),
            QueryError,
            r"a query of arrays is \(codes, keypoints\), and this has 1 parts",
        ),
        ((np.zeros((2, 64), np.uint8), np.zeros(2)), QueryError, r"keypoints as encode.* these are \(2,\) float64"),
    ],
)
def test_what_can_not_be_matched(finished: FeatureStore, query: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        finished.match(query, NAME)
    with pytest.raises(error, match=says):
        finished.match(NAME, query)


def test_files_that_can_not_be_matched(store: FeatureStore, samples: Any, tmp_path: Path) -> None:
    torn = tmp_path / "torn.jpg"
    torn.write_bytes((samples.images / NAME).read_bytes()[:2000])
    with pytest.raises(NothingUsable, match=r"torn.jpg can't be encoded: .* \(truncated\)"):
        store.match(torn, NAME)
    with pytest.raises(NothingUsable, match=r"nowhere.jpg can't be encoded: the file does not exist \(missing\)"):
        store.match(tmp_path / "nowhere.jpg", NAME)
    configure(store, "extract", max_pixels=100)
    with pytest.raises(NothingUsable, match=r"over the limit of 100"):
        store.match(crop(samples), NAME)


def test_what_a_store_lacks(fresh: FeatureStore, store: FeatureStore, samples: Any) -> None:
    with pytest.raises(NotReady, match="quantize has not been computed for"):
        fresh.match(NAME, NAME)
    with pytest.raises(NotReady, match="the model of fit_pca has not been fitted yet"):
        fresh.match(crop(samples), crop(samples))
    configure(store, "quantize", keypoints=False)
    store.run(workers=0)
    with pytest.raises(NotReady, match="have no keypoints, and a match is checked by where they are; set keypoints"):
        store.match(NAME, NAME)
    assert store.match(crop(samples), crop(samples)).status is Verdict.FOUND


def test_without_the_size_the_outline_is_that_of_the_keypoints(store: FeatureStore) -> None:
    before = store.match(NAME, NAME)
    store.prune("quantize")
    after = store.match(NAME, NAME)
    assert before.outline is not None
    assert after.outline is not None
    assert (after.outline[0] > before.outline[0]).all()
    assert (after.outline[2] < before.outline[2]).all()
    assert after.inliers == before.inliers


# Paintings --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def paintings(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, list[Any]]:
    """A store of six paintings, and pairs of a crop's codes and keypoints and the name of its painting."""
    pairs = []
    for collection in ("imgdata_square", "rss_cut"):
        listed = (image_folder / "groundtruth" / collection / "pairs.csv").read_text(encoding="utf-8").splitlines()
        rows = [row for row in csv.DictReader(listed) if row["ref"].startswith("paintings/")]
        pairs += [(str(image_folder / row["query"]), Path(row["ref"]).name) for row in rows[::12][:3]]
    folder = tmp_path_factory.mktemp("paintings")
    (folder / "images").mkdir()
    for _, name in pairs:
        pixels = cv2.imread(str(image_folder / "paintings" / name))
        assert pixels is not None
        small = cv2.resize(pixels, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
        assert cv2.imwrite(str(folder / "images" / name), small)
    store = FeatureStore.create(folder / "store", images=folder / "images")
    configure(store, "project", top=600)
    store.run(workers=0)
    return store, [(store.encode(halved(path), keypoints=True), name) for path, name in pairs]


def halved(path: str | Path) -> NDArray[np.uint8]:
    """Return a picture of half the width and height, whose descriptors take a quarter of the time."""
    pixels = cv2.imread(str(path))
    assert pixels is not None
    return cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.uint8)


def test_crops_of_paintings_are_found(paintings: tuple[FeatureStore, list[Any]]) -> None:
    store, pairs = paintings
    names = [name for _, name in pairs]
    assert len(set(names)) == 6
    for (query, name), wrong in zip(pairs, [*names[1:], names[0]], strict=True):
        assert store.match(query, name).status is Verdict.FOUND
        assert store.match(query, wrong).status is Verdict.CANDIDATE


def test_views_of_a_wall_are_matched(paintings: tuple[FeatureStore, Any], image_folder: Path) -> None:
    store, folder = paintings[0], image_folder / "groundtruth"
    query = store.encode(folder / "oxford_graf" / "img2.png", keypoints=True)
    assert store.match(query, folder / "oxford_graf" / "img1.png").status is Verdict.FOUND
    assert store.match(query, halved(folder / "oxford_boat" / "img1.pgm")).inliers < 7


def pattern(kind: str) -> NDArray[np.uint8]:
    """Return a pattern that repeats itself, in a picture of 400 pixels."""
    y, x = np.mgrid[:400, :400]
    one = {
        "chessboard": (x // 40 + y // 40) % 2 * 255,
        "stripes": x // 16 % 2 * 255,
        "wallpaper": np.tile(np.random.default_rng(5).integers(0, 255, (10, 10)).repeat(8, 0).repeat(8, 1), (5, 5)),
    }[kind]
    return np.ascontiguousarray(cv2.GaussianBlur(one.astype(np.uint8), (0, 0), 1.5)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("kind", ["chessboard", "stripes", "wallpaper"])
def test_patterns_are_not_found_in_each_other(finished: FeatureStore, kind: str) -> None:
    one = pattern(kind)
    shifted = np.ascontiguousarray(one[33:353, 51:371])
    try:
        found = finished.match(cv2.resize(shifted, None, fx=0.9, fy=0.9).astype(np.uint8), one)
    except FeatureStoreError as error:
        assert "has no keypoints" in str(error)  # noqa: PT017 - stripes have none in some versions of OpenCV
    else:
        assert found.status is not Verdict.FOUND


# Search -----------------------------------------------------------------------------------------------------------


def test_a_crop_finds_its_photograph_and_no_other(finished: FeatureStore, samples: Any) -> None:
    result = finished.search(crop(samples), top=20)
    assert result.hits[0].filename.startswith("china/")
    assert {hit.filename.partition("/")[0] for hit in result.found} == {"china"}
    assert [hit.rank for hit in result.hits] == list(range(1, 21))
    one = result.hits[0]
    assert one.match is not None
    expected = finished.match(crop(samples), one.filename)
    assert one.match.as_dict() == expected.as_dict()
    (row,) = finished.load(where=f"image_id = {one.image_id}", columns=["photo", "rotation", "subset"]).to_pylist()
    assert {name: one.columns[name] for name in row} == row
    assert "chunk_id" not in one.columns


def test_a_query_of_the_store_does_not_find_itself(finished: FeatureStore) -> None:
    names = [hit.filename for hit in finished.search(NAME, top=30).hits]
    assert NAME not in names
    assert names[0].startswith("china/")


def test_where_bounds_what_is_searched(finished: FeatureStore, samples: Any) -> None:
    result = finished.search(crop(samples), where="filename LIKE 'flower/%'")
    assert result.n_images == 12
    assert result.found == ()
    assert {hit.status for hit in result.hits} <= {Verdict.CANDIDATE, Verdict.POSSIBLE}
    nothing = finished.search(crop(samples), where="false")
    assert (nothing.hits, nothing.n_images, nothing.found) == ((), 0, ())
    with pytest.raises(QueryError, match="where 'colour = 3' can't be evaluated"):
        finished.search(NAME, where="colour = 3")


@pytest.mark.parametrize("count", [0, -1, None, 2.5, float("nan"), "3"])
def test_numbers_are_whole_and_at_least_one(finished: FeatureStore, tmp_path: Path, count: Any) -> None:
    with pytest.raises(QueryError, match=f"top is a number of hits, at least 1, and not {count!r}"):
        finished.search(NAME, top=count)
    with pytest.raises(QueryError, match=f"min_inliers is a number of inliers, at least 1, and not {count!r}"):
        finished.search(NAME, min_inliers=count)
    with pytest.raises(QueryError, match="min_inliers is a number of inliers, at least 1"):
        finished.match(NAME, NAME, min_inliers=count)
    with pytest.raises(QueryError, match="top is a number of hits, at least 1"):
        pairs(finished, tmp_path / "pairs.csv", top=count)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", [None, 3, b"china/whole-000.jpg", Path("china/whole-000.jpg"), ["china/whole-000.jpg"]]
)
def test_an_image_of_the_store_is_named_by_a_text(finished: FeatureStore, name: Any) -> None:
    for ask in (finished.descriptors, finished.keypoints, finished.info, finished.show, finished.pixels):
        with pytest.raises(QueryError, match="an image has a name of the dataset, a text like"):
            ask(name)


@pytest.mark.parametrize(
    ("field", "value"), [("x", float("nan")), ("y", float("inf")), ("angle", float("nan")), ("size", -1)]
)
def test_keypoints_of_a_query_are_numbers(finished: FeatureStore, field: str, value: float) -> None:
    codes, keypoints = finished.descriptors(NAME), finished.keypoints(NAME).copy()
    keypoints[field][3] = value
    with pytest.raises(QueryError, match="a keypoint of the query is NaN, infinite or of a size below 0"):
        finished.match((codes, keypoints), NAME)


@pytest.mark.parametrize("name", ["a\0b.jpg", "half a pair \ud800.jpg"])
def test_names_that_no_file_can_have(finished: FeatureStore, name: str) -> None:
    for ask in (finished.search, finished.info, finished.descriptors):
        with pytest.raises(QueryError, match="there is no image"):
            ask(name)


def test_images_without_codes_are_counted(store: FeatureStore, samples: Any, tmp_path: Path) -> None:
    before = store.search(NAME).n_images
    more = tmp_path / "more.csv"
    lines = samples.dataset.read_text(encoding="utf-8").splitlines()
    more.write_text("\n".join([*lines, "later.jpg" + lines[1][lines[1].index(",") :]]) + "\n", encoding="utf-8")
    store.ingest(more)
    result = store.search(NAME)
    assert (result.n_missing, result.n_images) == (1, before)


def test_searching_does_not_wait_for_a_run(store: FeatureStore) -> None:
    with store._held("run", Silent()):
        assert store.search(NAME).found


def test_crops_of_paintings_are_first_in_a_search(paintings: tuple[FeatureStore, list[Any]]) -> None:
    store, pairs = paintings
    for query, name in pairs:
        assert [hit.filename for hit in store.search(query).found] == [name]
