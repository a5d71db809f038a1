"""Partitions whose values are of 4 bits: two to a byte in the file, a byte each in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featurestore.errors import CorruptFile
from featurestore.rows import Compression, Layout, Row, pack, unpack, unpack_blobs
from featurestore.storage import PartitionFile, PartitionWriter

ODD = Layout(dim=5, dtype="uint8", keypoints=False, packed=True)
COUNTS = [3, None, 18_000, 700, 1, 20_000]  # descriptors; None: a failed image. Two have more than a page holds


def rows_of(layout: Layout) -> list[Row]:
    rng = np.random.default_rng(0)
    codes = [None if n is None else rng.integers(0, 16, (n, layout.dim)).astype(np.uint8) for n in COUNTS]
    return [Row(i, f"{i}.jpg", "missing" if one is None else "ok", None, one) for i, one in enumerate(codes)]


def write(path: Path, rows: list[Row], layout: Layout) -> PartitionWriter:
    writer = PartitionWriter(path, layout=layout, manifest={"format": 1, "input_payload": "0" * 16})
    for row in rows:
        writer.write(row)
    writer.close()
    return writer


def same(found: Any, row: Row) -> bool:
    return found is None if row.descriptors is None else np.array_equal(found, row.descriptors)


@given(
    codes=st.integers(1, 9).flatmap(
        lambda dim: hnp.arrays(np.uint8, st.tuples(st.integers(0, 6), st.just(dim)), elements=st.integers(0, 15))
    )
)
def test_the_first_of_two_codes_is_in_the_low_bits(codes: Any) -> None:
    n, dim = codes.shape
    packed = pack(codes)
    assert packed.shape == (n, (dim + 1) // 2)
    for i, j in np.ndindex(n, dim):
        assert packed[i, j // 2] >> (4 * (j % 2)) & 15 == codes[i, j]
    assert np.array_equal(unpack(packed, dim), codes)


def test_a_code_that_needs_more_bits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a code of 16 does not fit into 4 bits$"):
        pack(np.array([[3, 16]], np.uint8))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_slice_of_blobs_is_unpacked(kind: pa.DataType) -> None:
    codes = [np.full((n, 3), n, np.uint8) for n in range(5)]
    blobs = pa.array([None, *(pack(one).tobytes() for one in codes), None], kind)
    found = unpack_blobs(pa.chunked_array([blobs.slice(2, 2), blobs.slice(4)]), 3)
    assert found.to_pylist() == [one.tobytes() for one in codes[1:]] + [None]
    assert unpack_blobs(blobs.slice(0, 0), 3).to_pylist() == []


@pytest.mark.parametrize("dim", [4, 5])
@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_every_way_of_reading_gives_the_rows_that_were_written(
    tmp_path: Path, dim: int, compression: Compression
) -> None:
    layout = replace(ODD, dim=dim, compression=compression)
    rows = rows_of(layout)
    write(tmp_path / "p", rows, layout)
    with PartitionFile(tmp_path / "p") as file:
        assert (file.layout, file.manifest["format"]) == (layout, 3)
        assert all(same(found.descriptors, row) for found, row in zip(file.rows(), rows, strict=True))
        blobs = file.columns(["descriptors"])["descriptors"]
        assert all(same(one, row) for one, row in zip(layout.matrices(blobs), rows, strict=True))
        assert all(same(file.descriptors(0, i), row) for i, row in enumerate(rows))
        targets = [np.empty((n or 0) * dim, np.uint8) for n in COUNTS]
        assert file.copy_descriptors(0, range(len(rows)), targets)
    assert [target.tobytes() for target in targets] == [
        b"" if row.descriptors is None else row.descriptors.tobytes() for row in rows
    ]


def test_the_file_is_what_the_contract_says(tmp_path: Path) -> None:
    rows = rows_of(ODD)
    layout = replace(ODD, compression="none")
    written = write(tmp_path / "p", rows, layout)
    metadata = pq.read_metadata(tmp_path / "p").metadata
    assert (metadata[b"dim"], metadata[b"dtype"]) == (b"5", b"uint4")
    for blob, row in zip(pq.read_table(tmp_path / "p")["descriptors"].to_pylist(), rows, strict=True):
        if row.descriptors is None:
            assert blob is None
            continue
        pairs = np.frombuffer(blob, np.uint8).reshape(row.n_descriptors, 3)
        assert np.array_equal(np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(-1, 6)[:, :5], row.descriptors)
    # The payload is that of the codes, whatever they take in the file.
    assert write(tmp_path / "plain", rows, replace(layout, packed=False)).payload == written.payload
    assert (tmp_path / "p").stat().st_size < 0.61 * (tmp_path / "plain").stat().st_size


@pytest.mark.parametrize(("blob", "dim"), [(b"\x11\x11\x11\x11", 5), (b"\x11\x11\x11", 4), (b"\x11\x11\x21", 5)])
def test_a_blob_that_is_not_whole_descriptors_is_damage(tmp_path: Path, blob: bytes, dim: int) -> None:
    layout = replace(ODD, dim=dim)
    write(tmp_path / "p", [Row(0, "a", "ok", None, np.ones((1, dim), np.uint8))], layout)
    table = pq.read_table(tmp_path / "p")
    at = table.column_names.index("descriptors")
    changed = table.set_column(at, table.field(at), pa.array([blob], pa.binary()))
    metadata = pq.read_metadata(tmp_path / "p").metadata
    pq.write_table(changed.replace_schema_metadata(metadata), tmp_path / "p")
    with PartitionFile(tmp_path / "p") as file:
        with pytest.raises(CorruptFile, match=r"^p is damaged \("):
            list(file.rows())
        with pytest.raises(CorruptFile, match=r"^p is damaged \("):
            file.descriptors(0, 0)
