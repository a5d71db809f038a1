"""A catalog rebuilt from the files: all tables equal the old ones, and runs as far as the manifests tell."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from PIL import Image

from featurestore import FeatureStore
from featurestore.catalog import HeldCatalog
from featurestore.errors import CorruptFile, FormatError, StoreBusy
from featurestore.storage import CATALOG, CONFIG, Root, exclusive
from tests.catalogs import rows, tables
from tests.conftest import Samples
from tests.once import copied
from tests.small import copy


def partition(store: FeatureStore, stage: str, chunk: int) -> Path:
    return next((store.path / "partitions" / stage).rglob(f"chunk-{chunk:06d}-*.parquet"))


@pytest.fixture(scope="module")
def grown_once(finished: FeatureStore, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store with a second ingest that widens a column, a moved image, a child model and a second variant.

    Not to be changed: see `grown`.
    """

    def make(folder: Path) -> None:
        images = shutil.copytree(samples.images, folder / "images")
        Image.open(images / "china" / "left-000.jpg").transpose(Image.Transpose.ROTATE_270).save(images / "new.jpg")
        text = samples.dataset.read_text(encoding="utf-8").replace(
            "flower/right-180.jpg,train", "flower/right-180.jpg,test"
        )
        changed = folder / "dataset.csv"
        changed.write_text(text + "new.jpg,train,china,left,ninety\n", encoding="utf-8")
        store = copy(finished, folder / "store")
        recipe = (store.path / CONFIG).read_text(encoding="utf-8").replace(str(samples.images), str(images))
        (store.path / CONFIG).write_text(recipe.replace("top = 200", "top = 150"), encoding="utf-8")
        store.ingest(changed)
        store.run(workers=0)
        store.run("fit_pca", update=True, yes=True, workers=0)

    return FeatureStore(copied(tmp_path_factory, "grown", make) / "store")


@pytest.fixture
def grown(grown_once: FeatureStore, tmp_path: Path) -> FeatureStore:
    """Such a store, which the test may change."""
    return copy(grown_once, tmp_path / "grown")


def test_every_table_is_what_it_was(grown: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before, status = tables(grown.path), grown.status()
    assert len(before["models"]) == 4
    assert len(before["ingests"]) == 2
    report = grown.rebuild()
    assert report.notes == ()
    assert tables(grown.path) == before  # the runs too, out of the old catalog
    assert grown.status() == status
    (grown.path / CATALOG).unlink()
    monkeypatch.setattr("featurestore.maintenance.rebuild.AT_ONCE", 4)  # of more than 12 partitions
    report = grown.rebuild()
    assert tables(grown.path, without=("runs",)) == {name: table for name, table in before.items() if name != "runs"}
    assert [note.split(":")[-1] for note in report.notes] == [" there is no old catalog"]
    told = rows(grown.path, "SELECT stage, n_chunks, n_images, outcome, seconds FROM runs ORDER BY ALL")
    assert ("extract", 5, 27, "rebuilt", 0.0) in told
    assert grown.status().stages[0] == status.stages[0]
    # An unknown duration is no pace to estimate by.
    assert all(estimate.seconds is None for estimate in grown.plan())


def test_a_damaged_catalog_is_replaced(store: FeatureStore) -> None:
    before = tables(store.path, without=("runs",))
    (store.path / CATALOG).write_bytes(b"not a database" * 1000)
    with pytest.raises(CorruptFile, match=f"featurestore rebuild {store.path}$"):
        store.status()
    report = store.rebuild()
    assert len(report.notes) == 1
    assert report.notes[0].startswith("runs are as far as the manifests tell, without hosts and durations: ")
    assert "can't be read" in report.notes[0]
    assert tables(store.path, without=("runs",)) == before
    assert store.run(workers=0) == []


def test_a_catalog_without_tables_is_replaced(store: FeatureStore) -> None:
    (store.path / CATALOG).unlink()
    duckdb.connect(str(store.path / CATALOG)).close()
    (note,) = store.rebuild().notes
    assert note.endswith("without hosts and durations: the old catalog holds no runs")


def test_what_duckdb_had_not_written_yet_is_not_played_into_the_new_catalog(store: FeatureStore) -> None:
    (store.path / f"{CATALOG}.wal").write_bytes(b"of another database")
    store.rebuild()
    assert not (store.path / f"{CATALOG}.wal").exists()
    assert store.status().stages[-1].n_done == 4


def test_a_file_that_holds_something_else_is_left_out_and_recomputed(store: FeatureStore) -> None:
    damaged = partition(store, "project", 1)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 3] ^= 1
    damaged.write_bytes(data)
    before = damaged.name
    report = store.rebuild()
    assert report.n_partitions == 11
    assert len(report.notes) == 1
    assert report.notes[0].startswith("left out: ")
    assert [(stage.stage, stage.n_chunks) for stage in store.run(workers=0)] == [("project", 1)]
    assert partition(store, "project", 1).name == before


def test_of_several_partitions_the_one_made_from_the_current_input_is_current(store: FeatureStore) -> None:
    old = {path: path.read_bytes() for path in (store.path / "partitions").rglob("chunk-000003-*.parquet")}
    image = store.sql("SELECT filename FROM failures").fetchall()[0][0]
    recipe = store.path / CONFIG
    recipe.write_text(recipe.read_text(encoding="utf-8").replace('"refuse" #', '"keep" #'), encoding="utf-8")
    assert len(store.run(workers=0)) == 3
    before = tables(store.path, without=("runs",))
    for path, data in old.items():  # as if nothing had been deleted, and the old files were the newer ones
        path.write_bytes(data)
        os.utime(path, (2e9, 2e9))
    (store.path / CATALOG).unlink()
    report = store.rebuild()
    assert [note.split(": ")[0] for note in report.notes] == ["chosen"] * 3 + [
        "runs are as far as the manifests tell, without hosts and durations"
    ]
    assert tables(store.path, without=("runs",)) == before
    assert image not in [row[0] for row in store.sql("SELECT filename FROM failures").fetchall()]


def test_what_is_upstream_decides_where_all_else_is_equal(
    store: FeatureStore, samples: Samples, tmp_path: Path
) -> None:
    """An image was replaced: both project partitions have as many usable images, and the old one has the later time."""
    images = shutil.copytree(samples.images, tmp_path / "images")
    recipe = store.path / CONFIG
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(str(samples.images), str(images)), encoding="utf-8")
    old = {path: path.read_bytes() for path in (store.path / "partitions").rglob("chunk-000000-*.parquet")}
    shutil.copy(images / "china" / "left-090.jpg", images / "china" / "whole-000.jpg")
    assert len(store.run(check_images=True, workers=0)) == 3
    before = tables(store.path, without=("runs",))
    for path, data in old.items():
        path.write_bytes(data)
        os.utime(path, (1e9, 1e9) if path.parts[-3] == "extract" else (2e9, 2e9))
    (store.path / CATALOG).unlink()
    assert sum(note.startswith("chosen: ") for note in store.rebuild().notes) == 3
    assert tables(store.path, without=("runs",)) == before


def test_a_missing_dataset_file_is_asked_for(grown: FeatureStore) -> None:
    (grown.path / "dataset" / "000001.parquet").unlink()
    text = "^dataset/000001.parquet is missing, and dataset/000002.parquet builds on it; put back a copy of it$"
    with pytest.raises(CorruptFile, match=text):
        grown.rebuild()
    assert grown.status().n_images == 27  # the old catalog is unchanged


def test_a_store_without_dataset_files_is_asked_for_them(store: FeatureStore) -> None:
    (store.path / "dataset" / "000001.parquet").unlink()
    with pytest.raises(CorruptFile, match=r"dataset holds no file, and nothing else says which images there are; put"):
        store.rebuild()


def test_a_damaged_dataset_file_is_asked_for(store: FeatureStore) -> None:
    path = store.path / "dataset" / "000001.parquet"
    data = bytearray(path.read_bytes())
    data[200] ^= 4
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match=r"^dataset/000001.parquet can't be read \(.*\); put back a copy of it$"):
        store.rebuild()


def test_dataset_files_in_another_order_are_refused(grown: FeatureStore) -> None:
    dataset = grown.path / "dataset"
    (dataset / "000001.parquet").rename(dataset / "000003.parquet")
    (dataset / "000002.parquet").rename(dataset / "000001.parquet")
    (dataset / "000003.parquet").rename(dataset / "000002.parquet")
    with pytest.raises(
        CorruptFile, match=r"^dataset/000001.parquet does not go on where the dataset files before it end"
    ):
        grown.rebuild()


def test_rebuild_takes_its_turn(store: FeatureStore) -> None:
    with exclusive(Root(store.path), "run"), pytest.raises(StoreBusy, match=r"is in use by featurestore run \(pid"):
        store.rebuild()


def test_a_partition_of_an_unknown_chunk_is_left_out(store: FeatureStore, samples: Samples, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("filename,subset\nblank.jpg,train\n", encoding="utf-8")
    other = FeatureStore.create(tmp_path / "other", images=samples.images, dataset=fewer, chunk_size=8)
    shutil.copytree(store.path / "partitions" / "extract", other.path / "partitions" / "extract")
    notes = other.rebuild().notes
    assert sum("is of a chunk that is not in the dataset" in note for note in notes) == 3


@pytest.mark.parametrize(
    ("metadata", "drop", "text"),
    [
        (
            {"featurestore": '{"format": 3}'},
            [],
            "^dataset/000001.parquet is of format 3, and this version knows 2; use a",
        ),
        (
            {"featurestore": '{"format": 1}'},
            ["subset"],
            "^dataset/000001.parquet has no column subset of string in every",
        ),
        ({}, [], r"^dataset/000001.parquet can't be read \(it has no manifest\); put back a copy of it$"),
    ],
)
def test_a_dataset_file_of_another_kind_is_refused(
    store: FeatureStore, metadata: dict[str, str], drop: list[str], text: str
) -> None:
    path = store.path / "dataset" / "000001.parquet"
    table = pq.read_table(path).drop_columns(drop)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises((CorruptFile, FormatError), match=text):
        store.rebuild()


def test_a_catalog_that_is_none_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "other.duckdb").write_bytes(b"nonsense" * 5000)
    with (
        HeldCatalog(Root(tmp_path)) as catalog,
        pytest.raises(CorruptFile, match=r"other.duckdb can't be read: .*; make it again"),
    ):
        catalog.take_over(tmp_path / "other.duckdb")
