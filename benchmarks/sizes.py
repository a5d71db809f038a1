"""Bytes on disk: the columns of descriptors against the notebook's files, and the keypoints apart."""

from __future__ import annotations

from pathlib import Path

from pyarrow import parquet

from benchmarks import data
from benchmarks.after import npz_chunks
from benchmarks.load import final_npz
from benchmarks.measure import Bench, Finding, at_most
from featurestore.rows import KEYPOINT_COLUMNS


def run(bench: Bench) -> list[Finding]:
    """Compare extract with the chunks of npz, and quantize with the final npz."""
    n = 6 if bench.quick else 192
    store = data.finished(bench.scratch, n)
    chunks, _ = npz_chunks(bench.scratch, data.extracted(bench.scratch, n))
    extracted, quantized = (column_bytes(data.partitions(store, stage)) for stage in ("extract", "quantize"))
    final = final_npz(bench.scratch, store)
    raw = sum(path.stat().st_size for path in chunks)
    return [
        at_most(f"descriptors of extract, of {raw / 1e6:.0f} MB of npz", [extracted["descriptors"] / raw], 0.7),
        at_most(
            f"descriptors of quantize, of {final.stat().st_size / 1e6:.0f} MB of npz",
            [quantized["descriptors"] / final.stat().st_size],
            1.0,
        ),
        Finding("keypoints of extract, which the notebook does not keep", f"{keypoints(extracted) / 1e6:.1f} MB"),
        Finding("keypoints of quantize", f"{keypoints(quantized) / 1e6:.1f} MB"),
    ]


def column_bytes(paths: list[Path]) -> dict[str, int]:
    """Return the compressed bytes of every column."""
    found: dict[str, int] = {}
    for path in paths:
        metadata = parquet.read_metadata(path)
        for group in range(metadata.num_row_groups):
            for i in range(metadata.num_columns):
                column = metadata.row_group(group).column(i)
                name = column.path_in_schema.split(".")[0]
                found[name] = found.get(name, 0) + column.total_compressed_size
    return found


def keypoints(columns: dict[str, int]) -> int:
    """Return the bytes of the columns of keypoints."""
    return sum(columns[name] for name in KEYPOINT_COLUMNS)
