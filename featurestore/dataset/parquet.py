"""Parquet as a dataset: one file, several of the same kind, or the files that hold the images themselves.

The classes of Hugging Face's ``datasets`` are numbers in the file; here they become their names. The Parquet files that
img2dataset writes beside its tars name no image, but the key of each.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.dataset.csv_file import find, has, nested_filenames
from featurestore.errors import DatasetError
from featurestore.quoting import identifier
from featurestore.system import IN_MEMORY, Spill, matching
from featurestore.wording import first_line, one_line

# Types that DuckDB, Arrow and Parquet write and read in the same way; columns of other types become text.
_KEPT = ("BOOLEAN", "FLOAT", "DOUBLE", "VARCHAR", "DATE", "TIME", "BLOB", "TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
SUCCESS = "success"  # img2dataset's status of an image that is in the tar
EXTENSION = ".jpg"  # that it gives the images
IMAGE = re.compile(r"STRUCT\(.*\bbytes BLOB\b.*\)")  # a picture, in a file that holds images and more; it is no value
IMG2DATASET = ("key", "url", "status")


def read_parquet(
    con: duckdb.DuckDBPyConnection, file: Path, spill: Spill = IN_MEMORY, *, filename_column: str | None = None
) -> pa.Table:
    """Return the rows of a Parquet file: no images, nested values as JSON text, classes as their names.

    Raises:
        duckdb.Error: it can't be read.
        DatasetError: the values of ``filename_column`` are nested.
    """
    found = con.sql("FROM read_parquet($path, hive_partitioning=false)", params={"path": glob.escape(str(file))})
    if filename_column is not None and has(found.columns, filename_column):
        kind = str(found.types[find(found.columns, filename_column)])
        if _is_nested(kind) and not IMAGE.fullmatch(kind):
            raise nested_filenames(filename_column, one_line(kind, 50))
    return _named(_stable(con, found, spill), _classes(file))


def read_pattern(con: duckdb.DuckDBPyConnection, pattern: Path, filename_column: str, spill: Spill) -> pa.Table:
    """Return the rows of all Parquet files that match, in the order of their names; see `with_filenames`.

    Raises:
        DatasetError: there is none, one is not Parquet, or they do not fit together.
    """
    files = sorted(map(str, matching(pattern)))
    if not files:
        raise DatasetError(f"The dataset {pattern} does not exist. Give the path of a CSV with one row per image.")
    tables = list[pa.Table]()
    for file in map(Path, files):
        try:
            rows = read_parquet(con, file, spill, filename_column=filename_column)
            tables.append(with_filenames(rows, filename_column, below=f"{file.stem}/"))
        except duckdb.Error as error:
            why = first_line(str(error), limit=300)
            raise DatasetError(f"{file.name} can't be read as parquet: {why}. A pattern takes Parquet only.") from None
    return joined(tables, pattern)


def joined(tables: Sequence[pa.Table], what: Path | str) -> pa.Table:
    """Return the rows of several files; a column that one lacks is null there.

    Raises:
        DatasetError: the types of a column do not fit together.
    """
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DatasetError(f"the files of {what} do not fit together: {error}. Give each its own dataset.") from None


def with_filenames(rows: pa.Table, filename_column: str, *, below: str = "") -> pa.Table:
    """Return the rows of img2dataset's Parquet with filenames, without the downloads that failed; others unchanged.

    Args:
        rows: of one file.
        filename_column: if there is one, nothing is changed.
        below: what names begin with.
    """
    names = rows.column_names
    if filename_column in names or not set(IMG2DATASET) <= set(names):
        return rows
    rows = rows.filter(pc.equal(rows["status"].cast(pa.string()), SUCCESS)).sort_by("key")  # as in the tar
    keys = pc.binary_join_element_wise(below, rows["key"].cast(pa.string()), EXTENSION, "")
    return rows.append_column(filename_column, keys)


def read_beside_images(con: duckdb.DuckDBPyConnection, files: Iterable[Path], spill: Spill) -> pa.Table:
    """Return the other columns of Parquet files that hold images; no columns and no rows if there are none.

    Raises:
        DatasetError: one can't be read, or they do not fit together.
    """
    tables = list[pa.Table]()
    for file in files:
        try:
            tables.append(read_parquet(con, file, spill))
        except duckdb.Error as error:
            raise DatasetError(f"{file} can't be read as parquet: {first_line(str(error), limit=300)}.") from None
    return joined(tables, "these images")


def _stable(con: duckdb.DuckDBPyConnection, found: duckdb.DuckDBPyRelation, spill: Spill) -> pa.Table:
    found_types = zip(found.columns, map(str, found.types), strict=True)
    columns = [(name, kind) for name, kind in found_types if not IMAGE.fullmatch(kind)]
    if not columns:
        return pa.table({})
    select = ", ".join(f"{_as_it_stays(identifier(name), kind)} AS {identifier(name)}" for name, kind in columns)
    with spill.bounding(con, columns=len(found.columns)):
        return spill.table(found.project(select))


def _as_it_stays(column: str, kind: str) -> str:
    if kind in (*_KEPT, *_WHOLE) or (kind.startswith("DECIMAL(") and not kind.endswith("]")):
        return column
    return f"CAST({f'to_json({column})' if _is_nested(kind) else column} AS VARCHAR)"


def _is_nested(kind: str) -> bool:
    return kind.endswith("]") or kind.startswith(("STRUCT(", "MAP(", "UNION("))


def _classes(file: Path) -> dict[str, list[str]]:
    """Return the names of the classes of each column, as the metadata of ``datasets`` has them."""
    try:
        metadata = pq.read_schema(file).metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found = {column: feature["names"] for column, feature in features.items() if _is_class(feature)}
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}  # without such metadata, or with other: the numbers stay
    return found


def _is_class(feature: Any) -> bool:
    is_class = isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    names = feature.get("names") if is_class else None
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _named(rows: pa.Table, classes: Mapping[str, list[str]]) -> pa.Table:
    for column, names in classes.items():
        position = rows.schema.get_field_index(column)
        if position < 0 or not pa.types.is_integer(rows.schema.field(position).type):
            continue
        numbers = rows.column(position)
        known = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, len(names)))
        labels = pc.take(pa.array(names, pa.string()), pc.if_else(known, numbers, None))
        unlabelled = pc.equal(numbers, -1)  # of `datasets`; any other number stays one
        others = pc.if_else(pc.or_(known, unlabelled), None, numbers.cast(pa.string()))
        rows = rows.set_column(position, column, pc.coalesce(labels, others))
    return rows
