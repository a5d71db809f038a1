"""Column types that the user sets, whatever the text looks like: ``--type year=BIGINT``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from featurestore.dataset.columns import TEXT, convert_columns
from featurestore.errors import DatasetError
from featurestore.formatting import counted
from featurestore.quoting import folded
from featurestore.system import Spill
from featurestore.wording import one_line

_WHERE = "--type, or types in [store] of featurestore.toml"
_DAY = "[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}"
# DuckDB silently casts more than this: 1.5 becomes the BIGINT 2, a DATE loses its time and a TIMESTAMP its zone.
_PATTERNS = {
    "BIGINT": r"[+-]?[0-9]+(\.0*)?",
    "DOUBLE": r"[^_]+",
    "BOOLEAN": ".+",
    "DATE": _DAY,
    "TIMESTAMP": rf"{_DAY}([T ][0-9:.]+Z?)?",
}


def types_by_position(
    types: Mapping[str, str], names: Sequence[str], kept: Mapping[str, str], filename: int
) -> dict[int, str]:
    """Return the types, keyed by the positions of their columns.

    Args:
        types: keyed by column names, in any case.
        names: the dataset's columns.
        kept: their names in the store.
        filename: the position of the filename column, which is text.

    Raises:
        DatasetError: the dataset has no such column.
    """
    spelt = {folded(kept.get(name, name)): i for i, name in enumerate(names)}
    spelt |= {folded(name): i for i, name in enumerate(names)}
    found = {}
    for name, kind in types.items():
        position = spelt.get(folded(name))
        if position is None:
            what = f"There is no column {name!r} that could be {kind} ({_WHERE})"
            raise DatasetError(f"{what}. The columns are: {one_line(', '.join(names))}.")
        found[position] = TEXT if kind == "TEXT" else kind
        if position == filename and found[position] != TEXT:
            raise DatasetError(f"The column {name!r} holds the filenames, which are text. Give it no type ({_WHERE}).")
    return found


def give_types(con: duckdb.DuckDBPyConnection, rows: pa.Table, kinds: Mapping[int, str], spill: Spill) -> pa.Table:
    """Convert columns, given by position, to these types.

    Raises:
        DatasetError: a cell is not a value of its type.
    """
    if not kinds:
        return rows
    columns = rows.columns
    con.register("written", pa.table([columns[i] for i in kinds], names=[str(i) for i in kinds]))
    select = ", ".join(f'CAST("{i}" AS VARCHAR)' for i in kinds)
    texts = spill.table(con.sql(f"SELECT {select} FROM written"))
    con.unregister("written")
    for i, text in zip(kinds, texts.columns, strict=True):
        columns[i] = text
        if kinds[i] != TEXT:
            _check(con, rows.column_names[i], text, kinds[i])
    return convert_columns(con, pa.table(columns, names=rows.column_names), kinds, spill)


def _check(con: duckdb.DuckDBPyConnection, name: str, texts: pa.ChunkedArray, kind: str) -> None:
    con.register("cells", pa.table({"row": pa.arange(1, len(texts) + 1), "x": texts}))
    found = con.execute(
        f"""SELECT count(*), min(row), arg_min(x, row) FROM cells WHERE x IS NOT NULL AND NOT (
            TRY_CAST(x AS {kind}) IS NOT NULL AND regexp_full_match(trim(x), $pattern) AND trim(x) NOT LIKE '0000%')""",
        {"pattern": _PATTERNS[kind]},
    ).fetchall()
    con.unregister("cells")
    ((n, row, text),) = found
    if n:
        more = f" ({counted(n - 1, 'other cell')} neither)" if n > 1 else ""
        raise DatasetError(
            f"Row {row:,} of the dataset: {one_line(text, 50)!r} in column {name!r} is not a {kind}{more}. Correct it, "
            f"or give the column another type ({_WHERE})."
        )
