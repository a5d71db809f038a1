"""Parquet files whose row groups threads encode are those that one writer writes, to the byte."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from featurestore import FeatureStore
from featurestore.exchange.exporters import parquet, row_groups
from featurestore.exchange.exporters.parquet_footer import Footer
from featurestore.exchange.exporters.row_groups import write_row_groups
from featurestore.query import write_parquet
from tests.warm import run_warm


def tables(n: int, rows: int) -> list[pa.Table]:
    """Return tables of numbers, texts, BLOBs, lists, booleans, nulls and times; every third is empty."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        size = 0 if i % 3 == 2 else rows + i
        values = rng.integers(0, 256, size * 4, dtype=np.uint8)
        columns: dict[str, Any] = {
            "number": rng.integers(-(2**40), 2**40, size),
            "text": pa.array([None if j % 5 == 4 else f"größe {j % 7}" for j in range(size)], pa.string()),
            "blob": pa.array([bytes(values[4 * j : 4 * j + 4]) for j in range(size)], pa.large_binary()),
            "list": pa.array([None if j % 4 == 3 else [float(j), None] for j in range(size)], pa.list_(pa.float32())),
            "fixed": pa.FixedSizeListArray.from_arrays(pa.array(values), 4),
            "flag": pa.array([j % 2 == 0 for j in range(size)], pa.bool_()),
            "nothing": pa.nulls(size, pa.float64()),
            "time": pa.array(np.arange(size), pa.timestamp("us", tz="UTC")),
        }
        columns |= {f"more {j}": pa.array(np.full(size, j), pa.int16()) for j in range(12)}  # a list of 15 and more
        made.append(pa.table(columns))
    return made


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 14, 15, 40])
def test_the_bytes_are_those_of_one_writer(n: int, threads: int) -> None:
    made, dictionary = tables(n, 50), ["text", "flag"]
    schema = made[0].schema.with_metadata({"dim": "64"})
    made = [table.cast(schema) for table in made]
    one, other = io.BytesIO(), io.BytesIO()
    write_parquet(made, schema, one, dictionary=dictionary, statistics=["number", "text", "flag"])
    write_row_groups(
        iter(made), schema, other, dictionary=dictionary, statistics=["number", "text", "flag"], threads=threads
    )
    assert other.getvalue() == one.getvalue()
    assert pq.read_table(io.BytesIO(other.getvalue())).equals(pa.concat_tables(made))


def test_a_table_may_be_several_row_groups() -> None:
    table = pa.table({"number": pa.array(np.arange((1 << 20) + 5) % 9, pa.int8())})  # Arrow's most rows, and 5
    one, other = io.BytesIO(), io.BytesIO()
    write_parquet([table, table], table.schema, one)
    write_row_groups([table, table], table.schema, other, dictionary=["number"], threads=2)
    assert pq.ParquetFile(io.BytesIO(one.getvalue())).num_row_groups == 4
    assert other.getvalue() == one.getvalue()


def test_a_file_has_a_table() -> None:
    with pytest.raises(ValueError, match=r"^a Parquet file of no tables"):
        Footer().data()


@pytest.mark.parametrize("stage", ["extract", "quantize"])
def test_an_export_is_the_same_bytes_on_any_number_of_cores(
    finished: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    for cores in (1, 2, 7):
        monkeypatch.setattr(row_groups, "all_cores", lambda cores=cores: cores)
        finished.export(tmp_path / str(cores), "parquet-flat", stage=stage)
    (found,) = {(tmp_path / str(cores)).read_bytes() for cores in (1, 2, 7)}

    def by_one_writer(
        tables: Iterator[pa.Table],
        schema: pa.Schema,
        file: IO[bytes],
        *,
        prepare: Callable[[pa.Table], pa.Table],
        dictionary: list[str],
    ) -> None:
        write_parquet(map(prepare, tables), schema, file, dictionary=dictionary)

    monkeypatch.setattr(parquet, "write_row_groups", by_one_writer)
    finished.export(tmp_path / "expected", "parquet-flat", stage=stage)
    assert found == (tmp_path / "expected").read_bytes()
    assert pq.ParquetFile(io.BytesIO(found)).num_row_groups == 4


def test_an_error_in_a_thread_ends_the_export(
    finished: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, begun = row_groups._encode, list[int]()

    def broken(table: pa.Table, **options: Any) -> memoryview:
        begun.append(len(table))
        if len(begun) == 2:
            raise MemoryError("no more")
        return encode(table, **options)

    monkeypatch.setattr(row_groups, "_encode", broken)
    with pytest.raises(MemoryError, match="no more"):
        finished.export(tmp_path / "out.parquet", "parquet-flat")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_in_the_middle_leaves_the_old_file(
    finished: FeatureStore, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "flat.parquet"
    out.write_bytes(b"old")
    script = (
        "import os, sys\n"
        "from featurestore.cli import main\n"
        "from featurestore.exchange.exporters.parquet_footer import Footer\n"
        "append, begun = Footer.append, []\n"
        "def stop(self, data, at):\n"
        "    begun.append(at)\n"
        f"    if len(begun) == 2: os.kill(os.getpid(), {int(number)})\n"
        "    return append(self, data, at)\n"
        "Footer.append = stop\n"
        f"sys.argv = ['featurestore', 'export', {str(finished.path)!r}, {str(out)!r}, '--format', 'parquet', '--flat',"
        " '--force']\n"
        "sys.exit(main())\n"
    )
    folder = tmp_path_factory.mktemp("script")
    (folder / "stopping.py").write_text(script, encoding="utf-8")
    ended = run_warm("stopping", environment={**os.environ, "PYTHONPATH": str(folder)})
    assert ended.returncode == code, ended.stderr
    assert out.read_bytes() == b"old"
    assert "Traceback" not in ended.stderr
    if number != signal.SIGKILL:
        assert [path.name for path in tmp_path.iterdir()] == ["flat.parquet"]
