"""Answers as files, read back with what people read them with."""

from __future__ import annotations

import base64
import csv
import datetime
import decimal
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import OutputError, QueryError
from featurestore.query import result_files as answers
from featurestore.query.result_files import as_json_value, write_result

EVERYTHING = """
    SELECT image_id, filename, status, descriptors, x[1:2] AS xs, {'a': 1, 'b': [NULL, 2]} AS s, MAP {'k': 1} AS m,
           NULL AS nothing, '' AS empty, 'a,"b"\nc' AS odd, 1.50::DECIMAL(5, 2) AS d, 'nan'::DOUBLE AS nan, true AS yes,
           TIMESTAMP '2026-01-02 03:04:05.678' AS t, DATE '2026-01-02' AS day, INTERVAL 3 DAY AS i
    FROM quantized WHERE status <> 'truncated' ORDER BY image_id"""


def ask(store: FeatureStore, query: str, path: Path, *, force: bool = False) -> int:
    with store.answer(query) as answer:
        return write_result(answer, path, store=store.path, force=force)


@pytest.fixture
def wide_fields() -> Iterator[None]:
    """Let Python's reader of CSV read fields of the size of an image's descriptors."""
    before = csv.field_size_limit(10_000_000)
    yield
    csv.field_size_limit(before)


@pytest.mark.usefixtures("wide_fields")
def test_csv(finished: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert ask(finished, EVERYTHING, path) == 25
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    first, blank = rows[0], rows[24]
    assert base64.b64decode(first["descriptors"]) == finished.descriptors(first["filename"]).tobytes()
    assert json.loads(first["xs"]) == pytest.approx(finished.keypoints(first["filename"])["x"][:2].tolist())
    assert (blank["filename"], blank["descriptors"], blank["xs"]) == ("blank.jpg", "", "")
    expected = {"s": '{"a": 1, "b": [null, 2]}', "m": '{"k": 1}', "nothing": "", "empty": "", "odd": 'a,"b"\nc'}
    expected |= {"d": "1.50", "nan": "nan", "yes": "true", "day": "2026-01-02", "i": "P0M3DT0S"}
    assert expected.items() <= first.items()
    assert first["t"].startswith("2026-01-02 03:04:05.678")
    text = path.read_text(encoding="utf-8")
    assert ',,"",' in text  # NULL is nothing, and empty text is not
    frame = pd.read_csv(path)
    assert frame["image_id"].tolist() == list(range(25))


def test_json(finished: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "a.JSON"
    assert ask(finished, EVERYTHING, path) == 25
    rows = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert base64.b64decode(rows[0]["descriptors"]) == finished.descriptors(rows[0]["filename"]).tobytes()
    expected: dict[str, Any] = {"s": {"a": 1, "b": [None, 2]}, "m": {"k": 1}, "nothing": None, "empty": ""}
    expected |= {"odd": 'a,"b"\nc', "d": 1.5, "nan": "nan", "yes": True, "day": "2026-01-02", "i": "P0M3DT0S"}
    assert {name: rows[0][name] for name in expected} == expected
    assert datetime.datetime.fromisoformat(rows[0]["t"]).microsecond == 678000
    assert (rows[24]["filename"], rows[24]["descriptors"]) == ("blank.jpg", None)


def test_json_of_nothing(finished: FeatureStore, tmp_path: Path) -> None:
    assert ask(finished, "SELECT * FROM images WHERE false", tmp_path / "a.json") == 0
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.csv"])
def test_nothing_has_columns_nevertheless(finished: FeatureStore, tmp_path: Path, name: str) -> None:
    assert ask(finished, "SELECT image_id, subset FROM images WHERE false", tmp_path / name) == 0
    if name == "a.csv":
        assert (tmp_path / name).read_text(encoding="utf-8") == "image_id,subset\n"
    else:
        assert read(tmp_path / name).column_names == ["image_id", "subset"]


def read(path: Path) -> pa.Table:
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    return pq.read_table(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_columnar_files(finished: FeatureStore, tmp_path: Path, name: str) -> None:
    query = EVERYTHING.replace(", INTERVAL 3 DAY AS i", "")
    assert ask(finished, query, tmp_path / name) == 25
    table = read(tmp_path / name)
    assert table.drop_columns("nan").equals(finished.sql(query).arrow().drop_columns("nan"))


def test_duckdb_reads_what_was_written(finished: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    ask(finished, "SELECT sum(n_descriptors) AS n FROM descriptor_counts", path)
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT typeof(n), n > 0 FROM '{path}'").fetchall()
    assert found == [("BIGINT", True)]


def test_row_groups_are_not_as_small_as_batches(finished: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    assert ask(finished, "SELECT image_id, x[1:2] AS x FROM quantized, range(100)", path) == 2600
    assert pq.ParquetFile(path).num_row_groups == 1
    assert ask(finished, "SELECT range AS n FROM range(2500000)", path, force=True) == 2500000
    assert pq.ParquetFile(path).num_row_groups == 3


def test_a_type_that_the_format_has_no_word_for(finished: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"\.parquet can't hold a column of the answer \(.*\); CAST it to VARCHAR"):
        ask(finished, "SELECT INTERVAL 3 DAY AS i", tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_query_that_fails_halfway_leaves_what_was_there(finished: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(QueryError, match="boo"):
        ask(
            finished,
            "SELECT CASE WHEN range = 5000000 THEN error('boo') END AS e FROM range(6000000)",
            path,
            force=True,
        )
    assert path.read_text(encoding="utf-8") == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    assert ask(finished, "SELECT 1 AS n", path, force=True) == 1
    assert path.read_text(encoding="utf-8") == "n\n1\n"


def test_a_file_is_replaced_only_when_that_is_asked_for(finished: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "dataset.csv"
    path.write_text("all that there is", encoding="utf-8")
    with pytest.raises(OutputError, match="exists already; choose another name, or replace it with --force"):
        ask(finished, "SELECT 1 AS n", path)
    assert path.read_text(encoding="utf-8") == "all that there is"


def test_no_answer_goes_into_the_store(store: FeatureStore) -> None:
    (name,) = (path for path in (store.path / "dataset").iterdir())
    before = name.read_bytes()
    with pytest.raises(OutputError, match="lies in the store, which manages its own files"):
        ask(store, "SELECT 1 AS n", name, force=True)
    assert name.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.xlsx", "a.xlsx ends in none of .csv, .json, .parquet, .arrow, which determine the format; name it so"),
        ("a", "a ends in none of .csv"),
        ("no/a.csv", "no is not a folder; make it, or choose another place"),
    ],
)
def test_places_that_can_not_be_written(finished: FeatureStore, tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(OutputError) as caught:
        ask(finished, "SELECT 1", tmp_path / name)
    assert says in str(caught.value)


def test_a_folder_without_permission(finished: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    # root may write everywhere, so that the system is not to be relied on for a refusal
    refusing: Callable[..., Any] = refuse
    monkeypatch.setitem(answers.RESULT_FORMATS, ".csv", refusing)
    with pytest.raises(OutputError, match=r"a.csv can't be written: Permission denied; choose another place"):
        ask(finished, "SELECT 1", tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("value", "json_value"),
    [
        (float("inf"), "inf"),
        (decimal.Decimal("3"), 3),
        (decimal.Decimal("0.5"), 0.5),
        (decimal.Decimal("0.12345678901234567890"), "0.12345678901234567890"),
        (pa.MonthDayNano([0, 0, 999_999_999_000]), "P0M0DT999.999999S"),
        (b"\x00\xff", "AP8="),
        (datetime.time(1, 2, 3), "01:02:03"),
        ([{"a": b"a"}], [{"a": "YQ=="}]),
        (2**70, 2**70),
    ],
)
def test_values_in_json(value: Any, json_value: Any) -> None:
    assert as_json_value(value) == json_value
