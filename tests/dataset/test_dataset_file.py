"""A dataset is a CSV, JSON or Parquet, compressed or not; what says types keeps them."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.dataset import read_dataset
from featurestore.errors import DatasetError
from featurestore.system import Spill

CSV = b"filename,subset,n\na.jpg,train,1\nb.jpg,test,2\n"
ROWS: dict[str, list[Any]] = {"filename": ["a.jpg", "b.jpg"], "subset": ["train", "test"], "n": [1, 2]}


def zipped(data: bytes) -> bytes:
    """The same bytes in every test process, since they are in the names of tests: without the time."""
    return gzip.compress(data, mtime=0)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def read(folder: Path, name: str, content: bytes) -> pa.Table:
    path = folder / name
    path.write_bytes(content)
    return read_dataset(path)


def refused(folder: Path, name: str, content: bytes) -> str:
    with pytest.raises(DatasetError) as caught:
        read(folder, name, content)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) not in message
    return message


RECORDS = [{name: values[i] for name, values in ROWS.items()} for i in range(2)]
LINES = "\n".join(map(json.dumps, RECORDS)).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.csv.gz", zipped(CSV)),
        ("d.csv.gz", zipped(CSV[:30]) + zipped(CSV[30:])),
        ("d.csv.zst", zstd(CSV)),
        ("named for something else.csv", zipped(CSV.replace(b"\n", b"\r\n", 1))),
        ("d.tsv", CSV.replace(b",", b"\t")),
        ("d.parquet", parquet(pa.table(ROWS))),
        ("d.csv", parquet(pa.table(ROWS))),
        ("d.jsonl", LINES),
        ("d.NDJSON", LINES.replace(b"\n", b"\r\n")),
        ("d.json", json.dumps(RECORDS, indent=1).encode()),
        ("d.json.gz", zipped(json.dumps(RECORDS).encode())),
        ("d.ndjson.zst", zstd(LINES)),
    ],
)
@pytest.mark.parametrize("spills", [False, True])
def test_a_dataset_in_every_format(tmp_path: Path, name: str, content: bytes, spills: bool) -> None:
    (tmp_path / "subset=x").mkdir()
    path = tmp_path / "subset=x" / name.replace("d.", "d[1]*.")
    path.write_bytes(content)
    table = read_dataset(path, spill=Spill(tmp_path) if spills else Spill())
    assert table.to_pydict() == ROWS
    assert table.schema.types == [pa.string(), pa.string(), pa.int64()]
    assert [found.name for found in tmp_path.iterdir()] == ["subset=x"]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    when = datetime(2020, 1, 2, 3, 4, 5)
    columns: dict[str, tuple[Any, pa.DataType]] = {
        "small": (5, pa.int16()),
        "half": (0.5, pa.float32()),
        "price": (Decimal("12.50"), pa.decimal128(10, 2)),
        "code": ("007", pa.string()),
        "day": (date(2020, 1, 2), pa.date32()),
        "time": (when, pa.timestamp("us")),
        "ok": (True, pa.bool_()),
        "raw": (b"\0\xff", pa.binary()),
    }
    own = pa.table({name: pa.array([value], kind) for name, (value, kind) in columns.items()})
    given = own.append_column("filename", pa.array(["a.jpg"])).append_column("subset", pa.array(["train"]))
    table = read(tmp_path, "d.parquet", parquet(given)).select(own.column_names)
    assert table.schema.types == own.schema.types
    assert table.to_pylist() == own.to_pylist()


def test_other_types_and_nested_columns_of_parquet_are_text(tmp_path: Path) -> None:
    zoned = pa.array([datetime(2020, 1, 2, 3, tzinfo=UTC)], pa.timestamp("us", tz="UTC"))
    given = pa.table(
        {
            "filename": ["a.jpg"],
            "subset": ["train"],
            "tags": [["x", "y"]],
            "who": [{"name": "é", "born": 1840}],
            "none": pa.nulls(1),
            "prices": pa.array([[Decimal("1.50")]], pa.list_(pa.decimal128(5, 2))),
            "zoned": zoned,
        }
    )
    table = read(tmp_path, "d.parquet", parquet(given))
    assert set(table.schema.types) == {pa.string()}
    (row,) = table.to_pylist()
    assert json.loads(row["tags"]) == ["x", "y"]
    assert json.loads(row["who"]) == {"name": "é", "born": 1840}
    assert row["none"] is None
    assert json.loads(row["prices"]) == [1.5]
    assert row["zoned"].startswith("2020-01-02 ")


def json_column(folder: Path, *cells: str) -> tuple[pa.DataType, list[Any]]:
    lines = [f'{{"filename": "{i}", "subset": "train", "x": {cell}}}' for i, cell in enumerate(cells)]
    column = read(folder, "d.jsonl", "\n".join(lines).encode())["x"]
    return column.type, column.to_pylist()


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-2", "null"], pa.int64(), [1, -2, None]),
        (["1", "2.50", "1e3"], pa.float64(), [1.0, 2.5, 1000.0]),
        (["true", "null", "false"], pa.bool_(), [True, None, False]),
        (['"2020-01-02"'], pa.string(), ["2020-01-02"]),
        (['"007"', '"1"'], pa.string(), ["007", "1"]),
        (['"true"'], pa.string(), ["true"]),
        (['"a\\n\\u00e9"'], pa.string(), ["a\né"]),
        (['"123e4567-e89b-12d3-a456-426614174000"'], pa.string(), ["123e4567-e89b-12d3-a456-426614174000"]),
        (["1", '"x"', "true"], pa.string(), ["1", "x", "true"]),
        (["12345678901234567890123"], pa.string(), ["12345678901234567890123"]),
        (["9007199254740993", "0.5"], pa.string(), ["9007199254740993", "0.5"]),
        (['{"a": [1, "b"]}', "[1.5]"], pa.string(), ['{"a":[1,"b"]}', "[1.5]"]),
        (["null"], pa.string(), [None]),
    ],
)
def test_json_has_words_truths_and_numbers(tmp_path: Path, cells: list[str], kind: Any, values: list[Any]) -> None:
    assert json_column(tmp_path, *cells) == (kind, values)


def test_a_key_of_one_object_is_a_column_of_all(tmp_path: Path) -> None:
    rows = [{"filename": str(i), "subset": "train"} for i in range(3000)] + [{"filename": "z", "late": 1}]
    rows[-1]["subset"] = "test"
    table = read(tmp_path, "d.json", json.dumps(rows).encode())
    assert table["late"].to_pylist() == [None] * 3000 + [1]
    assert table["filename"][2999].as_py() == "2999"


@pytest.mark.parametrize("present", [1.0, 0.01])
def test_json_of_many_keys(tmp_path: Path, present: float) -> None:
    names = [f"c{i}" for i in range(300)]
    rows = [
        {"filename": str(i), "subset": "train"} | {n: i for j, n in enumerate(names) if (i + j) % 100 < present * 100}
        for i in range(100)
    ]
    table = read(tmp_path, "d.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert set(table.column_names) == {"filename", "subset", *names}
    assert table["c0"].drop_null().to_pylist() == [row["c0"] for row in rows if "c0" in row]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("d.csv.gz", zipped(CSV)[:-12], "d.csv.gz can't be decompressed (gzip): "),
        ("d.csv.zst", zstd(CSV)[:-5], "d.csv.zst can't be decompressed (zstd): "),
        ("d.csv.gz", zipped(b"filename,subset\n"), "d.csv.gz has no rows"),
        ("d.csv.gz", zipped(b"filename,subset\na,train,1\n"), "d.csv.gz: line 2 (a value"),
        ("d.parquet", CSV, "d.parquet is not a Parquet file"),
        ("d.parquet", parquet(pa.table(ROWS))[:-20], "d.parquet can't be read as parquet: "),
        ("d.parquet", parquet(pa.table({"path": ["a"]})), "d.parquet has no column 'filename'. Its columns are: path."),
        ("d.parquet", parquet(pa.table({"\u200bfilename": ["a"]})), "name of column 1 begins or ends with"),
        ("d.json", b"[1, 2]", "d.json can't be read as json: "),
        ("d.json", b'[{"filename": "a"', "d.json can't be read as json: "),
        ("d.json", b"", "d.json"),
        ("d.jsonl", b"filename,subset\na,train\n", "d.jsonl can't be read as json: "),
        ("d.json", zipped(b"PK\x03\x04"), "d.json is a zip file"),
    ],
)
def test_a_file_that_can_not_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    assert what in refused(tmp_path, name, content)


COLUMNS = {name: {str(i): value for i, value in enumerate(values)} for name, values in ROWS.items()}


@pytest.mark.parametrize(
    "content",
    [
        COLUMNS,  # what `DataFrame.to_json` writes by default
        {str(i): record for i, record in enumerate(RECORDS)},
        {"columns": list(ROWS), "index": [0, 1], "data": [list(record.values()) for record in RECORDS]},
        ROWS,
    ],
)
def test_json_with_one_object_for_all_images(tmp_path: Path, content: Any) -> None:
    assert refused(tmp_path, "d.json", json.dumps(content).encode()) == (
        "d.json holds one object for all images and not one for each. Write a row for each image, in pandas with "
        "to_json(..., orient='records')."
    )


def test_json_of_one_image(tmp_path: Path) -> None:
    one = {**RECORDS[0], "filename": "[a].jpg", "tags": ["x"]}
    assert read(tmp_path, "d.json", json.dumps(one).encode())["filename"].to_pylist() == ["[a].jpg"]
    assert "d.json has no column 'filename'. Its" in refused(tmp_path, "d.json", b'{"file": "a.jpg", "tags": ["x"]}')


def test_filenames_that_are_nested(tmp_path: Path) -> None:
    how = "and not paths. Write one path in each row, or name another column (--filename-column)."
    nested = json.dumps({"FileName": {"path": "b.jpg"}, "subset": "test"})
    assert refused(tmp_path, "d.jsonl", f"{nested}\n{nested}".encode()) == (
        f"""The column 'filename' holds lists or objects, for example {{"path":"b.jpg"}}, {how}"""
    )
    assert "holds lists or objects" in refused(tmp_path, "d.json", b'[{"filename": "a"}, {"filename": ["b"]}]')
    table = parquet(pa.table({"subset": ["train"], "FileName": [["a.jpg"]]}))
    assert refused(tmp_path, "d.parquet", table) == f"The column 'filename' holds VARCHAR[] {how}"
    with pytest.raises(DatasetError, match=r"The column 'filename' holds VARCHAR\[\] and"):
        read_dataset(tmp_path / "*.parquet")
