"""Which rows are read, and what is said of those that are not there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import CorruptFile, NotReady, QueryError, StoreBusy
from featurestore.query import iter_tables, select_images, with_columns
from featurestore.query.scan import groups_of, iter_rows
from featurestore.storage import PartitionFile
from tests.small import context_of

BASICS = ("image_id", "filename", "status", "error", "n_descriptors", "descriptors")


def change_recipe(store: FeatureStore, old: str, new: str) -> None:
    path = store.path / "featurestore.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def drop_partition(store: FeatureStore, stage: str, chunk_id: int) -> None:
    with context_of(store).catalog.transaction() as connection:
        for table in ("partitions", "results"):
            connection.execute(f"DELETE FROM {table} WHERE stage = '{stage}' AND chunk_id = {chunk_id}")


def test_every_image_comes_in_order(finished: FeatureStore) -> None:
    selection = select_images(context_of(finished))
    rows = list(iter_rows(selection, keypoints=True))
    assert [row.image_id for row in rows] == list(range(26)) == selection.image_ids.tolist()
    assert [row.filename for row in rows] == selection.images["filename"].to_pylist()
    assert {row.status for row in rows} == {"ok", "empty", "truncated"}
    for row in rows:
        assert (row.descriptors is None) == (row.status != "ok")
        if row.descriptors is not None:
            assert row.descriptors.shape == (row.n_descriptors, 64)
            assert row.keypoints is not None
            assert len(row.keypoints) == row.n_descriptors
    assert all(row.keypoints is None for row in iter_rows(selection))


@pytest.mark.parametrize("stage", ["extract", "project", "quantize"])
def test_tables_hold_what_the_partitions_hold(finished: FeatureStore, stage: str) -> None:
    chosen = select_images(context_of(finished), stage=stage, where="photo = 'flower'")
    selection = with_columns(context_of(finished), chosen, ["photo", "rotation"])
    tables = list(iter_tables(selection, [*BASICS, "photo", "x"]))
    found = {row["image_id"]: row for table in tables for row in table.to_pylist()}
    assert list(found) == selection.image_ids.tolist()
    assert {row["photo"] for row in found.values()} == {"flower"}
    for path in finished.path.glob(f"partitions/{stage}/*/*.parquet"):
        for row in pq.read_table(path).to_pylist():
            if row["image_id"] in found:
                assert {name: found[row["image_id"]][name] for name in (*BASICS, "x")} == {
                    name: row[name] for name in (*BASICS, "x")
                }


def test_row_groups_without_chosen_images_are_not_touched(store: FeatureStore) -> None:
    selection = select_images(context_of(store), stage="extract", where="image_id IN (0, 7, 17)")
    with_groups = [p for p in selection.pieces if p.path is not None]
    assert [(p.chunk_id, p.start, p.stop) for p in with_groups] == [(0, 0, 2), (2, 2, 3)]
    groups = [list(groups_of(selection, with_groups[0], sizes)) for sizes in ([3, 3, 2], [8], [7, 1])]
    assert [[(g.index, g.rows.tolist(), g.start, g.stop, g.whole) for g in found] for found in groups] == [
        [(0, [0], 0, 1, False), (2, [1], 1, 2, False)],
        [(0, [0, 7], 0, 2, False)],
        [(0, [0], 0, 1, False), (1, [0], 1, 2, True)],
    ]
    # what is not chosen may be as damaged as it likes
    next(store.path.glob("partitions/extract/*/chunk-000001-*")).write_bytes(b"")
    assert [row.image_id for row in iter_rows(selection)] == [0, 7, 17]


def test_an_empty_selection_is_an_answer(finished: FeatureStore) -> None:
    selection = select_images(context_of(finished), where="photo = 'rose'")
    assert list(iter_rows(selection)) == [] == list(iter_tables(selection, BASICS))
    assert selection.schema(["descriptors"]).metadata[b"dim"] == b"64"


def test_where_may_ask_the_other_views(finished: FeatureStore) -> None:
    where = "image_id IN (SELECT image_id FROM failures)"
    assert [row.status for row in iter_rows(select_images(context_of(finished), where=where))] == ["truncated"]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("artist = 'Monet'", 'Referenced column "artist" not found'),
        ("artist = 'Monet'", "images has image_id, filename, subset"),
        ("image_id >", 'syntax error at or near ">"'),
        ("", "where '' can't be evaluated"),
        ("true) OR (true", "syntax error"),
        ("true; DROP TABLE images", "where 'true; DROP TABLE images' can't be evaluated"),
        ("sum(image_id) > 1", "WHERE clause cannot contain aggregates"),
        ("image_id IN (SELECT 1 FROM read_csv('/etc/passwd'))", "nothing but the store's views, and '/etc/passwd' is"),
    ],
)
def test_a_where_that_can_not_be_evaluated(finished: FeatureStore, where: str, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        select_images(context_of(finished), where=where)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"stage": "fit_pca"}, "'fit_pca', which makes a model and no descriptors; the stages are extract, project"),
        ({"stage": "sift"}, "there are no descriptors of 'sift'; the stages are extract, project, quantize"),
        ({"variant": "123"}, "quantize has no variant '123'; the variants of quantize are: "),
        ({"variant": ""}, "the variants of quantize are: "),
    ],
)
def test_what_does_not_exist_is_named(finished: FeatureStore, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(QueryError, match=re.escape(says)):
        select_images(context_of(finished), **arguments)


def test_a_column_that_does_not_exist_is_named(finished: FeatureStore) -> None:
    context = context_of(finished)
    selection = select_images(context)
    for name, says in {
        "rotatoin": "there is no column 'rotatoin'; did you mean 'rotation'?",
        "artist": "there is no column 'artist'; the columns are image_id, filename, status, error",
    }.items():
        with pytest.raises(QueryError, match=re.escape(says)):
            with_columns(context, selection, [name])


def test_missing_chunks_are_named_with_the_reason(store: FeatureStore) -> None:
    drop_partition(store, "quantize", 1)
    drop_partition(store, "quantize", 2)
    with pytest.raises(NotReady) as caught:
        select_images(context_of(store))
    assert str(caught.value) == (
        "16 of the chosen images lack quantize: never run (chunks 1-2); make what is missing with: featurestore run "
        f"{store.path}, or leave it out knowingly with allow_missing=True (--allow-missing)"
    )
    assert (
        len(select_images(context_of(store), where="image_id < 8").images) == 8
    )  # without keypoints they are no obstacle

    selection = select_images(context_of(store), allow_missing=True)
    rows = list(iter_rows(selection))
    assert [row.image_id for row in rows if row.status == "pending"] == list(range(8, 24))
    assert rows[9].error == "never run"
    assert rows[9].filename == selection.images["filename"][9].as_py()
    table = list(iter_tables(selection, ["image_id", "filename", "status", "error", "n_descriptors", "descriptors"]))[1]
    assert table.to_pylist()[1] == {
        **{"image_id": 9, "filename": rows[9].filename, "status": "pending", "error": "never run"},
        **{"n_descriptors": 0, "descriptors": None},
    }


def test_what_was_made_from_other_input_is_missing(store: FeatureStore) -> None:
    with context_of(store).catalog.transaction() as connection:
        connection.execute("UPDATE partitions SET payload = 'new' WHERE stage = 'extract' AND chunk_id = 3")
    with pytest.raises(NotReady, match=r"2 of the chosen images lack quantize: input changed \(chunk 3\)"):
        select_images(context_of(store))
    variant = select_images(context_of(store), allow_missing=True).variant
    with pytest.raises(NotReady, match="input changed"):  # an old variant is no way around it
        select_images(context_of(store), variant=variant)


def test_a_pruned_stage_is_asked_for_by_name(store: FeatureStore) -> None:
    with context_of(store).catalog.transaction() as connection:
        connection.execute("UPDATE partitions SET pruned = true WHERE stage = 'extract'")
    with pytest.raises(
        NotReady, match=rf"lack extract: pruned \(chunks 0-3\).* featurestore run {store.path} extract$"
    ):
        select_images(context_of(store), stage="extract", allow_missing=True)
    assert len(select_images(context_of(store)).images) == 26  # quantize is all there


def test_nothing_there_at_all(fresh: FeatureStore) -> None:
    make = rf"make what is missing with: featurestore run {fresh.path}$"  # to leave it out is no way then
    for allow_missing in (False, True):
        with pytest.raises(NotReady, match=rf"lack quantize: waits for fit_scale \(chunks 0-3\); {make}"):
            select_images(context_of(fresh), allow_missing=allow_missing)
    with pytest.raises(NotReady, match=r"nothing of quantize is there yet \(waits for fit_scale\); make it with"):
        select_images(context_of(fresh), where="false", allow_missing=True)


def test_an_older_variant_is_read_by_its_name(store: FeatureStore) -> None:
    before = list(iter_rows(select_images(context_of(store))))
    variant = select_images(context_of(store)).variant
    change_recipe(store, "keypoints = true", "keypoints = false")
    with pytest.raises(NotReady, match=r"lack quantize: parameters changed \(keypoints: True -> False\)"):
        select_images(context_of(store))
    selection = select_images(context_of(store), variant=variant[:6])
    assert selection.variant == variant
    for old, row in zip(before, iter_rows(selection), strict=True):
        assert np.array_equal(old.descriptors, row.descriptors)  # type: ignore[arg-type]


def test_a_partition_that_a_run_has_just_replaced(store: FeatureStore) -> None:
    selection = select_images(context_of(store))
    path = selection.pieces[0].path
    assert isinstance(path, Path)
    path.unlink()
    message = "is gone: most likely a run has just recomputed its chunk, or a prune has deleted it; do the same again"
    with pytest.raises(StoreBusy, match=message):
        list(iter_rows(selection))


def test_a_partition_of_other_images(store: FeatureStore, tmp_path: Path) -> None:
    selection = select_images(context_of(store))
    first, second = (piece.path for piece in selection.pieces[:2])
    assert first is not None
    assert second is not None
    shutil.copy(second, first)
    with pytest.raises(CorruptFile, match="does not hold the images that the catalog says; put back a copy of it"):
        list(iter_tables(selection, ["filename"]))


def test_a_damaged_row_group(store: FeatureStore) -> None:
    selection = select_images(context_of(store))
    path = selection.pieces[0].path
    assert isinstance(path, Path)
    data = bytearray(path.read_bytes())
    data[4:5000] = bytes(4996)
    path.write_bytes(data)
    with PartitionFile(path) as file, pytest.raises(CorruptFile, match=rf"{path.name} is damaged \("):
        file.table(0, ["image_id", "descriptors"])
