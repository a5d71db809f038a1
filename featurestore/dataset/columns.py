"""Column types of a CSV: a column is text unless another type reproduces every cell's text.

A CSV has no types. A column becomes BOOLEAN, BIGINT, DOUBLE, DATE or TIMESTAMP only if every cell is written as DuckDB
writes a value of that type, so that the store keeps the CSV's text: ``007``, ``1910.10`` and ``01/02/2003`` are text.
Where several spellings give the same value (``True`` and ``true``, a ``T`` or a blank before the time, ``5`` and
``5.0`` among fractions), all cells of a column must use the same one. Empty cells are NULL and do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import duckdb
import pyarrow as pa

from featurestore.system import Spill

TEXT = "VARCHAR"
GUESSED = ("BOOLEAN", "BIGINT", "DOUBLE", "DATE", "TIMESTAMP")
"""The types that a column of text can become, in the order in which they are tried."""

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_REAL = ("FLOAT", "DOUBLE")
_NUMERIC = re.compile(r"-?[0-9]")  # how DuckDB writes a value of any type here but BOOLEAN
_HEAD = 2048  # rows that are checked first: they rule out most types of most columns
_CELLS = 1_000_000  # in one query

# The spelling of a text x as a value of a type; NULL: not as DuckDB writes it. A column has one spelling besides ''.
_BACK = "CAST(TRY_CAST(x AS {kind}) AS VARCHAR)"
_NUMBER = f"""CASE WHEN x IN ('nan', 'inf', '-inf', '-0') THEN NULL
    WHEN {_BACK} = x THEN if(ends_with(x, '.0'), 'point', '') WHEN {_BACK} = x || '.0' THEN 'whole' END"""
_SPELLINGS = {
    "BOOLEAN": """CASE WHEN x IN ('true', 'false') THEN 'lower' WHEN x IN ('True', 'False') THEN 'title'
        WHEN x IN ('TRUE', 'FALSE') THEN 'upper' END""",
    **dict.fromkeys(_REAL, _NUMBER),
    "DATE": f"CASE WHEN length(x) = 10 AND {_BACK} = x THEN '' END",  # longer are 12000-01-01 and 0044-03-15 (BC)
    "TIMESTAMP": f"""CASE WHEN x NOT LIKE '____-__-__T__:%' AND x NOT LIKE '____-__-__ __:%' THEN NULL
        WHEN {_BACK} = x THEN 'blank' WHEN {_BACK} = replace(x, 'T', ' ') THEN 'T' END""",
    "TIME": f"CASE WHEN x < '24' AND {_BACK} = x THEN '' END",
}


def decide_types(
    con: duckdb.DuckDBPyConnection, texts: Mapping[str, pa.ChunkedArray], known: Mapping[str, str]
) -> dict[str, str]:
    """Choose the type of each column of text.

    Args:
        con: a DuckDB connection.
        texts: the columns, of strings.
        known: the types of columns that the store has already. A column keeps its type if its text allows that, else it
            becomes text; only an integer column can become DOUBLE.

    Returns:
        DuckDB's name of a type, for every column.
    """
    left = {name: _candidates(known.get(name)) for name in texts}
    chosen = {name: known.get(name, TEXT) for name, column in texts.items() if column.null_count == len(column)}
    left = {name: _possible(kinds, texts[name]) for name, kinds in left.items() if name not in chosen}
    if any(len(texts[name]) > _HEAD for name in left):
        heads = {name: texts[name].slice(0, _HEAD) for name in left}
        heads = {name: head for name, head in heads.items() if head.null_count < len(head)}
        for kind in {kind: None for kinds in left.values() for kind in kinds}:
            having = [name for name in heads if kind in left[name]]
            fitting = _fitting(con, {name: heads[name] for name in having}, kind)
            for name in having:
                left[name] = [k for k in left[name] if k != kind or name in fitting]
    while left:
        kinds = {name: (candidates or [TEXT])[0] for name, candidates in left.items()}
        for kind in set(kinds.values()):
            having = [name for name in left if kinds[name] == kind]
            fitting = set(having) if kind == TEXT else _fitting(con, {name: texts[name] for name in having}, kind)
            chosen |= dict.fromkeys(fitting, kind)
        left = {name: left[name][1:] for name in left if name not in chosen}
    return chosen


def convert_columns(con: duckdb.DuckDBPyConnection, rows: pa.Table, kinds: Mapping[int, str], spill: Spill) -> pa.Table:
    """Convert columns, given by position, to their chosen types."""
    typed = {position: kind for position, kind in kinds.items() if kind != TEXT}
    if not typed:
        return rows
    columns = rows.columns
    con.register("texts", pa.table([columns[i] for i in typed], names=[str(i) for i in typed]))
    select = ", ".join(f'CAST("{i}" AS {kind})' for i, kind in typed.items())
    found = spill.table(con.sql(f"SELECT {select} FROM texts"))
    con.unregister("texts")
    for i, column in zip(typed, found.columns, strict=True):
        columns[i] = column
    return pa.table(columns, names=rows.column_names)


def misfits(columns: Mapping[str, pa.ChunkedArray], kinds: Mapping[str, str]) -> dict[str, str]:
    """Return, for each text column, its first cell that is not written as DuckDB writes a value of the given type."""
    found: dict[str, str] = {}
    if not columns:
        return found
    with duckdb.connect() as con:
        for kind in sorted(set(kinds.values())):
            having = {name: columns[name] for name, its in kinds.items() if its == kind and _lossless(kind)}
            query = (
                f"SELECT n, arg_min(x, row) FROM cells WHERE x IS NOT NULL AND ({_spelling(kind)}) IS NULL GROUP BY n"
            )
            found |= _ask(con, having, query)
    return found


def _candidates(known: str | None) -> list[str]:
    """Return the types that a column may have, given its type in the store."""
    if known is None:
        return list(GUESSED)
    if known in _WHOLE or known in _REAL:
        wider = ("BIGINT", "DOUBLE") if known in _WHOLE else ("DOUBLE",)
        return list(dict.fromkeys((known, *wider)))
    return [known] if _lossless(known) else []


def _possible(kinds: Sequence[str], column: pa.ChunkedArray) -> list[str]:
    """Return the types that the first cell of a column does not rule out by its first character, without a query."""
    first = next((cell.as_py() for cell in column.slice(0, _HEAD) if cell.is_valid), None)
    if first is None:
        return list(kinds)
    is_word, is_number = first.lower() in ("true", "false"), bool(_NUMERIC.match(first))
    return [kind for kind in kinds if (is_word if kind == "BOOLEAN" else is_number)]


def _lossless(kind: str) -> bool:
    """Whether a type reproduces its text: BLOB, BIGNUM and times with a zone do not."""
    return kind in _SPELLINGS or kind in _WHOLE or kind.startswith("DECIMAL(")


def _spelling(kind: str) -> str:
    return _SPELLINGS.get(kind, f"CASE WHEN {_BACK} = x THEN '' END").format(kind=kind)


def _fitting(con: duckdb.DuckDBPyConnection, columns: Mapping[str, pa.ChunkedArray], kind: str) -> set[str]:
    """Return the names of the columns in which every cell is spelt as a value of this type.

    The columns are stacked into one long column. A query with an aggregate for each of 1,500 columns would take
    minutes: its time grows with the square of their number.
    """
    spelling = "nullif(spelling, '')"
    query = f"""SELECT n, n FROM (SELECT n, {_spelling(kind)} AS spelling FROM cells WHERE x IS NOT NULL) GROUP BY n
        HAVING bool_and(spelling IS NOT NULL) AND min({spelling}) IS NOT DISTINCT FROM max({spelling})"""
    return set(_ask(con, columns, query))


def _ask(con: duckdb.DuckDBPyConnection, columns: Mapping[str, pa.ChunkedArray], query: str) -> dict[str, str]:
    """Run a query over ``cells``; return its second column, keyed by the names of the columns in its first one."""
    found: dict[str, str] = {}
    for names in _batches(columns):
        con.register("cells", _stacked([columns[name] for name in names]))
        found |= {names[n]: value for n, value in con.sql(query).fetchall()}
        con.unregister("cells")
    return found


def _batches(columns: Mapping[str, pa.ChunkedArray]) -> Iterator[list[str]]:
    names, cells = list[str](), 0
    for name, column in columns.items():
        if names and cells + len(column) > _CELLS:
            yield names
            names, cells = [], 0
        names.append(name)
        cells += len(column)
    if names:
        yield names


def _stacked(columns: Sequence[pa.ChunkedArray]) -> pa.Table:
    numbers = [pa.repeat(pa.scalar(n, pa.int32()), len(column)) for n, column in enumerate(columns)]
    chunks = [chunk for column in columns for chunk in column.chunks]
    rows = [pa.arange(0, len(column)) for column in columns]
    arrays = (numbers, pa.int32()), (rows, pa.int64()), (chunks, pa.string())
    return pa.table([pa.chunked_array(*array) for array in arrays], names=["n", "row", "x"])
