"""One image is read without its neighbours, and damaged pages give one clear error."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import CorruptFile
from featurestore.rows import Compression, Layout, Row
from featurestore.storage import FORMAT, PartitionFile, PartitionWriter, partition_writer
from featurestore.storage.blob_pages import Page, find_pages, read_blob

CODES = Layout(dim=64, dtype="uint8", keypoints=False)
MANIFEST = {"format": FORMAT, "stage": "quantize", "input_payload": "0" * 16}


def write(path: Path, sizes: Sequence[int | None], layout: Layout = CODES) -> list[Row]:
    """Write a partition of images with so many descriptors; None is a failed image."""
    rng = np.random.default_rng(3)
    rows = []
    for i, n in enumerate(sizes):
        codes = None if n is None else rng.integers(0, 256, (n, CODES.dim)).astype(np.uint8)
        rows.append(Row(i, f"{i}.jpg", "missing" if n is None else "ok", None, codes))
    writer = PartitionWriter(path, layout=layout, manifest=MANIFEST)
    for row in rows:
        writer.write(row)
    writer.close()
    return rows


def one_by_one(file: PartitionFile) -> list[np.ndarray | None]:
    return [file.descriptors(group, i) for group, n in enumerate(file.row_group_sizes()) for i in range(n)]


def same(found: Sequence[np.ndarray | None], rows: Sequence[Row]) -> bool:
    pairs = zip(found, (row.descriptors for row in rows), strict=True)
    return all(a is b is None or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs)


def test_each_image_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_writer, "ROW_GROUP_BYTES", 1 << 20)
    sizes = [1800, None, 0, 3, 1, None, 1800, 700, None, None, *([1800] * 20), 2, None]
    rows = write(tmp_path / "p", sizes)
    with PartitionFile(tmp_path / "p") as file:
        assert file.n_row_groups > 1
        assert same(one_by_one(file), rows)


def test_no_more_than_an_image_is_read(tmp_path: Path) -> None:
    write(tmp_path / "p", [1800] * 30)
    with pq.ParquetFile(tmp_path / "p") as file:
        column = file.metadata.row_group(0).column(5)
        pages = find_pages(pa.OSFile(str(tmp_path / "p")), column)
    assert column.path_in_schema == "descriptors"
    assert [page.n_rows for page in pages] == [1] * 30
    assert max(page.n_bytes for page in pages) < 1.05 * 1800 * 64


def test_files_with_a_page_a_row_group_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Early versions wrote such files."""
    options = partition_writer._parquet_options
    old = {"data_page_size": 4 << 20, "write_batch_size": 1024}
    monkeypatch.setattr(partition_writer, "_parquet_options", lambda layout: {**options(layout), **old})
    rows = write(tmp_path / "p", [1800, None, 3, 1800])
    with pq.ParquetFile(tmp_path / "p") as file:
        assert find_pages(pa.OSFile(str(tmp_path / "p")), file.metadata.row_group(0).column(5)) == ()
    with PartitionFile(tmp_path / "p") as file:
        assert same(one_by_one(file), rows)


@given(
    values=st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=300),
    batch=st.sampled_from([1, 3, 8, 64]),
    compression=st.sampled_from(["zstd", "none"]),
)
def test_pages_of_many_values_are_read_as_arrow_reads_them(
    values: list[bytes | None], batch: int, compression: str
) -> None:
    data = io.BytesIO()
    options = {"use_dictionary": False, "write_statistics": False, "data_page_size": 100, "write_batch_size": batch}
    pq.write_table(pa.table({"a": pa.array(values, pa.binary())}), data, compression=compression, **options)
    file = pa.BufferReader(data.getvalue())
    pages = find_pages(file, pq.ParquetFile(data).metadata.row_group(0).column(0))

    def value(page: Page, row: int) -> bytes | None:
        blob = read_blob(file, page, row)
        return None if blob is None else blob.to_pybytes()

    if pages:
        assert [value(page, page.first + i) for page in pages for i in range(page.n_rows)] == values
    else:
        assert len(values) <= batch or sum(map(len, filter(None, values))) < 200


def test_damage_is_one_clear_error(tmp_path: Path) -> None:
    """Every byte of two pages and their headers, one after the other."""
    rows = write(tmp_path / "p", [600, 600, 600])
    data = (tmp_path / "p").read_bytes()
    with pq.ParquetFile(tmp_path / "p") as file:
        start = file.metadata.row_group(0).column(5).data_page_offset
    outcomes = set()
    for at in (*range(start, start + 64), *range(start + 64, start + 40_000, 997)):
        (tmp_path / "q").write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        with PartitionFile(tmp_path / "q") as damaged:
            try:
                outcomes.add("same" if same([damaged.descriptors(0, 0)], rows[:1]) else "other")
            except CorruptFile:
                outcomes.add("refused")
    assert "refused" in outcomes


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_descriptors_are_copied_straight_to_their_places(tmp_path: Path, compression: Compression) -> None:
    rows = write(tmp_path / "p", [1800, None, 700, 0, 3, 30, 1800], replace(CODES, compression=compression))
    expected = [b"" if row.descriptors is None else row.descriptors.tobytes() for row in rows]
    for chosen in (range(7), range(1, 7), [0, 2, 5]):  # all pages in order, and some
        targets = [np.zeros(rows[i].n_descriptors * CODES.dim, np.uint8) for i in chosen]
        with PartitionFile(tmp_path / "p") as file:
            assert file.copy_descriptors(0, list(chosen), targets)
        assert [target.tobytes() for target in targets] == [expected[i] for i in chosen]


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_pages_that_are_copied_in_order_are_checked(tmp_path: Path, compression: Compression) -> None:
    """Every byte of the header of the second of three pages, and what is before its BLOB."""
    rows = write(tmp_path / "p", [600, 600, 600], replace(CODES, compression=compression))
    data = (tmp_path / "p").read_bytes()
    with PartitionFile(tmp_path / "p") as file:
        page = file._pages.find(0, 1)
        assert page is not None
    expected, outcomes = rows[1].descriptors, set()
    assert expected is not None
    for at in range(page.offset - 30, page.offset + 10):
        (tmp_path / "q").write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        targets = [np.zeros(600 * CODES.dim, np.uint8) for _ in rows]
        with PartitionFile(tmp_path / "q") as damaged:
            try:
                found = damaged.copy_descriptors(0, range(3), targets)
            except CorruptFile:
                outcomes.add("refused")
                continue
        if found and at < page.offset:
            assert targets[1].tobytes() == expected.tobytes()
        outcomes.add("read" if found else "left to Arrow")
    assert {"refused", "left to Arrow"} <= outcomes


@pytest.mark.parametrize("compression", ["zstd", "none"])
@pytest.mark.parametrize("size", [64, 1800 * 64 - 64, 1800 * 64 + 64])
def test_descriptors_of_another_size_are_damage(tmp_path: Path, compression: Compression, size: int) -> None:
    write(tmp_path / "p", [1800, 1800], replace(CODES, compression=compression))
    targets = [np.empty(size, np.uint8), np.empty(1800 * CODES.dim, np.uint8)]
    for rows in ([0], [0, 1]):
        with PartitionFile(tmp_path / "p") as file, pytest.raises(CorruptFile, match="p is damaged"):
            file.copy_descriptors(0, rows, targets[: len(rows)])


def test_a_file_that_shrinks_under_a_reader_is_damage(tmp_path: Path) -> None:
    write(tmp_path / "p", [1800] * 4, replace(CODES, compression="none"))
    target = np.empty(1800 * CODES.dim, np.uint8)
    with PartitionFile(tmp_path / "p") as file:
        assert file.copy_descriptors(0, [3], [target])
        os.truncate(tmp_path / "p", 200_000)
        for rows in ([3], [0, 1, 2, 3]):
            with pytest.raises(CorruptFile, match="the file ends in the middle of a page"):
                file.copy_descriptors(0, rows, [target for _ in rows])


def test_rows_that_share_a_page_are_not_copied_singly(tmp_path: Path) -> None:
    write(tmp_path / "p", [3, 3, 3])
    with PartitionFile(tmp_path / "p") as file:
        assert not file.copy_descriptors(0, [0], [np.empty(3 * CODES.dim, np.uint8)])


@pytest.mark.parametrize("compression", ["zstd", "none"])
@pytest.mark.parametrize(("empty", "straight"), [(None, True), (0, False)])
def test_rows_have_what_arrow_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: Compression, empty: int | None, straight: bool
) -> None:
    """An image that is ok and has no descriptors is not told from NULL by its number: Arrow reads its row group."""
    write(tmp_path / "p", [1800, None, 700, empty, 3, 30, 1800], replace(CODES, compression=compression))
    with PartitionFile(tmp_path / "p") as file:
        assert bool(file._straight(0, CODES.schema().names)) == straight
        found = list(file.rows())
        monkeypatch.setattr(PartitionFile, "_straight", lambda *_: [])
        by_arrow = list(file.rows())
    assert same([row.descriptors for row in found], by_arrow)
    assert [row.status for row in found] == [row.status for row in by_arrow]
