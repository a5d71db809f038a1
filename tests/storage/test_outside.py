"""The EXIF orientation is a column of extract's partitions, and no part of their payload."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from featurestore import FeatureStore
from featurestore.rows import EXIF_ORIENTATION
from featurestore.storage import PartitionFile
from tests.broken_images import saved
from tests.small import copy, make_old_partition, make_old_partitions, make_small, rows_of, small_store


def partitions(store: FeatureStore) -> list[Path]:
    return sorted((store.path / "partitions" / "extract").rglob("*.parquet"))


@pytest.fixture
def mixed(thirteen: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A finished store whose second partition of extract was made by an earlier version."""
    store = copy(thirteen, tmp_path / "store")
    make_old_partition(partitions(store)[1])
    store.rebuild()
    return store


def test_old_partitions_keep_their_payload_and_have_nothing_to_do(mixed: FeatureStore) -> None:
    assert mixed.verify(deep=True).problems == []
    assert mixed.run(workers=0) == []


def test_unknown_is_null_in_sql_and_when_loaded(mixed: FeatureStore) -> None:
    counted = f"SELECT {EXIF_ORIENTATION}, count(*) FROM extracted GROUP BY ALL ORDER BY ALL"
    assert mixed.sql(counted).fetchall() == [(1, 8), (None, 5)]
    table = mixed.select(stage="extract").load(["filename", EXIF_ORIENTATION])
    assert table[EXIF_ORIENTATION].to_pylist() == [1] * 5 + [None] * 5 + [1] * 3
    assert [row.extra.get(EXIF_ORIENTATION) for row in rows_of(mixed, "extract", chunk=1)] == [None] * 5
    assert mixed.sql("FROM extracted").df().shape[0] == 13, "columns that not all partitions have do not end a query"
    assert EXIF_ORIENTATION in [name for name, *_ in mixed.sql("DESCRIBE extracted").fetchall()]


def test_only_old_partitions(thirteen: FeatureStore, tmp_path: Path) -> None:
    store = copy(thirteen, tmp_path / "store")
    make_old_partitions(store)
    assert store.sql(f"SELECT count(*), count({EXIF_ORIENTATION}) FROM extracted").fetchall() == [(13, 0)]


def test_a_retry_leaves_the_rows_that_are_kept_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    make_small(folder, n=3)
    store = small_store(tmp_path / "store", folder)
    store.run("extract", workers=0)
    make_old_partition(partitions(store)[0])
    store.rebuild()
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(folder / "001.png") as image:
        (folder / "001.png").write_bytes(saved("PNG", image, exif=turned))
    store.run("extract", check_images=True, workers=0)
    rows = rows_of(store, "extract")
    assert [row.extra[EXIF_ORIENTATION] for row in rows] == [None, 6, None]
    assert (rows[1].extra["width"], rows[1].extra["height"]) == (rows[0].extra["height"], rows[0].extra["width"])
    assert store.verify(deep=True).problems == []


def test_a_pruned_partition_keeps_it(mixed: FeatureStore) -> None:
    mixed.prune(keep="quantize")
    assert mixed.verify(deep=True).problems == []


def test_the_format_says_so(mixed: FeatureStore) -> None:
    formats = []
    for path in partitions(mixed):
        with PartitionFile(path) as file:
            formats.append(file.manifest["format"])
    assert formats == [2, 1, 2]
