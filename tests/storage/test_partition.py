"""A partition is read as it was written, the same rows are the same bytes, and damage is one clear error."""

from __future__ import annotations

import gc
import json
import tracemalloc
import weakref
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from featurestore.arrow_arrays import validity_and_offsets
from featurestore.errors import CorruptFile, FormatError, NotEnoughSpace
from featurestore.rows import KEYPOINT, KEYPOINT_COLUMNS, Layout, Row
from featurestore.storage import FORMAT, PartitionFile, PartitionWriter, RowDigest, partition_writer
from featurestore.system import file_digest
from tests.small import Unlocked

PLAIN = Layout(dim=4, dtype="uint8")
RICH = Layout(
    dim=2, dtype="float32", extra=(("low", pa.list_(pa.float32())), ("width", pa.int32()), ("hash", pa.string()))
)
MANIFEST = {"format": FORMAT, "stage": "extract", "input_payload": "0" * 16}


def keypoints(n: int, *, seed: int = 0) -> NDArray[Any]:
    values = np.random.default_rng(seed).normal(size=(n, 6)) * 1000
    return np.array([tuple(row) for row in values], KEYPOINT)


def rows_of(layout: Layout, n: int = 5) -> list[Row]:
    """``n`` images with descriptors, and one of every kind that has none."""
    rng = np.random.default_rng(7)
    found = []
    for i in range(n):
        values = rng.integers(0, 256, (i + 1, layout.dim)).astype(layout.dtype)
        extra = {"low": values[0].astype(np.float32), "width": 640 + i, "hash": "é" * i}
        own = {name: extra[name] for name, _ in layout.extra}
        found.append(Row(i, f"ordner/b{i}.jpg", "ok", None, values, keypoints(i + 1, seed=i), own))
    found.append(Row(n, "blank.jpg", "empty", "no keypoints found"))
    found.append(Row(n + 1, "gone 'n\" 模様.jpg", "missing", "it is not there"))
    found.append(Row(n + 2, "kept.jpg", "ok", "truncated, kept: 3 rows", *_one(layout)))
    return found


def _one(layout: Layout) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.full((1, layout.dim), 9, layout.dtype), keypoints(1)


def write(path: Path, rows: Iterable[Row], layout: Layout, manifest: dict[str, Any] | None = None) -> PartitionWriter:
    writer = PartitionWriter(path, layout=layout, manifest={**MANIFEST, **(manifest or {})})
    for row in rows:
        writer.write(row)
    writer.close()
    return writer


def assert_same(one: Row, other: Row, layout: Layout) -> None:
    facts = ("image_id", "filename", "status", "error", "n_descriptors")
    assert [getattr(one, name) for name in facts] == [getattr(other, name) for name in facts]
    for name in ("descriptors", "keypoints"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert np.array_equal(a, b)
    for name, _ in layout.extra:
        assert np.array_equal(np.asarray(one.extra.get(name)), np.asarray(other.extra.get(name))), name


@pytest.mark.parametrize("layout", [PLAIN, RICH], ids=["plain", "rich"])
def test_rows_are_read_as_they_were_written(tmp_path: Path, layout: Layout) -> None:
    rows = rows_of(layout)
    write(tmp_path / "p", rows, layout)
    with PartitionFile(tmp_path / "p") as file:
        assert file.layout == layout
        for one, other in zip(rows, file.rows(), strict=True):
            assert_same(one, other, layout)


def test_the_file_is_what_the_contract_says(tmp_path: Path) -> None:
    """Without this module's help: by Arrow and NumPy alone, as anybody may read it."""
    rows = rows_of(PLAIN)
    write(tmp_path / "p", rows, PLAIN, {"chunk_id": 3})
    table = pq.read_table(tmp_path / "p")
    assert table.column_names == [
        *("image_id", "filename", "status", "error", "n_descriptors", "descriptors"),
        *KEYPOINT_COLUMNS,
    ]
    metadata = pq.read_metadata(tmp_path / "p").metadata
    assert (metadata[b"dim"], metadata[b"dtype"]) == (b"4", b"uint8")
    assert json.loads(metadata[b"featurestore"])["chunk_id"] == 3
    blob = table["descriptors"][2].as_py()
    assert np.array_equal(np.frombuffer(blob, np.uint8).reshape(-1, 4), rows[2].descriptors)  # type: ignore[arg-type]
    assert table["x"][2].as_py() == [float(x) for x in rows[2].keypoints["x"]]  # type: ignore[index]
    assert table["descriptors"][5].as_py() is table["octave"][5].as_py() is None


def test_matrices_are_not_copied(tmp_path: Path) -> None:
    rows = [Row(i, "a", "ok", None, np.full((100_000, 4), i, np.uint8), None) for i in range(4)]
    write(tmp_path / "p", rows, Layout(dim=4, dtype="uint8", keypoints=False))
    with PartitionFile(tmp_path / "p") as file:
        tracemalloc.start()
        read = list(file.rows())
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    matrices = [row.descriptors for row in read if row.descriptors is not None]
    assert [int(matrix[0, 0]) for matrix in matrices] == [0, 1, 2, 3]
    assert held < 1_700_000  # bytes: one array of all, and no copy of each
    assert not any(matrix.flags.owndata for matrix in matrices)
    starts = [matrix.ctypes.data for matrix in matrices]
    assert starts == [starts[0] + i * 400_000 for i in range(4)], "parts of the column's one buffer"


@pytest.mark.parametrize("layout", [PLAIN, RICH], ids=["plain", "rich"])
def test_descriptors_alone_are_not_compressed_and_the_payload_does_not_tell(tmp_path: Path, layout: Layout) -> None:
    rows, plain = rows_of(layout), replace(layout, compression="none")
    payloads = {write(tmp_path / kind.compression, rows, kind).payload for kind in (layout, plain)}
    assert len(payloads) == 1
    assert plain == layout
    for kind, expected in (("zstd", "ZSTD"), ("none", "UNCOMPRESSED")):
        group = pq.read_metadata(tmp_path / kind).row_group(0)
        found = {column["path_in_schema"]: column["compression"] for column in group.to_dict()["columns"]}
        assert found.pop("descriptors") == expected
        assert set(found.values()) == {"ZSTD"}
        with PartitionFile(tmp_path / kind) as file:
            for i, (one, other) in enumerate(zip(rows, file.rows(), strict=True)):
                assert_same(one, other, layout)
                single = file.descriptors(0, i)
                assert (single is None) == (one.descriptors is None)
                assert single is None or np.array_equal(single, one.descriptors)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", [PLAIN, RICH], ids=["plain", "rich"])
def test_rows_of_a_slice_are_those_of_the_whole(tmp_path: Path, layout: Layout) -> None:
    rows = rows_of(layout)
    write(tmp_path / "p", rows, layout)
    with PartitionFile(tmp_path / "p") as file:
        table = file.table(0, layout.schema().names)
        for start in range(len(rows)):
            for one, other in zip(rows[start : start + 3], file.rows_of(table.slice(start, 3)), strict=True):
                assert_same(one, other, layout)
        twice = pa.concat_tables([table.slice(2), table.slice(0, 4)])
        for one, other in zip(rows[2:] + rows[:4], file.rows_of(twice), strict=True):
            assert_same(one, other, layout)


@pytest.mark.parametrize("name", KEYPOINT_COLUMNS)
def test_keypoint_columns_that_do_not_fit_together_are_damage(tmp_path: Path, name: str) -> None:
    write(tmp_path / "p", rows_of(PLAIN), PLAIN)
    with PartitionFile(tmp_path / "p") as file:
        table = file.table(0, PLAIN.schema().names)
        at, lists = table.column_names.index(name), table[name].to_pylist()
        lists[1], lists[2] = lists[2], lists[1]
        other = table.set_column(at, table.schema.field(name), pa.array(lists, table.schema.field(name).type))
        with pytest.raises(CorruptFile, match=r"^p is damaged \(.* has another number of keypoints than x\)$"):
            list(file.rows_of(other))


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write(tmp_path / name, rows_of(RICH), RICH)
    assert file_digest(tmp_path / "one") == file_digest(tmp_path / "other")


def digest(rows: list[Row], input_payload: str = "0" * 16) -> str:
    found = RowDigest(input_payload)
    for row in rows:
        found.update(row)
    return found.hexdigest()


@pytest.mark.parametrize(
    "layout", [PLAIN, RICH, Layout(dim=4, dtype="uint8", keypoints=False)], ids=["plain", "rich", "no keypoints"]
)
def test_the_payload_is_the_digest_of_the_rows_in_the_file(tmp_path: Path, layout: Layout) -> None:
    writer = write(tmp_path / "p", rows_of(layout), layout)
    with PartitionFile(tmp_path / "p") as file:
        assert file.manifest == {**MANIFEST, "payload": writer.payload}
        assert digest(list(file.rows())) == writer.payload


def test_every_value_of_a_row_counts() -> None:
    base = Row(1, "a", "ok", None, np.zeros((2, 4), np.uint8), keypoints(2), {"n": 1, "low": np.zeros(2, "f4")})
    others = [
        Row(2, "a", "ok", None, base.descriptors, base.keypoints, base.extra),
        Row(1, "b", "ok", None, base.descriptors, base.keypoints, base.extra),
        Row(1, "a", "empty", None, base.descriptors, base.keypoints, base.extra),
        Row(1, "a", "ok", "kept", base.descriptors, base.keypoints, base.extra),
        Row(1, "a", "ok", None, np.eye(2, 4, dtype=np.uint8), base.keypoints, base.extra),
        Row(1, "a", "ok", None, base.descriptors, keypoints(2, seed=1), base.extra),
        Row(1, "a", "ok", None, base.descriptors, None, base.extra),
        Row(1, "a", "ok", None, base.descriptors, base.keypoints, {**base.extra, "n": 2}),
        Row(1, "a", "ok", None, base.descriptors, base.keypoints, {**base.extra, "low": np.ones(2, "f4")}),
    ]
    assert len({digest([base]), *(digest([row]) for row in others)}) == 1 + len(others)
    assert digest([base], "1" * 16) != digest([base])


def test_row_groups_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_writer, "ROW_GROUP_BYTES", 4000)
    monkeypatch.setattr(partition_writer, "ROW_GROUP_ROWS", 3)
    sizes = [1, 1, 1, 1, 999, 1, 2000, 1]  # descriptors of 4 bytes
    rows = [Row(i, "a", "ok", None, np.zeros((n, 4), np.uint8), keypoints(n)) for i, n in enumerate(sizes)]
    write(tmp_path / "p", rows, PLAIN)
    with PartitionFile(tmp_path / "p") as file:
        assert file.row_group_sizes() == [3, 2, 2, 1]
        assert [row.image_id for row in file.rows([1])] == [3, 4]
        assert [row.image_id for row in file.rows()] == list(range(8))


def test_the_writer_reports_the_columns_of_the_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_writer, "ROW_GROUP_ROWS", 3)
    writer = write(tmp_path / "p", rows_of(RICH), RICH)
    with PartitionFile(tmp_path / "p") as file:
        assert file.n_row_groups > 1
        assert writer.facts == file.columns(RICH.facts())
    assert writer.facts.column_names == ["image_id", "status", "error", "n_descriptors", "width"]


def test_columns_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path / "p", rows_of(RICH), RICH)
    with PartitionFile(tmp_path / "p") as file:
        rows = list(file.rows(without=["descriptors", *KEYPOINT_COLUMNS]))
    assert [row.extra["width"] for row in rows][:3] == [640, 641, 642]
    assert all(row.descriptors is None and row.keypoints is None for row in rows)


def test_a_partition_without_rows(tmp_path: Path) -> None:
    write(tmp_path / "p", [], PLAIN)
    with PartitionFile(tmp_path / "p") as file:
        assert list(file.rows()) == []
        assert len(file.columns(["image_id"])) == 0


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "p.parquet", [], PLAIN, {"format": 4})
    with pytest.raises(
        FormatError, match=r"^p.parquet is of partition format 4, and this version knows 3; use a newer featurestore$"
    ):
        PartitionFile(tmp_path / "p.parquet")


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -200])
def test_a_file_that_ends_early_is_damaged(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "p.parquet"
    write(path, rows_of(PLAIN), PLAIN)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFile, match=r"^p.parquet can't be read as a partition \(.+\)$") as caught:
        PartitionFile(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=r"^p.parquet can't be read as a partition \(.*No such file"):
        PartitionFile(tmp_path / "p.parquet")


def test_another_programs_parquet_is_no_partition(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "p.parquet")
    with pytest.raises(CorruptFile, match=r"^p.parquet can't be read as a partition \(it has no manifest\)$"):
        PartitionFile(tmp_path / "p.parquet")


def test_damaged_rows_are_found_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write(path, rows_of(PLAIN, 40), PLAIN)
    data = bytearray(path.read_bytes())
    data[4:600] = bytes(596)  # the first pages; the footer is whole
    path.write_bytes(data)
    with PartitionFile(path) as file, pytest.raises(CorruptFile, match=r"^p.parquet is damaged \(.+\)$"):
        list(file.rows())


def test_a_blob_that_is_no_matrix_is_refused() -> None:
    assert PLAIN.matrix(b"").shape == (0, 4)
    with pytest.raises(CorruptFile, match=r"^a BLOB of 5 values is not a whole number of 4-value descriptors"):
        PLAIN.matrix(b"12345")


@pytest.mark.usefixtures("file_size_limit")
def test_a_partition_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50_000, 4), dtype=np.uint8)
    rows = [Row(0, "a", "ok", None, noise, keypoints(50_000))]
    with pytest.raises(NotEnoughSpace), Unlocked(tmp_path).publishing("partitions/p.parquet") as temporary:
        write(temporary, rows, PLAIN)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("file_size_limit")
def test_what_could_not_be_written_in_the_middle_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_writer, "ROW_GROUP_ROWS", 1)
    noise = np.random.default_rng(0).integers(0, 256, (50_000, 4), dtype=np.uint8)
    rows = iter([Row(i, "a", "ok", None, noise, keypoints(50_000)) for i in range(9)])
    with pytest.raises(OSError, match="File too large"):
        write(tmp_path / "p", rows, PLAIN)
    assert len(list(rows)) == 7  # told when the row group after the one that did not fit was full


def test_more_than_a_row_group_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="2147483648 values in one row group"):
        validity_and_offsets([2**30, None, 2**30])


def test_what_was_written_is_let_go(tmp_path: Path) -> None:
    rows = rows_of(PLAIN)
    held = [weakref.ref(row.descriptors) for row in rows if row.descriptors is not None]
    writer = PartitionWriter(tmp_path / "p.parquet", layout=PLAIN, manifest=MANIFEST)
    while rows:
        writer.write(rows.pop())
    writer.close()
    gc.collect()
    assert all(one() is None for one in held), "the writer's memory grows with everything it has written"


def test_descriptors_are_not_copied_before_arrow_writes_them() -> None:
    rows = rows_of(PLAIN)
    blobs = partition_writer.to_table(rows, PLAIN)["descriptors"]
    assert blobs.num_chunks == len(rows)
    for row, blob in zip(rows, blobs.chunks, strict=True):
        assert blob.is_valid().to_pylist() == [row.descriptors is not None]
        if row.descriptors is not None:
            assert blob.buffers()[2].address == row.descriptors.ctypes.data


def test_a_second_attempt_and_the_end_of_the_first_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    first = PartitionWriter(path, layout=PLAIN, manifest=MANIFEST)
    second = write(path, rows_of(PLAIN), PLAIN)
    first.write(rows_of(PLAIN)[0])
    first.close()
    assert file_digest(path) == second.checksum != first.checksum
