"""Every type of DuckDB with its extremes, in every form of an answer: the exact value, or its text, or one line."""

from __future__ import annotations

import csv
import decimal
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.catalog.statements import query_value
from featurestore.cli.text import table_text
from featurestore.errors import QueryError
from featurestore.query import QueryResult
from featurestore.query.exact import WIDE
from featurestore.query.result_files import RESULT_FORMATS, write_result
from tests.small import context_of

MORE = {
    "varint": "'-' || repeat('7', 60)::BIGNUM",
    "sum": "(SELECT sum(x) FROM (VALUES (9223372036854775807), (1)) t(x))",
    "uhuge": "340282366920938463463374607431768211455::UHUGEINT",
    "far": "DATE '9999-12-31' + 1",
    "bc": "DATE '0044-03-15 (BC)'",
    "never": "'infinity'::DATE",
    "ever": "'-infinity'::TIMESTAMP",
    "ever_s": "'infinity'::TIMESTAMP_S",
    "ever_ns": "'infinity'::TIMESTAMP_NS",
    "ever_tz": "'-infinity'::TIMESTAMPTZ",
    "first": "TIMESTAMP '0001-01-01'",
    "last": "TIMESTAMP '9999-12-31 23:59:59.999999'",
    "last_tz": "TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'",
    "midnight": "TIME '24:00:00'",
    "long": "INTERVAL (2562047788) HOUR",
    "short": "INTERVAL '-1 month 3 days -0.000001 seconds'",
    "nano": "TIMESTAMP_NS '2020-01-01 00:00:00.123456789'",
    "bits": "'0101'::BIT",
    "nan": "'nan'::DOUBLE",
    "inf": "'-inf'::FLOAT",
    "sums": "[170141183460469231731687303715884105727::HUGEINT, NULL]",
    "small_sums": "{'a': [1::HUGEINT]}",
    "dates": "{'a': ['infinity'::DATE], 'b': MAP {'k': TIME '24:00:00'}}",
    "keys": "MAP {['a']: 1, ['b']: 2}",
    "day_keys": "MAP {DATE '2020-01-01': 1}",
    "deep": "[[{'x': MAP {1: [UNION_VALUE(u := 'infinity'::DATE)]}}]]",
    "fixed": "array_value('infinity'::DATE, DATE '2020-01-01')",
    "variant": "[1, 2]::VARIANT",
    "blob": "'\\xFF\\x00'::BLOB",
    "tiny": "0.0000000001::DECIMAL(38, 10)",
    "zero": "0::DECIMAL(38, 30)",
    "wide": "12345678901234567890.123456789::DECIMAL(38, 9)",
    "third": "1 / 3",
    "big_and_none": "9007199254740993",
}


def names() -> list[str]:
    with duckdb.connect() as connection:
        return [*connection.sql("FROM test_all_types()").columns, *MORE]


NAMES = names()
MORE_SQL = ", ".join(f"CASE WHEN bool IS NOT NULL THEN {value} END AS {name}" for name, value in MORE.items())
QUESTION = f"SELECT *, {MORE_SQL} FROM test_all_types()"
NO_PARQUET = ("interval", "short", "empty_struct")  # for which Parquet, or Arrow's writer of it, has no word
NOT_A_NUMBER = ("nan", "double_array")  # which equals nothing


@dataclass(frozen=True)
class Everything:
    """Every value in every form, and DuckDB's text of each."""

    texts: dict[str, list[str | None]]
    kinds: dict[str, str]
    answer: QueryResult
    csv: list[dict[str, str]]
    json: list[dict[str, Any]]
    parquet: Path
    shown: pa.Table
    numbers: dict[str, bool]


def texts_of(duck: duckdb.DuckDBPyConnection, source: str) -> dict[str, list[str | None]]:
    columns = duck.sql(f"FROM {source} LIMIT 0").columns
    listed = ", ".join(f'CAST("{name}" AS VARCHAR)' for name in columns)
    return dict(
        zip(columns, map(list, zip(*duck.sql(f"SELECT {listed} FROM {source}").fetchall(), strict=True)), strict=True)
    )


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def everything(
    finished: FeatureStore, duck: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory
) -> Everything:
    written: dict[str, str] = {}
    for form in (".csv", ".json"):
        file = io.BytesIO()
        with finished.answer(QUESTION) as answer:
            RESULT_FORMATS[form](answer, file)
        written[form] = file.getvalue().decode()
    parquet = tmp_path_factory.mktemp("exact") / "a.parquet"
    with finished.answer(f"SELECT * EXCLUDE ({', '.join(NO_PARQUET)}) FROM ({QUESTION})") as answer:
        write_result(answer, parquet)
    with finished.answer(QUESTION, as_text=True) as answer:
        shown = pa.Table.from_batches(answer.batches, answer.schema)
    relation = duck.sql(QUESTION)
    return Everything(
        texts_of(duck, f"({QUESTION})"),
        dict(zip(relation.columns, (kind.id for kind in relation.types), strict=True)),
        finished.sql(QUESTION),
        list(csv.DictReader(io.StringIO(written[".csv"], newline=""))),
        json.loads(written[".json"], parse_float=decimal.Decimal, parse_constant=pytest.fail),
        parquet,
        shown,
        dict(zip(shown.column_names, answer.numbers, strict=True)),
    )


def bare(values: list[str | None]) -> list[str | None]:
    """Return texts without the quotes that DuckDB sets around some texts in a list, and a tuple as a struct."""
    made = [None if value is None else re.sub(r"'(element\d': )?", "", value) for value in values]
    return [None if value is None else value.replace("{", "(").replace("}", ")") for value in made]


@pytest.mark.parametrize("name", NAMES)
def test_arrow_and_python_hold_what_duckdb_says(
    everything: Everything, duck: duckdb.DuckDBPyConnection, name: str
) -> None:
    column = everything.answer.arrow()[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    duck.register("held", pa.table({"v": column}))
    assert bare(texts_of(duck, "held")["v"]) == bare(everything.texts[name])
    values = column.to_pylist()
    if name not in NOT_A_NUMBER:
        assert pa.array(values, column.type).equals(column.combine_chunks())
        assert [row[NAMES.index(name)] for row in everything.answer.fetchall()] == values


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_PARQUET])
def test_parquet_holds_what_duckdb_says(everything: Everything, duck: duckdb.DuckDBPyConnection, name: str) -> None:
    found = texts_of(duck, f"""(SELECT "{name}" AS v FROM '{everything.parquet}')""")["v"]
    assert bare(found) == bare(everything.texts[name])
    assert pq.read_table(everything.parquet, columns=[name]).num_rows == len(found)


def test_what_parquet_has_no_word_for_is_one_line(finished: FeatureStore, tmp_path: Path) -> None:
    for name in NO_PARQUET:
        with (
            finished.answer(f"SELECT {name} FROM ({QUESTION})") as answer,
            pytest.raises(QueryError, match=r"CAST it to VARCHAR$"),
        ):
            write_result(answer, tmp_path / "a.parquet")
    with finished.answer(QUESTION) as answer:
        assert write_result(answer, tmp_path / "a.arrow") == 3


def test_a_data_frame_holds_what_arrow_does(everything: Everything) -> None:
    frame, arrow = everything.answer.df(), everything.answer.arrow()
    for name in NAMES:
        kind = arrow[name].type
        if pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_string(kind):
            found = [None if value is None or value != value else value for value in frame[name].astype(object)]
            assert found == arrow[name].to_pylist(), name


def test_polars_holds_what_it_can(finished: FeatureStore, everything: Everything) -> None:
    pytest.importorskip("polars", reason="polars is an optional dependency")
    for name in NAMES:
        column = everything.answer.table.select([name])
        try:
            frame = QueryResult(column).pl()
        except QueryError:  # in one line
            continue
        if pa.types.is_string(column[name].type) or pa.types.is_integer(column[name].type):
            assert frame[name].to_list() == column[name].to_pylist()


@pytest.mark.parametrize("name", NAMES)
def test_csv_and_json_say_what_duckdb_says(everything: Everything, name: str) -> None:
    wanted, kind = everything.texts[name], everything.answer.arrow()[name].type
    cells, values = [row[name] for row in everything.csv], [row[name] for row in everything.json]
    if pa.types.is_string(kind):
        assert cells == ["" if text is None else text for text in wanted]
        assert values == wanted
    elif pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        numbers = [None if text is None else decimal.Decimal(text) for text in wanted]
        assert [decimal.Decimal(cell) if cell else None for cell in cells] == numbers
        assert [None if value is None else decimal.Decimal(value) for value in values] == numbers
    elif pa.types.is_floating(kind):
        exact = [None if text is None else pa.scalar(float(text), kind).as_py() for text in wanted]
        assert [str(float(v)) if v is not None else None for v in values] == [
            None if e is None else str(e) for e in exact
        ]
    elif everything.kinds[name] in ("date", "time"):
        assert cells == values == ["" if text is None else text for text in wanted]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_shows_what_duckdb_says(everything: Everything, name: str) -> None:
    values = everything.shown[name].to_pylist()
    lines = table_text([name], [(value,) for value in values], numbers=[everything.numbers[name]]).splitlines()[2:-1]
    assert len(lines) == len(values)
    if everything.kinds[name] not in (*WIDE - {"union"}, "varchar"):
        assert [line.strip() for line in lines] == [text or "NULL" for text in everything.texts[name]]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("DATE '2020-01-01'", pa.date32()),
        ("TIMESTAMP '2020-01-01'", pa.timestamp("us")),
        ("TIME '23:59:59.999999'", pa.time64("us")),
        ("sum(1)", pa.int64()),
        ("[DATE '2020-01-01']", pa.large_list(pa.field("l", pa.date32()))),
        ("[sum(1)]", pa.large_list(pa.field("l", pa.int64()))),
        ("DATE '2020-01-01' - INTERVAL 3000 YEAR", pa.string()),
        ("'x'::BLOB", pa.large_binary()),
    ],
)
def test_ordinary_values_keep_their_type(finished: FeatureStore, value: str, kind: pa.DataType) -> None:
    assert finished.sql(f"SELECT {value} AS v").arrow()["v"].type == kind


def test_whole_numbers_beside_nothing_stay_whole(finished: FeatureStore) -> None:
    query = "SELECT 9007199254740993 AS a, [9007199254740993, NULL] AS b, 1 AS c UNION ALL SELECT NULL, NULL, NULL"
    frame = finished.sql(query).df()
    assert frame["a"][0] == 9007199254740993
    assert frame["b"][0][0] == 9007199254740993
    assert frame["c"].dtype == "float64"  # as pandas has it, where nothing is lost


def test_the_order_of_an_answer_is_kept(finished: FeatureStore) -> None:
    query = "SELECT range::HUGEINT AS a, DATE '2020-01-01' + (range % 3)::INT AS b FROM range(300000) ORDER BY a DESC"
    assert finished.sql(query).arrow()["a"].to_pylist() == list(range(299999, -1, -1))


def test_columns_of_the_dataset_from_an_earlier_store(store: FeatureStore, tmp_path: Path) -> None:
    """Stores made before text stayed text have such columns; loading and export bring their text."""
    odd = {"day": "'infinity'::DATE", "n": "340282366920938463463374607431768211455::UHUGEINT", "t": "TIME '24:00'"}
    with context_of(store).catalog.transaction() as connection:
        for name, value in odd.items():
            kind = query_value(connection, f"SELECT typeof({value})")
            connection.execute(f'ALTER TABLE dataset_columns ADD COLUMN "{name}" {kind}')
            connection.execute(f'UPDATE dataset_columns SET "{name}" = {value}')
    wanted = {"day": "infinity", "n": "340282366920938463463374607431768211455", "t": "24:00:00"}
    assert store.load(columns=list(odd)).to_pylist()[0] == wanted
    assert next(store.iter_batches(2, columns=list(odd))).to_pylist()[1] == wanted
    name = "china/whole-000.jpg"
    assert wanted.items() <= store.info(name).dataset.items()
    for form in ("parquet", "arrow", "npy"):
        store.export(tmp_path / form, form)
    with pa.memory_map(str(tmp_path / "arrow")) as source:
        assert wanted.items() <= pa.ipc.open_file(source).read_all().to_pylist()[0].items()
    assert wanted.items() <= pq.read_table(tmp_path / "parquet").to_pylist()[0].items()
    assert wanted.items() <= pq.read_table(tmp_path / "npy" / "images.parquet").to_pylist()[0].items()
