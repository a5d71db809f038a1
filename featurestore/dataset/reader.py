"""Reading a dataset: one row per image, with its subset and its other columns.

:func:`read_dataset` reads the dataset file and evaluates the split, a SQL expression over its columns.
:func:`scan_folder` lists a folder of images if there is no dataset file. Both return one row per image: ``filename``,
``subset`` and all other columns of the file. No function here knows the catalog or image ids.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from featurestore.dataset.columns import convert_columns, decide_types
from featurestore.dataset.csv_file import find, has
from featurestore.dataset.dataset_file import read_file
from featurestore.dataset.given_types import give_types, types_by_position
from featurestore.dataset.parquet import read_beside_images
from featurestore.dataset.split import BLANK, check_split, evaluate_split, is_subset
from featurestore.errors import DatasetError
from featurestore.images import IMAGE_SUFFIXES, Source, is_container, open_source, shards_of
from featurestore.quoting import folded
from featurestore.system import IN_MEMORY, Spill

RESERVED = ("image_id", "chunk_id", "filename", "subset", "ingest_id", "status", "error", "n_descriptors")
"""Columns that the store writes; a column of the CSV with such a name becomes ``csv_<name>``."""

"""Extensions (lower case) of the image files that :func:`scan_folder` lists: those that OpenCV reads."""

# The few names that Python has to check: an empty, "." or ".." part (so absolute ones too), NUL, only blanks.
_SUSPICIOUS = rf"""filename IS NULL OR contains(filename, chr(0)) OR regexp_full_match(filename, '{BLANK}')
    OR regexp_matches(filename, '(^|/)\.{{0,2}}(/|$)')"""

# The split may come from another user: no files, no network, no Python variables, and no way to turn them on again.
_SANDBOX_SETTINGS = ("enable_external_access = false", "lock_configuration = true")


def read_dataset(
    path: Path,
    *,
    filename_column: str = "filename",
    split: str = "subset",
    known: Mapping[str, str] | None = None,
    types: Mapping[str, str] | None = None,
    spill: Spill = IN_MEMORY,
) -> pa.Table:
    """Read a dataset file and evaluate the split.

    Args:
        path: a CSV (UTF-8, with a header, separated by comma, semicolon, tab or bar), Parquet or JSON; see
            `dataset_file`.
        filename_column: the column with the paths of the images, relative to the image folder, with ``/``.
        split: a SQL expression (DuckDB's dialect) over the columns of the CSV, which gives ``'train'``, ``'test'`` or
            another word for every row. It is evaluated without access to files or network.
        known: the types of the columns that a store has already, by their folded names.
        types: column types that the user sets, by name: see `config.ColumnType`.
        spill: where large tables go.

    Returns:
        One row per row of the CSV, in its order: ``filename`` (string, normalised), ``subset`` (string), then every
        other column: with its type in Parquet or JSON; of a CSV as text, or with the type that reproduces its text (see
        `columns`). A column named like one of ``RESERVED`` (in any case) becomes ``csv_<name>``. If normalising changed
        a filename, ``csv_filename`` keeps the spelling of the CSV.

    Raises:
        DatasetError: the CSV can't be read, a filename is unusable or not unique, or the split can't be evaluated,
            leaves an image without a subset, gives other values than text, or makes no image ``'train'``.
    """
    with duckdb.connect() as con:  # one for all: each takes 20 ms
        rows, is_typed = read_file(con, path, filename_column, spill)
        if not rows.num_rows:
            raise DatasetError(f"{path.name} has no rows: there is nothing to ingest. Add one row per image.")
        given = _Given(filename_column, split, types or {}, None if is_typed else known or {})
        return _dataset(con, rows, given, spill)


@dataclass(frozen=True)
class _Given:
    """The meaning of the rows of a dataset; see `read_dataset`."""

    filename_column: str
    split: str
    types: Mapping[str, str]
    known: Mapping[str, str] | None  # None: the columns have types


def _dataset(con: duckdb.DuckDBPyConnection, rows: pa.Table, how: _Given, spill: Spill) -> pa.Table:
    """Return the result of `read_dataset`; the connection reads no more files after it."""
    filename_column, split = how.filename_column, how.split
    position = find(rows.column_names, filename_column)
    written = rows.column(position)
    if written.type != pa.string():
        written = written.cast(pa.string())
        rows = rows.set_column(position, rows.column_names[position], written)
    with spill.bounding(con, columns=rows.num_columns):
        for setting in () if is_subset(split) else _SANDBOX_SETTINGS:
            con.execute(f"SET {setting}")
        filenames = _normalise(con, written, filename_column, spill)
        ours = {"subset"} if is_subset(split) else set()
        if filenames is written and rows.column_names[position].lower() == "filename":
            ours.add("filename")
        kept = _kept_names(rows.column_names, ours)
        given = types_by_position(how.types, rows.column_names, kept, position)
        if how.known is not None:
            rows = _typed(con, rows, {position, *given}, kept, how.known, spill)
        rows = give_types(con, rows, given, spill)
        subsets = evaluate_split(con, rows, position, split, spill)
        con.register("images", _numbered(filename=filenames, subset=subsets))
        _check_unique(con)
        check_split(con, split)
    columns = {kept[name]: column for name, column in zip(rows.column_names, rows.columns, strict=True) if name in kept}
    return pa.table({"filename": filenames, "subset": subsets, **columns})


def _typed(
    con: duckdb.DuckDBPyConnection,
    rows: pa.Table,
    without: set[int],
    kept: Mapping[str, str],
    known: Mapping[str, str],
    spill: Spill,
) -> pa.Table:
    """Choose types for the columns, except for the positions ``without``: the filename, and types set by the user."""
    texts = {name: rows.column(i) for i, name in enumerate(rows.column_names) if i not in without}
    before = {name: known[folded(kept[name])] for name in texts if name in kept and folded(kept[name]) in known}
    kinds = decide_types(con, texts, before)
    chosen = {i: kinds[name] for i, name in enumerate(rows.column_names) if i not in without}
    return convert_columns(con, rows, chosen, spill)


def scan_folder(folder: Path) -> pa.Table:
    """List the image files below a folder, as `scan_images` does."""
    return scan_images(open_source(str(folder)))


def read_images(source: Source, *, split: str, types: Mapping[str, str], spill: Spill = IN_MEMORY) -> pa.Table:
    """Return the images of a source as a dataset: the other columns of Parquet files that hold them, else a scan.

    Args:
        source: of the images.
        split: as in `read_dataset`, over those columns and ``filename``. Without a column ``subset``, the default makes
            all of them ``train``.
        types: as in `read_dataset`.
        spill: where large tables go.

    Returns:
        As `read_dataset` does, or as `scan_images` does.

    Raises:
        DatasetError: as they do.
    """
    shards = shards_of(source)
    if not shards:
        return scan_images(source)
    filenames = _names(source)
    with duckdb.connect() as con:
        rows = read_beside_images(con, shards, spill)
        if not rows.num_columns:
            return scan_images(source)
        return _dataset(con, _with_filenames(rows, filenames, split), _Given("filename", split, types, None), spill)


def _with_filenames(rows: pa.Table, filenames: pa.Array, split: str) -> pa.Table:
    rows = rows.rename_columns([f"csv_{name}" if name.lower() == "filename" else name for name in rows.column_names])
    rows = rows.append_column("filename", filenames)
    if is_subset(split) and not has(rows.column_names, "subset"):
        rows = rows.append_column("subset", pa.repeat("train", len(rows)))
    return rows


def _names(source: Source) -> pa.Array:
    try:
        return pa.array([entry.name for entry in source.entries()], pa.string())
    except UnicodeEncodeError as error:
        raise DatasetError(f"The file name {os.fsencode(error.object)!r} is not UTF-8. Rename it.") from None


def scan_images(source: Source) -> pa.Table:
    """List the images of a source; all of them are ``train``.

    Of a folder, hidden files and folders are skipped. Links to folders are followed, but no folder is entered twice.

    Returns:
        ``filename`` (string), in the order of the source, which is sorted for a folder, and ``subset`` (string,
        ``'train'``).

    Raises:
        DatasetError: the source does not exist, a part of it can't be read, it holds no image, or the name of an image
            is not UTF-8.
    """
    filenames = _names(source)
    if not len(filenames):
        what = "file" if is_container(source.where) else "folder"
        raise DatasetError(
            f"The {what} {source.where} holds no image: no file ends in one of {' '.join(IMAGE_SUFFIXES)}."
        )
    return pa.table({"filename": filenames, "subset": pa.repeat("train", len(filenames))})


def _normalise(
    con: duckdb.DuckDBPyConnection, filenames: pa.ChunkedArray, column: str, spill: Spill
) -> pa.ChunkedArray:
    """Return paths in normal form; the same array if they are already."""
    con.register("names", _numbered(filename=filenames))
    suspicious = con.sql(f"SELECT row, filename FROM names WHERE {_SUSPICIOUS} ORDER BY row").to_arrow_table()
    if not suspicious.num_rows:
        return filenames
    pairs = zip(suspicious["row"].to_pylist(), suspicious["filename"].to_pylist(), strict=True)
    normal = pa.array([_relative(row, filename, column) for row, filename in pairs], pa.string())
    con.register("normal", pa.table({"row": suspicious["row"], "path": normal}))
    query = "SELECT coalesce(path, filename) AS filename FROM names LEFT JOIN normal USING (row) ORDER BY row"
    return spill.table(con.sql(query))["filename"]


def _relative(row: int, filename: str | None, column: str) -> str:
    """Normalise one path, or refuse one at which no image can be."""
    if filename is None or not filename.strip():
        raise DatasetError(f"Row {row} of the CSV has no filename (column {column!r}). Fill it in or remove the row.")
    normal = posixpath.normpath(filename)
    reasons = {
        "contains a NUL character": "\0" in filename,
        "is absolute": filename.startswith("/"),
        "is the image folder itself": normal == ".",
        "leaves the image folder": normal.split("/")[0] == "..",
    }
    for reason in (reason for reason, holds in reasons.items() if holds):
        raise DatasetError(f"Row {row} of the CSV: {filename!r} {reason}. Write a path relative to the image folder.")
    return normal


def _numbered(**columns: pa.ChunkedArray) -> pa.Table:
    return pa.table({"row": pa.arange(1, len(next(iter(columns.values()))) + 1), **columns})


def _check_unique(con: duckdb.DuckDBPyConnection) -> None:
    repeated = con.execute(
        """SELECT count(*) OVER (), filename, min(row) FROM images
        GROUP BY filename HAVING count(*) > 1 ORDER BY min(row) LIMIT 1"""
    ).fetchone()
    if repeated:
        n, filename, first = repeated
        query = "SELECT min(row) FROM images WHERE filename = $filename AND row > $first"
        ((second,),) = con.execute(query, {"filename": filename, "first": first}).fetchall()
        what = f"{n} filename{' occurs' if n == 1 else 's occur'} more than once in the CSV; the first is {filename!r}"
        raise DatasetError(f"{what}, in rows {first} and {second}. Keep one row per image.")


def _kept_names(names: Sequence[str], ours: set[str]) -> dict[str, str]:
    """Return the columns to keep, with names that do not collide with the store's own columns."""
    taken = {name.lower() for name in names}
    kept = {}
    for name in names:
        free = name
        while free.lower() in RESERVED or (free != name and free.lower() in taken):
            free = f"csv_{free}"
        taken.add(free.lower())
        if name.lower() not in ours:
            kept[name] = free
    return kept
