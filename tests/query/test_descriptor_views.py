"""Views with one row per descriptor read no column that a query does not use."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import QueryError

DESCRIPTORS = "SELECT sum(descriptor[1]) FROM {view}"


def damage(path: Path, column: str) -> None:
    """Overwrite all values of a column."""
    data = bytearray(path.read_bytes())
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        for i in range(metadata.num_columns):
            found = metadata.row_group(group).column(i)
            if found.path_in_schema.split(".")[0] == column:
                first = found.dictionary_page_offset or found.data_page_offset
                data[first : first + found.total_compressed_size] = b"\xff" * found.total_compressed_size
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("stage", "query"),
    [
        ("extract", "SELECT count(*) FROM {view}"),
        ("extract", "SELECT image_id, max(position), max(x) FROM {view} GROUP BY image_id ORDER BY image_id"),
        ("extract", "SELECT count(*) FILTER (WHERE size > 4) FROM {view} WHERE filename LIKE '%e%'"),
        ("quantize", "SELECT count(*) FROM {view}"),
    ],
)
def test_a_query_without_descriptors_reads_none(store: FeatureStore, stage: str, query: str) -> None:
    view = {"extract": "extracted_descriptors", "quantize": "quantized_descriptors"}[stage]
    query = query.format(view=view)
    expected = store.sql(query).fetchall()
    for path in (store.path / "partitions" / stage).rglob("chunk-*.parquet"):
        damage(path, "descriptors")
    assert store.sql(query).fetchall() == expected
    with pytest.raises(QueryError):  # and the damage is noticed where it matters
        store.sql(DESCRIPTORS.format(view=view))


def test_a_query_without_keypoints_reads_none(store: FeatureStore) -> None:
    query = DESCRIPTORS.format(view="extracted_descriptors")
    expected = store.sql(query).fetchall()
    for path in (store.path / "partitions" / "extract").rglob("chunk-*.parquet"):
        damage(path, "x")
    assert store.sql(query).fetchall() == expected
    with pytest.raises(QueryError):
        store.sql("SELECT max(x) FROM extracted_descriptors")
