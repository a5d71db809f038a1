"""A COLMAP database becomes partitions of extract, and whatever is in it, nothing worse than one line comes of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from featurestore import FeatureStore
from featurestore.errors import ConfigError, CorruptFile, DatasetError, FeatureStoreError, NotReady, QueryError
from featurestore.exchange import open_database
from featurestore.exchange.importers import colmap_database
from tests.broken_images import encoded, picture
from tests.small import change_recipe, configure, invoke, rows_of, small_store, write_dataset

NAMES = ["a.png", "sub/b.png", "c.png"]
SMALL: dict[str, dict[str, Any]] = {"fit_pca": {"n_components": 4}, "project": {"top": 20}}
Descriptors = NDArray[np.uint8]


def descriptors(n: int, *, root: bool, seed: int = 0) -> Descriptors:
    """Descriptors of norm 512, plain or as RootSIFT."""
    plain = np.random.default_rng(seed).exponential(size=(n, 128)) ** 2
    values = np.sqrt(plain) if root else plain
    whole: Descriptors = np.minimum(255, np.rint(512 * values / np.linalg.norm(values, axis=1, keepdims=True))).astype(
        np.uint8
    )
    return whole


def points(n: int, cols: int = 4, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(1, 80, (n, 2)), rng.uniform(0.5, 3, (n, cols - 2))], axis=1).astype("<f4")


class Made:
    """A database in the making, of the newest schema or, without ``type``, an old one."""

    def __init__(self, path: Path, *, typed: bool = True) -> None:
        self.path, self.typed = path, typed
        self.connection = sqlite3.connect(path)
        kind = "type INTEGER NOT NULL," if typed else ""
        self.connection.executescript(f"""
            CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY, model INTEGER, width INTEGER, height INTEGER,
                params BLOB, prior_focal_length INTEGER);
            CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT UNIQUE, camera_id INTEGER, prior_qw REAL);
            CREATE TABLE keypoints (image_id INTEGER PRIMARY KEY, rows INTEGER, cols INTEGER, data BLOB);
            CREATE TABLE descriptors (image_id INTEGER PRIMARY KEY, {kind} rows INTEGER, cols INTEGER, data BLOB);
            INSERT INTO cameras VALUES (1, 2, 160, 120, NULL, 0);""")

    def add(self, image_id: int, name: object, keypoints: Any = None, values: Any = None) -> Made:
        self.ask("INSERT INTO images (image_id, name, camera_id) VALUES (?, ?, 1)", image_id, name)
        if keypoints is not None:
            self.ask("INSERT INTO keypoints VALUES (?, ?, ?, ?)", image_id, *keypoints.shape, keypoints.tobytes())
        if values is not None:
            shape = (*((0,) if self.typed else ()), *values.shape)
            marks = ", ".join("?" * (len(shape) + 2))
            self.ask(f"INSERT INTO descriptors VALUES ({marks})", image_id, *shape, values.tobytes())
        return self

    def ask(self, query: str, *parameters: object) -> Made:
        self.connection.execute(query, parameters)
        return self

    def done(self) -> Path:
        self.connection.commit()
        self.connection.close()
        return self.path


def whole_database(path: Path, *, root: bool = True, typed: bool = True) -> Made:
    """A database of the images of the store: two with keypoints, one with none, in another order, and a stranger."""
    made = Made(path, typed=typed)
    made.add(7, "sub/b.png", points(300, 6, 1), descriptors(300, root=root, seed=1))
    made.add(9, "c.png", points(0), descriptors(0, root=root))
    made.add(12, "a.png", points(200, 4), descriptors(200, root=root))
    return made.add(13, "stran\nger.png", points(5), descriptors(5, root=root))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``images`` and a store of it. Not to be changed: see `store`."""
    folder = tmp_path_factory.mktemp("made")
    images = folder / "images"
    (images / "sub").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (images / name).write_bytes(encoded(".png", picture(seed=number)))
    write_dataset(images, ["filename,subset", *(f"{name},train" for name in NAMES)])
    store = small_store(folder / "store", images, chunk_size=3, recipe=SMALL)
    configure(store, "store", images="../images", dataset="../images/dataset.csv")
    return folder


@pytest.fixture
def store(made_once: Path, tmp_path: Path) -> FeatureStore:
    """A store of three images, none of them extracted, and the folder ``images`` beside it."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    return FeatureStore(tmp_path / "store")


def test_the_features_are_those_of_the_database(store: FeatureStore, tmp_path: Path) -> None:
    report = store.import_colmap(whole_database(tmp_path / "colmap.db").done())
    assert (report.n_matched, report.published, report.unmatched) == (3, (0,), ("stran\\nger.png",))
    assert report.statuses == {"ok": 2, "empty": 1}
    rows = {row.filename: row for row in rows_of(store, "extract")}
    a, b = rows["a.png"], rows["sub/b.png"]
    assert a.keypoints is not None
    assert b.keypoints is not None
    np.testing.assert_array_equal(a.descriptors, descriptors(200, root=True))
    given = points(200)
    np.testing.assert_allclose(a.keypoints["x"], given[:, 0] - 0.5, rtol=1e-6)
    np.testing.assert_allclose(a.keypoints["y"], given[:, 1] - 0.5, rtol=1e-6)
    np.testing.assert_allclose(a.keypoints["size"], 2 * given[:, 2])
    np.testing.assert_allclose(a.keypoints["angle"], np.degrees(given[:, 3]) % 360, rtol=1e-5)
    a11, a12, a21, a22 = points(300, 6, 1)[:, 2:].T
    np.testing.assert_allclose(b.keypoints["size"], np.hypot(a11, a21) + np.hypot(a12, a22), rtol=1e-6)
    np.testing.assert_allclose(b.keypoints["angle"], np.degrees(np.arctan2(a21, a11)), rtol=1e-5)
    assert (rows["c.png"].status, rows["c.png"].error) == ("empty", "no keypoints found")
    assert [rows[name].extra["width"] for name in NAMES] == [160, 160, 160]


def test_everything_downstream_works_on_it(store: FeatureStore, tmp_path: Path) -> None:
    store.import_colmap(whole_database(tmp_path / "colmap.db", typed=False).done())
    assert [summary.stage for summary in store.run(workers=0)] == ["fit_pca", "project", "fit_scale", "quantize"]
    assert store.descriptors("a.png").shape == (20, 4)
    assert store.sql("SELECT DISTINCT origin FROM partitions WHERE stage = 'extract'").fetchall() == [("colmap",)]
    assert store.run(workers=0, retry_failed=True, check_images=True) == []
    assert store.verify(deep=True).problems == []
    with pytest.raises(QueryError, match=r"^the descriptors of this store were made by COLMAP and imported, so that"):
        store.encode(tmp_path / "images" / "a.png")


def test_what_was_exported_comes_back(store: FeatureStore, tmp_path: Path) -> None:
    path = whole_database(tmp_path / "colmap.db").done()
    store.import_colmap(path)
    store.export(tmp_path / "again.db", "colmap")
    query = "SELECT k.data, d.data FROM images i JOIN keypoints k USING (image_id) JOIN descriptors d USING (image_id)"
    found = []
    for one in (path, tmp_path / "again.db"):
        with closing(sqlite3.connect(one)) as connection:
            found.append(connection.execute(f"{query} WHERE name = 'a.png'").fetchone())
    (before, values), (after, again) = found
    np.testing.assert_allclose(np.frombuffer(after, "<f4"), np.frombuffer(before, "<f4"), rtol=1e-5)
    assert again == values


def test_what_was_pruned_is_imported_again(store: FeatureStore, tmp_path: Path) -> None:
    path = whole_database(tmp_path / "colmap.db").done()
    store.import_colmap(path)
    store.run(workers=0)
    codes = store.matrix().codes
    store.prune(keep="quantize")
    with pytest.raises(NotReady, match="lack extract: pruned"):
        store.export(tmp_path / "again.db", "colmap")
    assert store.import_colmap(path).published == (0,)
    store.export(tmp_path / "again.db", "colmap")
    assert store.run(workers=0) == [], "the same descriptors make nothing stale"
    np.testing.assert_array_equal(store.matrix().codes, codes)
    assert store.import_colmap(path).left_alone == (0,)


def test_run_extracts_nothing_of_what_was_not_imported(store: FeatureStore, tmp_path: Path) -> None:
    made = Made(tmp_path / "colmap.db").add(1, "a.png", points(200), descriptors(200, root=True))
    report = store.import_colmap(made.done())
    assert report.published == ()
    assert [(chunk.n_missing, chunk.examples) for chunk in report.waiting] == [(2, ["sub/b.png", "c.png"])]
    message = r"^the descriptors of colmap are not computed but imported, and chunk 0 can't be without .*import-colmap"
    with pytest.raises(NotReady, match=message):
        store.run(workers=0)


def test_images_that_have_left_the_dataset_need_no_entry(store: FeatureStore, tmp_path: Path) -> None:
    images, path = tmp_path / "images", tmp_path / "chunks"
    store = small_store(path, images, chunk_size=2, recipe=SMALL)  # of a chunk one image is left, of the other none
    database = Made(tmp_path / "colmap.db").add(1, "a.png", points(200), descriptors(200, root=True)).done()
    assert store.import_colmap(database).published == ()
    with pytest.raises(NotReady) as caught:
        store.run(workers=0)
    assert str(caught.value).endswith(
        f"chunks 0-1 can't be without them; import them with: featurestore import-colmap {path} DB. Images that DB "
        f"lacks are left out by removing their rows from the dataset: featurestore ingest {path}, then import again"
    )
    told = "remove its row from the dataset, run featurestore ingest, and import again"
    assert told in invoke("import-colmap", path, database).output

    write_dataset(images, ["filename,subset", "a.png,train"])
    store.ingest(yes=True)
    report = store.import_colmap(database)
    assert (report.published, report.waiting, report.statuses) == ((0, 1), (), {"ok": 1, "unknown": 2})
    assert len(store.run(workers=0)) == 4
    assert store.sql("FROM failures").fetchall() == []
    assert store.verify(deep=True).problems == []
    assert told not in invoke("import-colmap", path, database).output

    write_dataset(images, ["filename,subset", "a.png,train", "sub/b.png,train"])
    store.ingest()
    reason = "the image had left the dataset when the others were imported"
    assert store.sql("SELECT filename, status, error FROM failures").fetchall() == [("sub/b.png", "unknown", reason)]
    assert store.import_colmap(database).left_alone == (0, 1)
    later = Made(tmp_path / "later.db").add(1, "a.png", points(200), descriptors(200, root=True))
    later.add(2, "sub/b.png", points(300), descriptors(300, root=True, seed=1))
    report = store.import_colmap(later.done())
    assert (report.published, report.left_alone, report.statuses) == ((0,), (1,), {"ok": 2})
    store.run(workers=0)
    assert store.descriptors("sub/b.png").shape == (20, 4)
    assert store.verify(deep=True).problems == []
    assert store.import_colmap(tmp_path / "later.db").published == ()


def test_the_normalization_is_a_part_of_the_variant(store: FeatureStore, tmp_path: Path) -> None:
    path = whole_database(tmp_path / "colmap.db", root=False).done()
    with pytest.raises(ConfigError, match=r"^the descriptors look like l2, and COLMAP's default is l1_root; declare"):
        store.import_colmap(path)
    result = invoke("import-colmap", store.path, path, "--normalization", "l2")
    assert "published chunk 0: 2 ok, 1 empty" in result.output
    assert "look like" not in result.output
    with pytest.raises(ConfigError, match=r"^featurestore\.toml says normalization = 'l2' .* and not 'l1_root'; chang"):
        store.import_colmap(path, normalization="l1_root")
    change_recipe(store, {"extract": {"colmap": {"normalization": "l1_root"}}})
    result = invoke("import-colmap", store.path, path)
    assert "the descriptors are declared as l1_root, and look like l2" in result.output
    assert store.sql("SELECT count(DISTINCT variant) FROM partitions").fetchall() == [(2,)]


def test_other_descriptors_are_not_replaced(tiny: FeatureStore, tmp_path: Path) -> None:
    before = (tiny.path / "featurestore.toml").read_bytes()
    with pytest.raises(
        ConfigError, match=r"has descriptors of sift, and a store holds those of one extractor at a tim"
    ):
        tiny.import_colmap(whole_database(tmp_path / "colmap.db").done())
    assert (tiny.path / "featurestore.toml").read_bytes() == before


def test_keypoints_without_a_size(tmp_path: Path) -> None:
    made = Made(tmp_path / "colmap.db").add(1, "a.png", points(3, 2), descriptors(3, root=True))
    with open_database(made.done()) as database:
        (image,) = database.images()
        assert database.features(image).scale.tolist() == [0, 0, 0]


HOSTILE: dict[str, tuple[str, type[FeatureStoreError], str]] = {
    "too few bytes": (
        "UPDATE keypoints SET data = x'00'",
        CorruptFile,
        "keypoints of a.png are 4 x 4, which is 64 byt",
    ),
    "too many rows": ("UPDATE descriptors SET rows = 5", CorruptFile, "descriptors of a.png are 5 x 128, which is 640"),
    "a billion": (
        "UPDATE keypoints SET rows = 1000000000",
        CorruptFile,
        "of a.png are 1000000000 x 4, and can be 2 or",
    ),
    "below none": ("UPDATE keypoints SET rows = -4", CorruptFile, "the keypoints of a.png are -4 x 4"),
    "no number": ("UPDATE keypoints SET rows = 'four'", CorruptFile, "the keypoints of a.png are 'four' x 4"),
    "five wide": ("UPDATE keypoints SET cols = 5", CorruptFile, "are 4 x 5, and can be 2 or 4 or 6 wide"),
    "text": ("UPDATE descriptors SET data = 'text'", CorruptFile, "which is 512 bytes, and the data are str"),
    "nothing": ("UPDATE descriptors SET data = NULL", CorruptFile, "which is 512 bytes, and the data are NoneType"),
    "not a number": (
        "UPDATE keypoints SET data = CAST(x'0000c07f' || substr(data, 5) AS BLOB)",
        CorruptFile,
        "keypoint of a.png is",
    ),
    "a size below none": (
        "UPDATE keypoints SET data = CAST(substr(data, 1, 8) || x'000080bf' || substr(data, 13) AS BLOB)",
        CorruptFile,
        "keypoint of a.png is not a place, a size and an angle",
    ),
    "no descriptors": ("DELETE FROM descriptors", CorruptFile, "a.png has 4 keypoints and 0 descriptors"),
    "ALIKED": (
        "UPDATE descriptors SET type = 1",
        DatasetError,
        "the descriptors of a.png are of type 1, and SIFT is 0",
    ),
    "two lines": (
        "UPDATE images SET name = 'a' || char(10) || 'b', camera_id = 2",
        CorruptFile,
        "of a\\nb has no size",
    ),
    "no camera": ("DELETE FROM cameras", CorruptFile, "the camera 1 of a.png has no size in pixels"),
    "no size": ("UPDATE cameras SET width = 0", CorruptFile, "the camera 1 of a.png has no size in pixels"),
    "no name": ("UPDATE images SET name = NULL", CorruptFile, "image 1 has no name of at most 4,096 letters"),
    "long name": ("UPDATE images SET name = printf('%.*c', 5000, 'x')", CorruptFile, "image 1 has no name of at most"),
    "no table": ("DROP TABLE keypoints", DatasetError, "its table keypoints has no column image_id"),
    "no column": ("ALTER TABLE images DROP COLUMN camera_id", DatasetError, "its table images has no column camera_id"),
}


def read_all(path: Path) -> None:
    """Read every feature of a database."""
    with open_database(path) as database:
        for image in database.images():
            database.size(image)
            database.features(image)


def refusal(path: Path) -> str:
    """Read every feature, and return why it was refused, if it was."""
    try:
        read_all(path)
    except FeatureStoreError as error:
        return str(error)
    return ""


def small(path: Path) -> Made:
    return Made(path).add(1, "a.png", points(4), descriptors(4, root=True))


@pytest.mark.parametrize("case", HOSTILE)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    statement, kind, message = HOSTILE[case]
    path = small(tmp_path / "colmap.db").ask(statement).done()
    with pytest.raises(kind) as refused:
        read_all(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


VIEWS = {
    "a view that never ends": "CREATE VIEW keypoints AS WITH RECURSIVE "
    "n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS image_id, 0 AS rows, 2 AS cols, x'' AS data FROM n",
    "a column that makes its data": "CREATE TABLE keypoints (image_id INTEGER PRIMARY KEY, rows INTEGER, cols INTEGER, "
    "data BLOB GENERATED ALWAYS AS (zeroblob(1000000000)))",
    "no key": "CREATE TABLE keypoints (image_id INTEGER, rows INTEGER, cols INTEGER, data BLOB)",
}


@pytest.mark.parametrize("case", VIEWS)
def test_only_plain_tables_are_read(tmp_path: Path, case: str) -> None:
    path = small(tmp_path / "colmap.db").ask("DROP TABLE keypoints").ask(VIEWS[case]).done()
    with pytest.raises(DatasetError, match=r"is not a database of COLMAP: its table keypoints has no column"):
        read_all(path)


def test_values_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colmap_database, "LONGEST_VALUE", 1000)
    path = small(tmp_path / "colmap.db").ask("UPDATE keypoints SET data = zeroblob(5000)").done()
    with pytest.raises(CorruptFile, match=r"what it has of a\.png can't be read \(string or blob too big"):
        read_all(path)


def test_files_that_are_no_database(store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "colmap.db"
    with pytest.raises(DatasetError, match=r"is not a file; name the database that COLMAP's feature_extractor wrote"):
        store.import_colmap(path)
    path.write_bytes(b"text")
    with pytest.raises(DatasetError, match=r"is not a database of SQLite; name the one that feature_extractor wrote"):
        store.import_colmap(path)
    path.unlink()
    small(path).done()
    path.with_name("colmap.db-wal").write_bytes(b"changes")
    with pytest.raises(DatasetError, match=r"has changes that are in colmap\.db-wal only, since COLMAP has it open or"):
        store.import_colmap(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("fuzz") / "sound.db").done()


@given(data=st.data())
def test_a_damaged_database_is_read_or_refused(sound: Path, data: st.DataObject) -> None:
    path, damaged = sound.with_name("damaged.db"), bytearray(sound.read_bytes())
    used = [i for i, byte in enumerate(damaged) if byte]  # where the structure is
    places = st.lists(st.tuples(st.sampled_from(used), st.integers(0, 255)), max_size=8)
    for place, value in data.draw(places):
        damaged[place] = value
    path.write_bytes(bytes(damaged[: data.draw(st.sampled_from([len(damaged), 100, 5000, len(damaged) - 1]))]))
    assert "\n" not in refusal(path)


@given(
    st.lists(
        st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=40)),
        min_size=6,
        max_size=6,
    )
)
def test_values_of_any_type_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "values.db"
    path.unlink(missing_ok=True)
    made = small(path)
    try:
        made.ask("UPDATE keypoints SET rows = ?, cols = ?, data = ?", *values[:3])
        made.ask("UPDATE descriptors SET rows = ?, cols = ?, data = ?", *values[3:])
    except (OverflowError, sqlite3.Error, UnicodeEncodeError):  # SQLite does not hold it
        pass
    made.done()
    assert "\n" not in refusal(path)


def points_in(path: Path) -> list[Any]:
    """The keypoints of each image, by name, and their columns."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        query = "SELECT k.data, k.cols FROM images i JOIN keypoints k USING (image_id) ORDER BY name"
        return connection.execute(query).fetchall()


SAMPLES = Path(os.environ.get("FEATURESTORE_TEST_IMAGES", "")).parent / "interop_samples"


@pytest.mark.skipif(
    not (SAMPLES / "colmap_4.2.1.db").exists(), reason="no samples of COLMAP beside FEATURESTORE_TEST_IMAGES"
)
def test_a_database_that_colmap_made(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a/turned.jpg", "graf1.jpg", "graf2.jpg"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).symlink_to(SAMPLES / "images" / name)
    store = FeatureStore.create(tmp_path / "store", images=images)
    report = store.import_colmap(SAMPLES / "colmap_4.2.1.db")
    assert report.statuses == {"ok": 3}
    found = {row.filename: row for row in rows_of(store, "extract")}
    assert [len(found[name].descriptors) for name in ("a/turned.jpg", "graf1.jpg", "graf2.jpg")] == [133, 394, 445]  # type: ignore[arg-type]
    assert (found["a/turned.jpg"].extra["width"], found["a/turned.jpg"].extra["height"]) == (118, 160)
    shutil.rmtree(images)  # the orientation is known without the file
    store.export(tmp_path / "again.db", "colmap")
    for (before, cols), (after, _) in zip(
        points_in(SAMPLES / "colmap_4.2.1.db"), points_in(tmp_path / "again.db"), strict=True
    ):
        given = np.frombuffer(before, "<f4").reshape(-1, cols)[:, :2]
        np.testing.assert_allclose(np.frombuffer(after, "<f4").reshape(-1, 4)[:, :2], given, atol=1e-4)
