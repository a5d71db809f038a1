"""A COLMAP database is what COLMAP itself would have written, and pycolmap reads, matches and verifies it."""

from __future__ import annotations

import os
import re
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from featurestore import FeatureStore
from featurestore.errors import NotEnoughSpace, QueryError
from featurestore.exchange.exporters import colmap
from tests.broken_images import encoded, picture, saved
from tests.conftest import LONG
from tests.faults import largest_file
from tests.once import copied
from tests.small import configure, copy, invoke, make_old_partitions, rows_of, write_dataset

Features = dict[str, tuple[NDArray[np.float32], NDArray[np.uint8]]]


def make_views(folder: Path) -> None:
    """A picture, the same turned by its pixels and by EXIF alone, another size, one without keypoints, none at all."""
    images = folder / "images"
    (images / "a b").mkdir(parents=True)
    shown = picture(320, 240)
    exif = Image.Exif()
    exif[0x0112] = 6
    (images / "view.png").write_bytes(encoded(".png", shown))
    (images / "a b" / "turned.png").write_bytes(encoded(".png", np.rot90(shown)))
    (images / "exif.png").write_bytes(saved("PNG", Image.fromarray(shown[:, :, ::-1].copy()), exif=exif))
    (images / "flat.png").write_bytes(encoded(".png", np.full((60, 80, 3), 90, np.uint8)))
    names = ["view.png", "a b/turned.png", "exif.png", "flat.png", "missing.png"]
    write_dataset(images, ["filename,subset", *(f"{name},train" for name in names)])
    FeatureStore.create(folder / "store", images=images, dataset=images / "dataset.csv").run("extract", workers=0)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of them, whose images are beside it. Not to be changed."""
    return FeatureStore(copied(tmp_path_factory, "colmap-views", make_views) / "store")


@pytest.fixture(scope="module")
def database(views: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("colmap") / "views.db"
    views.export(path, "colmap")
    return path


def ask(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def features(path: Path) -> Features:
    """The keypoints and descriptors of every image, by name."""
    found = ask(
        path,
        "SELECT name, k.cols, k.data, d.data FROM images i JOIN keypoints k ON i.image_id = k.image_id "
        "JOIN descriptors d ON i.image_id = d.image_id",
    )
    return {
        name: (np.frombuffer(points, "<f4").reshape(-1, cols), np.frombuffer(values, "u1").reshape(-1, 128))
        for name, cols, points, values in found
    }


def paired(
    one: NDArray[np.uint8], other: NDArray[np.uint8], *, cosine: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of descriptors that are each other's nearest, with a larger cosine."""
    a, b = (
        values / np.linalg.norm(values, axis=1, keepdims=True) for values in (one.astype(float), other.astype(float))
    )
    near = a @ b.T
    first = np.arange(len(a))
    best = near.argmax(axis=1)
    kept = (near.argmax(axis=0)[best] == first) & (near.max(axis=1) > cosine)
    return first[kept], best[kept]


def test_the_tables_hold_what_the_store_does(views: FeatureStore, database: Path) -> None:
    rows = {row.filename: row for row in rows_of(views, "extract")}
    assert ask(database, "SELECT image_id, name, camera_id FROM images") == [
        (1, "view.png", 1),
        (2, "a b/turned.png", 2),
        (3, "exif.png", 3),
        (4, "flat.png", 4),
    ]
    found = features(database)
    points, values = found["view.png"]
    keypoints, descriptors = rows["view.png"].keypoints, rows["view.png"].descriptors
    assert keypoints is not None
    assert descriptors is not None
    expected = [keypoints["x"] + 0.25, keypoints["y"] + 0.25, keypoints["size"] / 2, np.radians(keypoints["angle"])]
    np.testing.assert_allclose(points, np.stack(expected, axis=1), rtol=1e-6)
    root = np.sqrt(descriptors / descriptors.sum(axis=1, keepdims=True, dtype=float))
    np.testing.assert_allclose(values, np.minimum(512 * root, 255), atol=0.51)
    assert ask(database, "SELECT rows, cols, data FROM keypoints WHERE image_id = 4") == [(0, 4, b"")]
    assert ask(database, "SELECT rows, cols, data FROM descriptors WHERE image_id = 4") == [(0, 128, b"")]


def test_each_image_has_a_camera_of_the_size_in_its_file(database: Path) -> None:
    cameras = ask(database, "SELECT camera_id, model, width, height, params, prior_focal_length FROM cameras")
    assert [one[:4] for one in cameras] == [(1, 2, 320, 240), (2, 2, 240, 320), (3, 2, 320, 240), (4, 2, 80, 60)]
    assert np.frombuffer(cameras[0][4]).tolist() == [384, 160, 120, 0]
    assert {one[5] for one in cameras} == {0}


def test_the_schema_is_that_of_colmap_without_the_type(database: Path) -> None:
    columns = {
        table: [row[1] for row in ask(database, f"PRAGMA table_info({table})")] for table in ("images", "descriptors")
    }
    assert columns == {"images": ["image_id", "name", "camera_id"], "descriptors": ["image_id", "rows", "cols", "data"]}
    assert ask(database, "SELECT name FROM sqlite_master WHERE name = 'index_name'") == [("index_name",)]
    assert ask(database, "PRAGMA user_version") == [(0,)]


def test_a_picture_that_exif_turns_has_the_keypoints_of_its_pixels(database: Path) -> None:
    found = features(database)
    (points, values), (others, other_values) = found["view.png"], found["exif.png"]
    one, other = paired(values, other_values, cosine=0.99)
    assert len(one) > 0.7 * len(values)
    away = np.abs(points[one, :2] - others[other, :2]).max(axis=1)
    assert np.median(away) < 0.01
    angles = np.degrees(points[one, 3] - others[other, 3])
    assert np.median(np.abs((angles + 180) % 360 - 180)) < 1


def test_a_picture_turned_by_90_degrees_matches_itself(database: Path) -> None:
    found = features(database)
    (points, values), (others, other_values) = found["view.png"], found["a b/turned.png"]
    one, other = paired(values, other_values, cosine=0.98)
    assert len(one) > 0.7 * len(values)
    expected = np.stack([points[one, 1], 320 - points[one, 0]], axis=1)  # of numpy.rot90, from corner to corner
    np.testing.assert_allclose(np.median(others[other, :2] - expected, axis=0), 0, atol=0.05)


def test_pycolmap_matches_and_verifies_it(database: Path, tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    path = tmp_path / "views.db"
    path.write_bytes(database.read_bytes())
    pycolmap.match_exhaustive(path, matching_options=pycolmap.FeatureMatchingOptions(num_threads=1, use_gpu=False))
    opened = pycolmap.Database.open(path)
    try:
        assert [image.name for image in opened.read_all_images()] == [
            "view.png",
            "a b/turned.png",
            "exif.png",
            "flat.png",
        ]
        assert opened.num_keypoints() == sum(len(points) for points, _ in features(database).values())
        between = {pair: len(opened.read_two_view_geometry(*pair).inlier_matches) for pair in [(1, 2), (1, 3), (1, 4)]}
    finally:
        opened.close()
    assert between[1, 2] > 300
    assert between[1, 3] > 300
    assert between[1, 4] == 0


def test_plain_sift_is_as_it_was_extracted(views: FeatureStore, tmp_path: Path) -> None:
    views.export(tmp_path / "plain.db", "colmap", options={"plain": True})
    found = features(tmp_path / "plain.db")
    for row in rows_of(views, "extract"):
        if row.descriptors is not None:
            np.testing.assert_array_equal(found[row.filename][1], row.descriptors)


def test_a_store_of_rootsift_gives_the_same(views: FeatureStore, database: Path, tmp_path: Path) -> None:
    store = copy(views, tmp_path / "store")
    configure(store, "store", images=str(views.path.parent / "images"))
    configure(store, "extract", extractor="rootsift")
    store.run("extract", workers=0)
    store.export(tmp_path / "root.db", "colmap", where="filename = 'view.png'")
    ours, theirs = features(database)["view.png"], features(tmp_path / "root.db")["view.png"]
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1].astype(int), theirs[1], atol=1)


def test_precise_keypoints_lie_in_the_same_places(views: FeatureStore, database: Path, tmp_path: Path) -> None:
    store, where = copy(views, tmp_path / "store"), "filename = 'view.png'"
    images = tmp_path / "images"
    images.mkdir()
    (images / "view.png").symlink_to(views.path.parent / "images" / "view.png")
    configure(store, "store", images=str(images))
    configure(store, "extract", sift={"enable_precise_upscale": True})
    earlier = views.status().stages[0].variant
    store.run("extract", workers=0)
    store.export(tmp_path / "precise.db", "colmap", where=where)
    (points, values), (others, other_values) = (
        features(database)["view.png"],
        features(tmp_path / "precise.db")["view.png"],
    )
    one, other = paired(values, other_values, cosine=0.95)
    assert len(one) > 0.5 * len(values)
    np.testing.assert_allclose(np.median(others[other, :2] - points[one, :2], axis=0), 0, atol=0.05)
    store.export(tmp_path / "before.db", "colmap", where=where, variant=earlier)
    np.testing.assert_array_equal(features(tmp_path / "before.db")["view.png"][0], points)


def test_images_of_one_camera(views: FeatureStore, tmp_path: Path) -> None:
    out, where = tmp_path / "one.db", "filename IN ('view.png', 'exif.png')"
    result = invoke("export", views.path, out, "--format", "colmap", "--single-camera", "--where", where, "--quiet")
    assert result.exit_code == 0, result.exception
    assert ask(out, "SELECT camera_id FROM images") == [(1,), (1,)]
    assert ask(out, "SELECT width, height FROM cameras") == [(320, 240)]
    message = r"^a b/turned\.png has 240 x 320 pixels and an image before it 320 x 240, so that they are not of one cam"
    with pytest.raises(QueryError, match=message):
        views.export(tmp_path / "two.db", "colmap", options={"single_camera": True})
    assert os.listdir(tmp_path) == ["one.db"]  # noqa: PTH208


def test_what_is_left_out_is_said(views: FeatureStore, tmp_path: Path) -> None:
    result = invoke("export", views.path, tmp_path / "out.db", "--format", "colmap")
    assert "left out, since there is no picture: 1 missing" in result.output


def test_codes_are_refused(finished: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(
        QueryError, match=r"^colmap holds descriptors of extract, and none of quantize; choose them with"
    ):
        finished.export(tmp_path / "out.db", "colmap", stage="quantize")
    with pytest.raises(QueryError, match=r"^npy has no option 'plain'; it has none"):
        finished.export(tmp_path / "out", "npy", options={"plain": True})
    with pytest.raises(QueryError, match=r"^colmap has no option 'flat'; its options are plain, single_camera"):
        finished.export(tmp_path / "out", "colmap", options={"flat": True})
    with pytest.raises(QueryError, match=r"^the option 'plain' of colmap is True or False, and not 'no'"):
        finished.export(tmp_path / "out", "colmap", options={"plain": "no"})


def test_a_file_that_is_gone_or_another(views: FeatureStore, database: Path, tmp_path: Path) -> None:
    store = copy(views, tmp_path / "store")
    images = tmp_path / "images"
    images.mkdir()
    configure(store, "store", images=str(images))
    store.export(tmp_path / "recorded.db", "colmap")
    assert features(tmp_path / "recorded.db").keys() == features(database).keys()
    for name, (points, _) in features(tmp_path / "recorded.db").items():
        np.testing.assert_array_equal(points, features(database)[name][0], "the orientation is recorded")
    make_old_partitions(store)
    with pytest.raises(
        QueryError, match=r"^view\.png can't be read in .* \(No such file or directory\), and .* put the"
    ):
        store.export(tmp_path / "out.db", "colmap", where="filename = 'view.png'")
    (images / "view.png").write_bytes(b"another")
    with pytest.raises(
        QueryError, match=r"^view\.png is not the file that was extracted: it had [\d,]+ bytes and has 7"
    ):
        store.export(tmp_path / "out.db", "colmap", where="filename = 'view.png'")


def test_images_in_a_zip_file_have_the_same_keypoints(views: FeatureStore, database: Path, tmp_path: Path) -> None:
    store, images = copy(views, tmp_path / "store"), views.path.parent / "images"
    make_old_partitions(store)
    packed = tmp_path / "images.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for name in ("view.png", "exif.png"):
            file.write(images / name, name)
    configure(store, "store", images=str(packed))
    store.export(tmp_path / "out.db", "colmap", where="filename IN ('view.png', 'exif.png')")
    expected, found = features(database), features(tmp_path / "out.db")
    assert sorted(found) == ["exif.png", "view.png"]
    for name, (points, _) in found.items():
        np.testing.assert_array_equal(points, expected[name][0])
    with pytest.raises(QueryError, match=r"^a b/turned\.png can't be read in .*images\.zip any more \(.*put the file"):
        store.export(tmp_path / "two.db", "colmap")


def test_a_full_disk_is_one_line(views: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colmap, "TABLES", f"PRAGMA max_page_count = 20; {colmap.TABLES}")
    out = tmp_path / "out.db"
    message = rf"^No space left on device: {re.escape(str(out))} could not be written; .* Make room on the disk"
    with pytest.raises(NotEnoughSpace, match=message):
        views.export(out, "colmap")
    assert not list(tmp_path.iterdir())


def test_a_limit_of_files_is_named(
    views: FeatureStore, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite says "disk I/O error" of it, as of a quota."""
    original, out = colmap._database, tmp_path / "out.db"

    @contextmanager
    def limited(path: Path) -> Iterator[Any]:
        with largest_file(database.stat().st_size - 1), original(path) as opened:
            yield opened

    monkeypatch.setattr(colmap, "_database", limited)
    with pytest.raises(NotEnoughSpace, match=rf"^File too large: {re.escape(str(out))} could not be written"):
        views.export(out, "colmap")
    assert not list(tmp_path.iterdir())


SAMPLES = Path(os.environ.get("FEATURESTORE_TEST_IMAGES", "")).parent / "interop_samples"
beside = pytest.mark.skipif(
    not (SAMPLES / "colmap_4.2.1.db").exists(), reason="no samples of COLMAP beside FEATURESTORE_TEST_IMAGES"
)
GRAF = Path(os.environ.get("FEATURESTORE_TEST_IMAGES", "")) / "groundtruth" / "oxford_graf"


@beside
def test_keypoints_lie_where_colmap_itself_finds_them(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "store", images=SAMPLES / "images")
    store.run("extract", workers=0)
    store.export(tmp_path / "ours.db", "colmap")
    ours, theirs = features(tmp_path / "ours.db"), features(SAMPLES / "colmap_4.2.1.db")
    for name in ("a/turned.jpg", "graf1.jpg", "graf2.jpg"):
        (points, values), (others, other_values) = ours[name], theirs[name]
        one, other = paired(values, other_values, cosine=0.97)
        shift = points[one, :2] - others[other, :2]
        near = np.abs(shift).max(axis=1) < 3
        assert near.sum() > 25
        np.testing.assert_allclose(np.median(shift[near], axis=0), 0, atol=0.05)
        scale, angle = np.hypot(others[:, 2], others[:, 4]), np.arctan2(others[:, 4], others[:, 2])
        assert np.median(points[one, 2][near] / scale[other][near]) == pytest.approx(1, abs=0.02)
        turned = np.degrees(points[one, 3] - angle[other])[near]
        assert abs(np.median((turned + 180) % 360 - 180)) < 2


@pytest.mark.skipif(not LONG, reason="the long form: six large pictures are extracted and matched")
@pytest.mark.skipif(not GRAF.is_dir(), reason="no oxford_graf in FEATURESTORE_TEST_IMAGES")
def test_graf_has_the_inliers_that_were_measured(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    store = FeatureStore.create(tmp_path / "store", images=GRAF)
    store.run("extract", workers=0)
    path = tmp_path / "graf.db"
    store.export(path, "colmap")
    pycolmap.match_exhaustive(path, matching_options=pycolmap.FeatureMatchingOptions(num_threads=1, use_gpu=False))
    opened = pycolmap.Database.open(path)
    try:
        assert opened.num_inlier_matches() >= 0.95 * 7253
    finally:
        opened.close()
    models = pycolmap.incremental_mapping(path, GRAF, tmp_path)
    assert max(model.num_reg_images() for model in models.values()) == 6
