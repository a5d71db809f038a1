"""A column is text unless a type gives the text of every cell back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa
import pytest

from featurestore.dataset import misfits
from featurestore.dataset.columns import convert_columns, decide_types
from featurestore.system import IN_MEMORY


def kinds_of(columns: Mapping[str, Sequence[str | None]], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the type of each column; queries are for all of them, as each takes milliseconds."""
    with duckdb.connect() as con:
        return decide_types(
            con, {name: pa.chunked_array([cells], pa.string()) for name, cells in columns.items()}, known or {}
        )


def kind_of(cells: Sequence[str | None], known: str | None = None) -> str:
    return kinds_of({"a": cells}, {} if known is None else {"a": known})["a"]


CELLS = [
    ("BIGINT", "0 1 -7 9223372036854775807 -9223372036854775808"),
    ("VARCHAR", "9223372036854775808"),
    ("VARCHAR", "12345678901234567890"),
    ("VARCHAR", "1" * 60),
    ("VARCHAR", "007"),
    ("VARCHAR", "+1"),
    ("VARCHAR", "-0"),
    ("VARCHAR", "1_000"),
    ("VARCHAR", "0x1f"),
    ("DOUBLE", "0.5 -1.25 1e+20 1e-05 -0.0"),
    ("DOUBLE", "1889.0 1890.0"),
    ("DOUBLE", "1503 1889.5"),
    ("VARCHAR", "1910 1910.0"),
    ("VARCHAR", "1910.1 1910.10 1910.100"),
    ("VARCHAR", "12.50"),
    ("VARCHAR", ".5"),
    ("VARCHAR", "5."),
    ("VARCHAR", "1e5"),
    ("VARCHAR", "1E+20"),
    ("VARCHAR", "0.5 9007199254740993"),
    ("VARCHAR", "0.1234567890123456789"),
    ("VARCHAR", "0.5 inf"),
    ("VARCHAR", "0.5 nan"),
    ("VARCHAR", "1e400"),
    ("BOOLEAN", "true false"),
    ("BOOLEAN", "True False"),
    ("BOOLEAN", "TRUE"),
    ("VARCHAR", "true False"),
    ("VARCHAR", "yes no"),
    ("VARCHAR", "t f"),
    ("DATE", "2020-01-02 0001-01-01 9999-12-31"),
    ("VARCHAR", "2020-1-2"),
    ("VARCHAR", "2020/01/02"),
    ("VARCHAR", "2021-02-29"),
    ("VARCHAR", "01/02/2003 03/04/2005"),
    ("VARCHAR", "12000-01-01 2020-01-01"),
    ("VARCHAR", "-0500-01-01"),
    ("VARCHAR", "0000-01-01"),
    ("VARCHAR", "infinity 2020-01-01"),
    ("VARCHAR", "epoch"),
    ("TIMESTAMP", "2020-01-02T03:04:05 2020-01-02T03:04:05.25"),
    ("VARCHAR", "2020-01-02T03:04:05Z"),
    ("VARCHAR", "2020-01-02T03:04:05+02:00"),
    ("VARCHAR", "2020-01-02T03:04"),
    ("VARCHAR", "2020-01-02T03:04:05.250"),
    ("VARCHAR", "2020-01-02T24:00:00"),
    ("VARCHAR", "12:30 24:00"),
    ("VARCHAR", "12:30:00"),
]


def test_a_type_gives_the_text_back() -> None:
    expected = {cells: kind for kind, cells in CELLS}
    assert kinds_of({cells: [None, *cells.split(" "), None] for cells in expected}) == expected
    assert kinds_of({cells: [*cells.split(" "), "x"] for cells in expected}) == dict.fromkeys(expected, "VARCHAR")


def test_a_type_gives_the_text_with_its_blanks_back() -> None:
    cases: list[tuple[str, list[str | None]]] = [
        ("TIMESTAMP", ["2020-01-02 03:04:05", "2020-01-02 00:00:00"]),
        ("VARCHAR", ["2020-01-02 03:04:05", "2020-01-02T03:04:05"]),
        ("VARCHAR", ["0044-03-15 (BC)"]),
        ("VARCHAR", ["0044-03-15 (BC) 12:00:00"]),
        ("VARCHAR", [" 1"]),
        ("VARCHAR", ["1 "]),
        ("VARCHAR", [None, None]),
    ]
    assert kinds_of({str(cells): cells for _, cells in cases}) == {str(cells): kind for kind, cells in cases}


def test_a_known_column_keeps_its_type_where_the_text_allows_it() -> None:
    cases: list[tuple[str, str | None, str]] = [
        ("BIGINT", "1889.0", "DOUBLE"),
        ("DOUBLE", "1889", "DOUBLE"),
        ("INTEGER", "5", "INTEGER"),
        ("INTEGER", "5000000000", "BIGINT"),
        ("UTINYINT", "0.5", "DOUBLE"),
        ("BIGINT", "2020-01-02", "VARCHAR"),
        ("DATE", "2020-01-02 00:00:00", "VARCHAR"),
        ("TIMESTAMP", "2020-01-02", "VARCHAR"),
        ("VARCHAR", "1", "VARCHAR"),
        ("TIME", "12:30:00", "TIME"),
        ("TIME", "24:00:00", "VARCHAR"),
        ("DECIMAL(38,0)", "12345678901234567890", "DECIMAL(38,0)"),
        ("DECIMAL(4,2)", "1.5", "VARCHAR"),
        ("BLOB", "1", "VARCHAR"),
        ("BIGNUM", "1", "VARCHAR"),
        ("DATE", None, "DATE"),
    ]
    names = [f"{known} of {cell}" for known, cell, _ in cases]
    columns = {name: [cell] for name, (_, cell, _) in zip(names, cases, strict=True)}
    known = {name: kind for name, (kind, _, _) in zip(names, cases, strict=True)}
    assert kinds_of(columns, known) == {name: kind for name, (_, _, kind) in zip(names, cases, strict=True)}


@pytest.mark.parametrize("place", [0, 2047, 2048, 4999])
def test_one_cell_decides_wherever_it_stands(place: int) -> None:
    cells = [str(i) for i in range(5000)]
    cells[place] = "0.5"
    assert kind_of(cells) == "DOUBLE"
    cells[place] = "n/a"
    assert kind_of(cells) == "VARCHAR"


@pytest.mark.parametrize("cells", [["Monet", "7"], [None, "e5"], ["+1"], ["-"]])
def test_words_are_text_without_a_query(cells: list[str | None]) -> None:
    con = duckdb.connect()
    con.close()
    column = pa.chunked_array([cells], pa.string())
    assert decide_types(con, {"a": column}, {}) == {"a": "VARCHAR"}
    assert decide_types(con, {"a": column}, {"a": "DATE"}) == {"a": "VARCHAR"}


def test_cells_without_a_value_rule_nothing_out() -> None:
    for known in (None, "BIGINT"):
        assert kind_of([None] * 3000 + ["7"], known) == "BIGINT"
    assert kind_of([None, "1890.5"]) == "DOUBLE"


def test_columns_are_told_apart_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.dataset.columns._CELLS", 4)
    written: dict[str, list[str | None]] = {
        "i": ["1", "2"],
        "t": ["x", None],
        "d": ["2020-01-02", None],
        "f": ["0.5", "1"],
        "n": [None, None],
    }
    columns = {name: pa.chunked_array([cells[:1], cells[1:]], pa.string()) for name, cells in written.items()}
    expected = {"i": "BIGINT", "t": "VARCHAR", "d": "DATE", "f": "DOUBLE", "n": "VARCHAR"}
    with duckdb.connect() as con:
        assert decide_types(con, columns, {}) == expected
        rows = convert_columns(con, pa.table(columns), dict(enumerate(expected.values())), IN_MEMORY)
    assert rows.column_names == list(written)
    assert rows["i"].to_pylist() == [1, 2]
    assert rows["t"].to_pylist() == ["x", None]
    assert rows["f"].to_pylist() == [0.5, 1.0]


def test_the_first_cell_that_does_not_fit_is_named() -> None:
    cells: dict[str, list[str | None]] = {"a": ["1.5", None, "1910.10", "x"], "b": ["1.5", "2"], "c": ["1"], "d": ["y"]}
    columns = {name: pa.chunked_array([column], pa.string()) for name, column in cells.items()}
    found = misfits(columns, {"a": "DOUBLE", "b": "DOUBLE", "c": "BLOB", "d": "DATE"})
    assert found == {"a": "1910.10", "d": "y"}
