"""Keypoints of one image are read without those of its neighbours, and damaged pages give one clear error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from featurestore.errors import CorruptFile
from featurestore.rows import KEYPOINT, Layout, Row
from featurestore.storage import (
    FORMAT,
    PartitionFile,
    PartitionWriter,
    Places,
    blob_pages,
    list_pages,
    partition_writer,
)
from featurestore.storage.blob_pages import Page

LAYOUT = Layout(dim=4, dtype="uint8")
MANIFEST = {"format": FORMAT, "stage": "quantize", "input_payload": "0" * 16}
Sizes = Sequence[int | None]


def write(path: Path, sizes: Sizes, *, imported: bool = False) -> list[Row]:
    """Write a partition of images with so many keypoints; None is a failed image."""
    rng = np.random.default_rng(3)
    rows = []
    for i, n in enumerate(sizes):
        keypoints = np.frombuffer(rng.bytes((n or 0) * KEYPOINT.itemsize), KEYPOINT)
        codes = rng.integers(0, 256, (n or 0, LAYOUT.dim)).astype(np.uint8)
        if n is None:
            rows.append(Row(i, f"{i}.jpg", "missing"))
        else:
            rows.append(Row(i, f"{i}.jpg", "ok", None, codes, None if imported else keypoints))
    writer = PartitionWriter(path, layout=LAYOUT, manifest=MANIFEST)
    for row in rows:
        writer.write(row)
    writer.close()
    return rows


def places_of(sizes: Sizes) -> Places:
    return Places(np.array([n or 0 for n in sizes], np.int64))


def equal(found: NDArray[np.void] | None, row: Row) -> bool:
    expected = np.empty(0, KEYPOINT) if row.keypoints is None else row.keypoints
    return found is not None and found.tobytes() == expected.tobytes()


@given(sizes=st.lists(st.none() | st.sampled_from([0, 1, 2, 30, 700]), min_size=1, max_size=40))
def test_each_list_is_read_as_it_was_written(sizes: list[int | None], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("lists") / "p"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition_writer, "PAGE_BYTES", 1000)
        rows = write(path, sizes)
    with PartitionFile(path) as file:
        assert file.n_row_groups == 1
        assert all(equal(file.keypoints(0, i, places_of(sizes)), row) for i, row in enumerate(rows))


def test_a_list_may_be_on_several_pages(tmp_path: Path) -> None:
    """No version writes such pages, and Parquet allows them."""
    values = np.arange(10, dtype=np.float32)
    places = Places(np.array([3, 0, 7]))  # eleven levels, one of them of the empty list
    data, pages = b"", []
    for first, n, some in ((0, 2, values[:2]), (2, 4, values[2:5]), (6, 5, values[5:])):
        plain = b"\x01\0\0\0r\x02\0\0\0dd" + some.view(np.uint8).reshape(-1, 4).T.tobytes()
        pages.append(Page(first, n, len(data), len(plain), len(plain), None))
        data += plain
    file = pa.BufferReader(data)
    found = [list_pages.read_list(file, tuple(pages), places, row, values.dtype) for row in range(3)]
    assert [[] if one is None else one.tolist() for one in found] == [[0, 1, 2], [], [3, 4, 5, 6, 7, 8, 9]]


def test_no_more_than_the_pages_of_an_image_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [1800] * 30
    rows = write(tmp_path / "p", sizes)
    original, read = blob_pages.read_page, []

    def read_page(file: pa.NativeFile, page: Page) -> pa.Buffer:
        read.append(page.n_rows)
        return original(file, page)

    monkeypatch.setattr("featurestore.storage.list_pages.read_page", read_page)
    with PartitionFile(tmp_path / "p") as file:
        assert equal(file.keypoints(0, 7, places_of(sizes)), rows[7])
    assert len(read) <= 2 * 6
    assert max(read) <= 6 * 1800


def test_what_is_stored_in_another_way_is_left_to_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [3, None, 5]
    write(tmp_path / "imported", sizes, imported=True)
    options = partition_writer._parquet_options
    monkeypatch.setattr(
        partition_writer, "_parquet_options", lambda layout: {**options(layout), "column_encoding": None}
    )
    write(tmp_path / "early", sizes)
    for name in ("imported", "early"):
        with PartitionFile(tmp_path / name) as file:
            assert file.keypoints(0, 0, places_of(sizes)) is None


def test_other_numbers_than_those_of_the_pages_are_left_to_arrow(tmp_path: Path) -> None:
    write(tmp_path / "p", [3, 4, 5])
    with PartitionFile(tmp_path / "p") as file:
        assert file.keypoints(0, 0, places_of([3, 4, 6])) is None
        assert file.keypoints(0, 0, places_of([12, None])) is None
        assert file.keypoints(0, 1, places_of([3, 4, 5])) is not None


def test_damage_is_one_clear_error(tmp_path: Path) -> None:
    sizes = [600, 600, 600]
    rows = write(tmp_path / "p", sizes)
    data = (tmp_path / "p").read_bytes()
    with PartitionFile(tmp_path / "p") as file:
        start = file._file.metadata.row_group(0).column(6).data_page_offset
    outcomes = set()
    for at in (*range(start, start + 64), *range(start + 64, start + 3_000, 97)):
        (tmp_path / "q").write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        with PartitionFile(tmp_path / "q") as damaged:
            try:
                found = damaged.keypoints(0, 0, places_of(sizes))
                outcomes.add("arrow" if found is None else "same" if equal(found, rows[0]) else "other")
            except CorruptFile:
                outcomes.add("refused")
    assert "refused" in outcomes
