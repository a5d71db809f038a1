"""The split: a SQL expression over the dataset's columns that assigns each image to train or test."""

from __future__ import annotations

import re
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from featurestore.dataset.csv_file import find, has
from featurestore.errors import DatasetError
from featurestore.formatting import counted
from featurestore.quoting import identifier, literal
from featurestore.system import Spill
from featurestore.wording import first_line, one_line

BLANK = r"[\s\p{Z}]*"
_WORDS = ("VARCHAR", '"NULL"')  # types that a split may have; images with NULL are refused as missing
EXAMPLE = "CASE WHEN md5_number_lower(filename) % 10 = 0 THEN 'test' ELSE 'train' END"
_NAMED = 5  # values that a message lists
_LONGEST = 50  # characters of a value in a message
_OF_TESTS = ("test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "heldout")
_SPECIAL = '\\"$`'  # characters that the shell reads between double quotes, unless a backslash is before them


def is_subset(split: str) -> bool:
    """Return whether the split is just the column ``subset``."""
    return split.strip().lower() in ("subset", '"subset"')


def evaluate_split(
    con: duckdb.DuckDBPyConnection, rows: pa.Table, position: int, split: str, spill: Spill
) -> pa.ChunkedArray:
    """Evaluate the expression for every row.

    Args:
        con: a DuckDB connection, sandboxed unless `is_subset`: SQL may come from another user.
        rows: the dataset as it is written, with the types of its columns.
        position: of the filename column, which the split may call ``filename`` unless another column has that name.
        split: one SQL expression over the columns.
        spill: where large tables go.

    Returns:
        Text, in the order of the rows.

    Raises:
        DatasetError: the split can't be evaluated, or gives booleans or numbers.
    """
    names = rows.column_names
    if is_subset(split) and not has(names, "subset"):
        what = f"The CSV has no column 'subset'. Its columns are: {one_line(', '.join(names))}"
        raise DatasetError(f'{what}. Say which images are train and which test, for example --split "{EXAMPLE}".')
    if is_subset(split) and (column := rows.column(find(names, "subset"))).type == pa.string():
        return column
    if not has(names, "filename"):
        rows = rows.append_column("filename", rows.column(position))
    row = "__row"
    while has(names, row):
        row += "_"
    con.register("csv", rows.append_column(row, pa.arange(0, rows.num_rows)))
    try:
        # It must be one expression with and without brackets: `1), (2` and `1 AS x` are not.
        split.encode()  # an argument of the command line need not be UTF-8
        duckdb.SQLExpression(split)
        kind = str(con.sql(f"SELECT (\n{split}\n) FROM csv").types[0])
        values = spill.table(con.sql(f"SELECT {row}, CAST((\n{split}\n) AS VARCHAR) FROM csv ORDER BY {row}"))
        why = "It does not give one value for each row." if values.shape != (rows.num_rows, 2) else ""
    except (duckdb.Error, UnicodeEncodeError) as error:
        why = f"{first_line(error, limit=300)}."
        if "VARCHAR" in why or "Could not convert string" in why:
            why = f"{why} {_cast_hint(con, rows, split)}".rstrip()
    if why:
        need = f"It must be one SQL expression over the columns of the CSV: {one_line(', '.join(names))}."
        raise DatasetError(f"The split can't be evaluated: {one_line(split)} -- {why} {need}")
    if kind not in _WORDS:
        con.register("images", pa.table({"subset": values.column(1)}))
        raise _no_words(con, split, f"gives {kind} instead of words")
    return values.column(1)


def _cast_hint(con: duckdb.DuckDBPyConnection, rows: pa.Table, split: str) -> str:
    """Return a hint if the split would work with text columns read as numbers, else ""."""
    texts = [f.name for f in rows.schema if pa.types.is_string(f.type) and f.name.lower() in split.lower()]
    for names in [*([name] for name in texts), texts]:
        fields = [pa.field(f.name, pa.int64()) if f.name in names else f for f in rows.schema]
        con.register("csv", pa.schema(fields).empty_table())
        try:
            con.sql(f"SELECT (\n{split}\n) FROM csv")
        except duckdb.Error:
            continue
        casts = " and ".join(f"TRY_CAST({identifier(name)} AS BIGINT) for {name}" for name in names)
        return f"Text is not a number: write {casts}, or, if all cells are numbers, add --type {names[0]}=BIGINT."
    return ""


def check_split(con: duckdb.DuckDBPyConnection, split: str) -> None:
    """Check the subset of each row of the table ``images``: ``row``, ``filename`` and ``subset``.

    Raises:
        DatasetError: an image has no subset, one that is nearly ``'train'`` or ``'test'``, or none is ``'train'``.
    """
    query = "SELECT count(*), arg_min(filename, row), arg_min(subset, row) FROM images WHERE "
    missing = f"subset IS NULL OR regexp_full_match(subset, '{BLANK}')"
    n, filename, _ = con.execute(query + missing).fetchone() or (0, "", "")
    if n:
        hint = "Give them one, for example by coalesce(..., 'train') or CASE ... ELSE 'train' END."
        what = f"The split gives no subset for {counted(n, 'image')}, for example {filename!r}"
        raise DatasetError(f"{what}: {one_line(split)} -- {hint}")
    similar = f"subset NOT IN ('train', 'test') AND regexp_full_match(subset, '{BLANK}(train|test){BLANK}', 'i')"
    n, filename, subset = con.execute(query + similar).fetchone() or (0, "", "")
    if n:
        what = f"The split gives {subset!r} ({counted(n, 'image')}, for example {filename!r}), which differs from"
        meant = subset.strip().lower()
        raise DatasetError(f"{what} {meant!r} only by case or blanks. Correct the CSV, or --split 'lower(trim(...))'.")
    n, *_ = con.execute(query + "subset = 'train'").fetchone() or (0,)
    if not n:
        raise _no_words(con, split, "makes no image 'train'")


def _no_words(con: duckdb.DuckDBPyConnection, split: str, what: str) -> DatasetError:
    """Return the error that counts the values of the split in the table ``images``, and how to turn them into words."""
    found = con.execute("SELECT subset, count(*) FROM images GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
    images = "image" if sum(n for _, n in found) == 1 else "images"
    counts = [f"{n:,} {one_line(str(value), _LONGEST)}" for value, n in found]
    more = [f"and {len(counts) - _NAMED:,} more values"] if len(counts) > _NAMED else []
    hint = _hint(split.strip(), [str(value) for value, _ in found if value is not None])
    return DatasetError(
        f"The split {what} ({', '.join(counts[:_NAMED] + more)} {images}): {one_line(split)} -- The PCA is learnt "
        f"from images that are 'train'. Say which these are, for example --split \"{hint}\"."
    )


def _hint(split: str, values: Sequence[str]) -> str:
    """Return a split for the shell's double quotes: by the likeliest of the ``values``, most frequent first."""
    named = [value for value in values if "train" in value.lower()]
    others = [value for value in values if re.sub(r"[\W_]", "", value.lower()) not in _OF_TESTS]
    other = next(iter([*named, *others]), "")
    hint = f"CASE CAST({split} AS VARCHAR) WHEN {literal(other)} THEN 'train' ELSE 'test' END"
    is_shown_whole = 0 < len(other) <= _LONGEST and hint == one_line(hint)
    if not is_shown_whole or "!" in hint or "--" in split:  # no backslash helps where a shell has a history
        return EXAMPLE
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in hint)
