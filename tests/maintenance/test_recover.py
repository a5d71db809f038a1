"""The next change of the store cleans up after a crash; reading it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.storage import PartitionFile, PartitionWriter, read_arrays, write_arrays
from tests.catalogs import change, rows, tables
from tests.tampering import partition_manifest, rewrite_partition

LEFT = (".tmp-0123456789ab-run.lock.json", "dataset/.tmp-0123456789ab-000002.parquet")


def settle(store: FeatureStore) -> None:
    """Change the store without changing anything in it."""
    assert store.ingest().ingest_id is None


def partition(store: FeatureStore, stage: str, chunk: int) -> Path:
    return next((store.path / "partitions" / stage).rglob(f"chunk-{chunk:06d}-*.parquet"))


def forget(store: FeatureStore, stage: str, chunk: int) -> None:
    """As if the run had been killed between the rename and the record."""
    where = f"WHERE stage = '{stage}' AND chunk_id = {chunk}"
    change(store.path, f"DELETE FROM partitions {where}", f"DELETE FROM results {where}")


def files(store: FeatureStore) -> dict[str, tuple[int, int]]:
    """Every partition and model, and by which it could be told that it was written again."""
    found = [path for folder in ("partitions", "models") for path in (store.path / folder).rglob("*.*")]
    return {str(path.relative_to(store.path)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize("stage", ["extract", "project", "quantize"])
def test_a_partition_without_a_record_is_adopted(store: FeatureStore, stage: str) -> None:
    before, on_disk = tables(store.path), files(store)
    forget(store, stage, 1)
    change(store.path, f"DELETE FROM variants WHERE stage = '{stage}'")
    assert store.status().stages[-1].n_done < 4 or stage != "quantize"
    settle(store)
    assert tables(store.path) == before
    assert files(store) == on_disk
    assert store.run(workers=0) == []


def test_a_damaged_one_is_recomputed(store: FeatureStore) -> None:
    before, path = tables(store.path, without=("runs",)), partition(store, "quantize", 2)
    data = path.read_bytes()
    forget(store, "quantize", 2)
    path.write_bytes(data[: len(data) // 2])
    settle(store)
    assert not path.exists()
    assert [(done.stage, done.n_chunks) for done in store.run(workers=0)] == [("quantize", 1)]
    assert path.read_bytes() == data
    assert tables(store.path, without=("runs",)) == before


def test_one_with_other_rows_than_it_says_is_deleted(store: FeatureStore) -> None:
    path = partition(store, "quantize", 2)
    forget(store, "quantize", 2)
    other = path.rename(path.with_name(f"chunk-000002-{'0' * 16}.parquet"))
    settle(store)
    assert not other.exists()


def test_one_that_was_replaced_is_deleted(store: FeatureStore) -> None:
    """Killed between the record of a retry and the deletion of the file that it replaces."""
    path, before = partition(store, "quantize", 2), tables(store.path)
    with PartitionFile(path) as file:
        rows_, layout, manifest = list(file.rows()), file.layout, file.manifest
    writer = PartitionWriter(path.with_name("new"), layout=layout, manifest={**manifest, "input_payload": "0" * 16})
    for row in rows_:
        writer.write(row)
    writer.close()
    older = path.with_name("new").rename(path.with_name(f"chunk-000002-{writer.payload}.parquet"))
    settle(store)
    assert not older.exists()
    assert path.exists()
    assert tables(store.path) == before


def test_one_of_an_unknown_chunk_is_left_alone(store: FeatureStore, fresh: FeatureStore) -> None:
    change(fresh.path, "DELETE FROM chunks WHERE chunk_id = 3", "DELETE FROM images WHERE chunk_id = 3")
    before = tables(fresh.path)
    path = partition(store, "extract", 3)
    stray = fresh.path / path.relative_to(store.path)
    stray.parent.mkdir(parents=True)
    stray.write_bytes(path.read_bytes())
    fresh.run("extract", chunks=[0], workers=0)
    assert stray.exists()
    assert rows(fresh.path, "SELECT DISTINCT chunk_id FROM partitions") == [(0,)]
    assert rows(fresh.path, "SELECT DISTINCT chunk_id FROM results") == [(0,)]
    assert tables(fresh.path)["images"] == before["images"]


@pytest.mark.parametrize("kind", ["partition", "model"])
def test_what_a_newer_version_has_made_is_not_deleted(store: FeatureStore, kind: str) -> None:
    if kind == "partition":
        path = partition(store, "quantize", 2)
        forget(store, "quantize", 2)
        rewrite_partition(path, {"featurestore": json.dumps({**partition_manifest(path), "format": 3})})
    else:
        path = next((store.path / "models" / "fit_scale").rglob("*.npz"))
        change(store.path, "DELETE FROM models WHERE stage = 'fit_scale'")
        arrays, manifest = read_arrays(path)
        write_arrays(path, arrays, {**manifest, "format": 2})
    settle(store)
    assert path.exists()


def test_a_model_without_a_record_is_adopted(store: FeatureStore) -> None:
    before = tables(store.path)
    model = "(SELECT model_id FROM models WHERE stage = 'fit_pca')"
    change(store.path, f"DELETE FROM training_images WHERE model_id IN {model}", "DELETE FROM variants")
    change(store.path, "DELETE FROM models WHERE stage = 'fit_pca'")
    assert store.status().stages[1].model is None
    settle(store)
    after = tables(store.path, without=("variants",))
    assert after == {name: table for name, table in before.items() if name != "variants"}
    assert store.run(workers=0) == []


def test_a_damaged_model_is_deleted(store: FeatureStore) -> None:
    path = next((store.path / "models" / "fit_scale").rglob("*.npz"))
    change(store.path, "DELETE FROM models WHERE stage = 'fit_scale'")
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    settle(store)
    assert not path.exists()
    assert [done.stage for done in store.run(workers=0)] == ["fit_scale"]
    assert path.read_bytes() == data  # the same model, so what was made with it is current


def test_temporary_files_are_removed_and_no_others(store: FeatureStore) -> None:
    kept = ("notes.txt", "partitions/notes.txt", "models/notes.csv", "dataset/notes.json")
    for name in (*LEFT, *kept):
        (store.path / name).touch()
    store.status()
    store.sql("SELECT 1")
    assert all((store.path / name).exists() for name in LEFT)  # reading changes nothing
    settle(store)
    assert not any((store.path / name).exists() for name in LEFT)
    assert all((store.path / name).exists() for name in kept)


def test_a_run_that_died_is_said_to_have_been_killed(store: FeatureStore) -> None:
    change(store.path, "UPDATE runs SET outcome = 'running', ended = NULL WHERE stage = 'project'")
    settle(store)
    found: list[tuple[Any, ...]] = rows(store.path, "SELECT stage, outcome, ended IS NULL FROM runs ORDER BY started")
    assert found == [
        *(("extract", "done", False), ("fit_pca", "done", False), ("project", "killed", False)),
        *(("fit_scale", "done", False), ("quantize", "done", False)),
    ]


def test_in_a_store_in_order_nothing_is_touched(store: FeatureStore) -> None:
    before, on_disk = tables(store.path), files(store)
    settle(store)
    assert (tables(store.path), files(store)) == (before, on_disk)
