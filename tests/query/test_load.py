"""Loading: tables, batches, one matrix, one image; and what is said when something is not there."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.catalog import Context
from featurestore.errors import CorruptFile, FeatureStoreError, NotEnoughSpace, NothingUsable, NotReady, QueryError
from featurestore.query.sql import Opened, open_query
from featurestore.rows import KEYPOINT, blob_bytes
from featurestore.system import free_memory, memory
from tests.small import context_of

STAGES = {"extract": (128, np.uint8), "project": (64, np.float32), "quantize": (64, np.uint8)}


def stored(store: FeatureStore, stage: str) -> dict[int, dict[str, Any]]:
    """Every row of a stage, by image_id, read by pyarrow alone."""
    paths = store.path.glob(f"partitions/{stage}/*/chunk-*.parquet")
    return {row["image_id"]: row for path in paths for row in pq.read_table(path).to_pylist()}


def edit_recipe(store: FeatureStore, old: str, new: str) -> None:
    path = store.path / "featurestore.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def execute(store: FeatureStore, statement: str) -> None:

    with context_of(store).catalog.transaction() as connection:
        connection.execute(statement)


def test_a_table_has_one_row_per_image(finished: FeatureStore) -> None:
    table = finished.load()
    assert table.column_names == ["image_id", "filename", "subset", "status", "n_descriptors", "descriptors"]
    text = pa.string()
    assert table.schema.types == [pa.int64(), text, text, text, pa.int32(), pa.binary()]
    rows = stored(finished, "quantize")
    assert table["image_id"].to_pylist() == sorted(rows)
    for row in table.to_pylist():
        assert row["descriptors"] == rows[row["image_id"]]["descriptors"]
    assert {"stage": "quantize", "dim": "64", "dtype": "uint8"}.items() <= {
        key.decode(): value.decode() for key, value in table.schema.metadata.items()
    }.items()


def test_pandas_gets_what_it_needs(finished: FeatureStore) -> None:
    columns = ["filename", "photo", "rotation", "status", "n_descriptors", "descriptors"]
    table = finished.load(where="photo <> 'flower'", columns=columns, keypoints=True)
    frame = table.to_pandas()
    assert list(frame.columns) == [*columns, "x", "y", "size", "angle", "response", "octave"]
    assert frame["rotation"].dtype == np.int64
    assert frame.groupby("photo")["n_descriptors"].sum()["none"] == 0
    frame["matrix"] = finished.arrays(table)
    for row in frame.itertuples():
        assert isinstance(row.filename, str)
        if row.status == "ok":
            assert row.matrix.shape == (row.n_descriptors, 64)
            assert np.array_equal(row.matrix, finished.descriptors(row.filename))
            assert np.array_equal(row.x, finished.keypoints(row.filename)["x"])
        else:
            assert pd.isna(row.matrix) if not isinstance(row.matrix, np.ndarray) else False


def test_a_column_may_be_spelt_in_another_case(finished: FeatureStore) -> None:
    table = finished.load(columns=["ROTATION", "Photo"])
    assert table.column_names == ["ROTATION", "Photo"]
    assert table["ROTATION"].equals(finished.load(columns=["rotation"])["rotation"])


def test_the_catalog_is_copied_once_for_the_images_and_their_columns(
    finished: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[str] = []

    def counted(context: Context, text: str) -> AbstractContextManager[Opened]:
        copies.append(text)
        return open_query(context, text)

    monkeypatch.setattr("featurestore.query.selection.open_query", counted)
    columns = ["filename", "photo", "rotation", "status"]
    table = finished.load(where="photo = 'flower'", columns=columns)
    assert len(copies) == 1
    assert table.column_names == columns
    assert set(table["photo"].to_pylist()) == {"flower"}
    assert pa.concat_tables(finished.iter_batches(3, where="photo = 'flower'", columns=columns)).equals(table)
    assert len(copies) == 2
    assert finished.select(where="photo = 'flower'").load(columns).equals(table)
    assert len(copies) == 3  # the columns are read at the load, from the catalog itself


def test_a_small_catalog_is_read_itself(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ["filename", "photo", "rotation", "n_descriptors"]
    read = finished.load(columns=columns)
    with monkeypatch.context() as patched:
        patched.setattr("featurestore.catalog.catalog.SMALL_BYTES", 0)
        assert finished.load(columns=columns).equals(read)
    monkeypatch.setattr("featurestore.query.selection.open_query", None)
    assert finished.load(columns=columns).equals(read)


def test_a_store_keeps_its_duckdb(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = finished.matrix().codes
    monkeypatch.setattr(duckdb, "connect", None)
    assert np.array_equal(finished.matrix().codes, codes)


def test_only_the_columns_that_were_asked_for_are_read(store: FeatureStore) -> None:
    table = store.load("extract", columns=["n_descriptors", "width", "crop", "subset"])
    assert table.column_names == ["n_descriptors", "width", "crop", "subset"]
    assert table["width"].null_count == 0
    assert table["crop"][0].as_py() == "whole"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"columns": ["artist"]}, QueryError, "there is no column 'artist'; the columns are image_id, filename"),
        ({"columns": ["n_descriptor"]}, QueryError, "there is no column 'n_descriptor'; did you mean 'n_descriptors'?"),
        ({"stage": "fit_scale"}, QueryError, "there are no descriptors of 'fit_scale', which makes a model"),
        ({"where": "nope"}, QueryError, "where 'nope' can't be evaluated: Binder Error: Referenced column"),
        ({"variant": "beef"}, QueryError, "quantize has no variant 'beef'; the variants of quantize are: "),
    ],
)
def test_what_can_not_be_loaded(
    finished: FeatureStore, arguments: dict[str, Any], error: type[FeatureStoreError], says: str
) -> None:
    for verb in (finished.load, finished.iter_batches):
        with pytest.raises(error, match=re.escape(says)):
            verb(**arguments)


def test_columns_in_place_of_a_stage(finished: FeatureStore) -> None:
    columns: Any = ["filename", "subset"]
    says = "a stage is one of extract, project, quantize, and not ['filename', 'subset']; give columns as columns=[...]"
    with pytest.raises(QueryError, match=f"^{re.escape(says)}$"):
        finished.load(columns)
    assert finished.load(columns=columns).equals(finished.select().load(columns))


def test_a_part_is_never_taken_for_the_whole(store: FeatureStore) -> None:
    for table in ("partitions", "results"):
        execute(store, f"DELETE FROM {table} WHERE stage = 'quantize' AND chunk_id = 1")
    verbs: list[Callable[..., Any]] = [store.load, store.matrix, store.iter_batches]
    for verb in verbs:
        with pytest.raises(NotReady, match=r"8 of the chosen images lack quantize: never run \(chunk 1\)"):
            verb()
    table = store.load(allow_missing=True, columns=["image_id", "status", "error", "descriptors"])
    assert len(table) == 26
    assert table.slice(8, 1).to_pylist() == [
        {"image_id": 8, "status": "pending", "error": "never run", "descriptors": None}
    ]
    codes, offsets, image_ids = store.matrix(allow_missing=True)
    assert image_ids.tolist() == list(range(26))
    assert set(np.diff(offsets)[8:16].tolist()) == {0}
    assert np.array_equal(codes[: offsets[8]], store.matrix(where="image_id < 8").codes)


def test_what_was_made_from_other_input_is_left_out(store: FeatureStore) -> None:
    execute(store, "UPDATE partitions SET payload = 'new' WHERE stage = 'project' AND chunk_id = 1")
    codes, offsets, _ = store.matrix(allow_missing=True)
    assert set(np.diff(offsets)[8:16].tolist()) == {0}
    assert len(codes) == offsets[-1] > offsets[16] == offsets[8] > 0


@pytest.mark.parametrize("rows", [1, 5, 8, 26, 1000])
def test_batches_are_the_table_in_parts(finished: FeatureStore, rows: int) -> None:
    batches = list(finished.iter_batches(rows, stage="project", where="subset = 'train'", keypoints=True))
    assert [len(batch) for batch in batches[:-1]] == [rows] * (len(batches) - 1)
    assert 0 < len(batches[-1]) <= rows
    whole = finished.load("project", "subset = 'train'", keypoints=True)
    assert pa.concat_tables(batches).combine_chunks().equals(whole.combine_chunks())


def test_batches_of_nothing(finished: FeatureStore) -> None:
    assert list(finished.iter_batches(where="false")) == []
    with pytest.raises(QueryError, match="rows is a number of images in a batch, at least 1, and not 0"):
        finished.iter_batches(0)


def test_columns_may_come_from_a_generator(finished: FeatureStore) -> None:
    names = ["filename", "subset"]
    whole = finished.load(columns=names)
    assert finished.load(columns=(name for name in names)).equals(whole)
    assert pa.concat_tables(finished.iter_batches(columns=(name for name in names))).equals(whole)
    assert finished.select().load(name for name in names).equals(whole)


@pytest.mark.parametrize("columns", ["filename", [3], ["filename", None]])
def test_columns_are_a_list_of_names(finished: FeatureStore, columns: Any) -> None:
    with pytest.raises(QueryError, match=r"columns is a list of names, like \['filename', 'n_descriptors'\], and not"):
        finished.load(columns=columns)
    with pytest.raises(QueryError, match="columns is a list of names"):
        finished.select().batches(columns=columns)


@pytest.mark.parametrize("stage", STAGES)
def test_the_matrix_holds_every_descriptor(finished: FeatureStore, stage: str) -> None:
    dim, dtype = STAGES[stage]
    rows = stored(finished, stage)
    for where in (None, "photo = 'china'", "image_id IN (1, 4, 5, 20)", "false"):
        codes, offsets, image_ids = finished.matrix(stage, where)
        assert codes.dtype == dtype, where
        assert codes.shape == (offsets[-1], dim), where
        assert codes.flags.c_contiguous, where
        assert offsets.dtype == image_ids.dtype == np.int64, where
        assert len(offsets) == len(image_ids) + 1, where
        assert image_ids.tolist() == finished.load(stage, where, columns=["image_id"])["image_id"].to_pylist(), where
        for i, image_id in enumerate(image_ids.tolist()):
            assert codes[offsets[i] : offsets[i + 1]].tobytes() == (rows[image_id]["descriptors"] or b""), where


def test_a_matrix_that_does_not_fit(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    with pytest.raises(NotEnoughSpace) as caught:
        finished.matrix()
    assert re.fullmatch(
        r"[\d,]+ descriptors of quantize would take .+ of memory, and 1.0 kB are free; read them in parts with "
        r"iter_batches, or export them as npy and map that into memory",
        str(caught.value),
    )


def test_free_memory_is_that_of_the_machine_or_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert free_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:       3 kB\n", encoding="ascii")
    assert free_memory() == 3072
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("1000\n", encoding="ascii")
    assert free_memory() == 3072
    (tmp_path / "memory.max").write_text("3000\n", encoding="ascii")
    assert free_memory() == 2000
    # What was read from files is counted as used, and given back when it is wanted; what is in a tmpfs is not.
    stat = "anon 300\nfile 600\nshmem 100\ninactive_file 350\nactive_file 150\nslab_reclaimable 50\nslab 70\n"
    (tmp_path / "memory.stat").write_text(stat, encoding="ascii")
    assert free_memory() == 2550


def test_a_partition_that_is_not_what_the_catalog_says(store: FeatureStore) -> None:
    execute(store, "UPDATE results SET n_descriptors = n_descriptors + 1 WHERE stage = 'quantize' AND image_id = 3")
    with pytest.raises(CorruptFile, match="does not hold as many descriptors as the catalog says; put back a copy"):
        store.matrix()


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_bytes_of_blobs(kind: pa.DataType) -> None:
    blobs = pa.array([b"ab", None, b"", b"cde", b"f"], kind)
    for start, stop in [(0, 5), (1, 4), (2, 3), (1, 2), (0, 0)]:
        offsets, values = blob_bytes(blobs.slice(start, stop - start))
        assert values.tobytes() == b"".join(blob or b"" for blob in blobs.to_pylist()[start:stop])
        assert np.diff(offsets).tolist() == [len(blob or b"") for blob in blobs.to_pylist()[start:stop]]
    assert blob_bytes(pa.array([None, None], kind))[0].tolist() == [0, 0, 0]


def test_arrays_are_views(finished: FeatureStore) -> None:
    table = finished.load("project", "image_id < 2")
    first = finished.arrays(table)[0]
    assert first is not None
    assert first.dtype == np.float32
    assert not first.flags.owndata
    assert first.ctypes.data == table["descriptors"].chunk(0).buffers()[2].address, "no copy by Arrow either"
    with pytest.raises(QueryError, match="arrays takes a table from load or iter_batches that has the column"):
        finished.arrays(table.drop_columns("descriptors"))


def test_one_image_by_name(finished: FeatureStore) -> None:
    for stage, (dim, dtype) in STAGES.items():
        for row in stored(finished, stage).values():
            if row["status"] == "ok":
                descriptors = finished.descriptors(row["filename"], stage)
                assert descriptors.shape == (row["n_descriptors"], dim)
                assert descriptors.dtype == np.dtype(dtype)
                assert descriptors.tobytes() == row["descriptors"]
                keypoints = finished.keypoints(row["filename"], stage)
                assert keypoints.dtype == KEYPOINT
                assert keypoints["octave"].tolist() == row["octave"]


def test_an_image_without_descriptors(finished: FeatureStore) -> None:
    assert finished.descriptors("blank.jpg").shape == (0, 64)
    assert finished.descriptors("blank.jpg", "extract").shape == (0, 128)
    assert finished.keypoints("blank.jpg").shape == (0,)
    with pytest.raises(NothingUsable, match=r"'broken.jpg' has no descriptors: .* \(truncated\)"):
        finished.descriptors("broken.jpg")


@pytest.mark.parametrize(
    ("filename", "hint"),
    [
        ("whole-000.jpg", "did you mean 'china/whole-000.jpg'?"),
        ("flower/hole-000.jpg", "did you mean 'flower/whole-000.jpg'?"),
        ("42", "names are those of the dataset CSV, below the image folder"),
    ],
)
def test_a_name_that_is_not_there(finished: FeatureStore, filename: str, hint: str) -> None:
    verbs: list[Callable[[str], Any]] = [finished.descriptors, finished.keypoints, finished.info]
    for verb in verbs:
        with pytest.raises(QueryError) as caught:
            verb(filename)
        assert str(caught.value) == f"there is no image {filename!r} in {finished.path}; {hint}"


def test_an_image_on_which_the_stage_was_not_run(store: FeatureStore) -> None:
    store.descriptors("china/whole-000.jpg")
    edit_recipe(store, "top = 200", "top = 100")
    with pytest.raises(NotReady) as caught:
        store.descriptors("china/whole-000.jpg", "project")
    assert str(caught.value) == (
        "project has not been computed for 'china/whole-000.jpg': parameters changed (top: 200 -> 100); compute it "
        f"with: featurestore run {store.path} project"
    )


def test_the_snapshot_follows_the_catalog_and_the_recipe(store: FeatureStore) -> None:
    name = "china/whole-000.jpg"
    before = store.descriptors(name)
    snapshot = store._lookup
    store.keypoints(name)
    assert store._lookup is snapshot
    variant = store.info(name).stages[-1].variant
    edit_recipe(store, "top = 200", "top = 100")
    store.run(workers=0)
    after = store.descriptors(name)
    assert len(after) == 100 < len(before)
    assert np.array_equal(store.descriptors(name, variant=variant), before)


def test_a_partition_that_was_replaced_in_between(store: FeatureStore, samples: Any) -> None:
    name = "china/whole-000.jpg"
    before = store.descriptors(name)
    path = next(store.path.glob("partitions/quantize/*/chunk-000000-*.parquet"))
    moved = path.with_name("chunk-000000-0123456789abcdef.parquet")
    shutil.copy(path, moved)
    lookup = store._lookup
    assert lookup is not None
    lookup._open.clear()
    relative = str(moved.relative_to(store.path))
    execute(store, f"UPDATE partitions SET path = '{relative}' WHERE stage = 'quantize' AND chunk_id = 0")
    path.unlink()
    # what a look at the catalog just before the replacement would have left behind
    lookup.signature = type(store)(store.path)._current_lookup().signature
    assert np.array_equal(store.descriptors(name), before)


def test_keypoints_that_are_not_kept(store: FeatureStore) -> None:
    edit_recipe(store, "keypoints = true", "keypoints = false")
    store.run(workers=0)
    assert len(store.keypoints("china/whole-000.jpg", "project")) > 0
    with pytest.raises(NotReady, match=r"variant \w+ of quantize keeps no keypoints; ask for those of another stage"):
        store.keypoints("china/whole-000.jpg")
    with pytest.raises(NotReady, match=r"variant \w+ of quantize keeps no keypoints; load those of another stage"):
        store.load(keypoints=True)


def test_a_column_of_the_dataset_that_is_named_like_a_keypoint(samples: Any, tmp_path: Path) -> None:
    dataset = tmp_path / "two.csv"
    dataset.write_text("filename,size,descriptors\nblank.jpg,7,many\nchina/left-000.jpg,8,few\n", encoding="utf-8")
    store = FeatureStore.create(tmp_path / "s", images=samples.images, dataset=dataset, split="'train'")
    store.run("extract", workers=0)
    assert store.load("extract", columns=["size"])["size"].to_pylist() == [7, 8]
    assert store.load("extract", columns=["descriptors"]).schema.field("descriptors").type == pa.binary()
    with pytest.raises(QueryError, match="'size' is a column of the dataset and one of the keypoints; ask for one"):
        store.load("extract", columns=["size"], keypoints=True)


def test_a_store_travels_to_another_process_as_its_path(finished: FeatureStore) -> None:
    finished.descriptors("china/whole-000.jpg")
    copy = pickle.loads(pickle.dumps(finished))
    assert copy._lookup is None
    assert np.array_equal(copy.descriptors("china/whole-000.jpg"), finished.descriptors("china/whole-000.jpg"))
