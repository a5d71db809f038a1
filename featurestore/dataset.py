"""The dataset: which images there are, and which of them are train and which test.

:func:`read_csv` reads the dataset CSV and computes the split, a SQL expression over the columns of the CSV.
:func:`scan_folder` is for whoever has a folder and no CSV. Both return one row per image: ``filename``, ``subset``
and whatever else the CSV says. Nothing here knows of the catalog or of image ids.
"""

from __future__ import annotations

import csv
import glob
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from featurestore.errors import DatasetError
from featurestore.whereabouts import leads_to_folder

RESERVED = ("image_id", "chunk_id", "filename", "subset", "ingest_id", "status", "error", "n_descriptors")
"""Columns that the store writes itself; a column of the CSV with such a name becomes ``csv_<name>``."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff"),
    *(".webp", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".avif"),
)
"""Extensions (lower case) of the files that :func:`scan_folder` takes for images: those that OpenCV reads."""

_BLANK = r"[\s\p{Z}]*"
# The few names that Python has to look at: an empty, "." or ".." part (so absolute ones too), NUL, only blanks.
_SUSPICIOUS = rf"""filename IS NULL OR contains(filename, chr(0)) OR regexp_full_match(filename, '{_BLANK}')
    OR regexp_matches(filename, '(^|/)\.{{0,2}}(/|$)')"""

# A split may be somebody else's: it gets no files, no network, no Python variables, and no way to ask for them back.
_SEALED: dict[str, str | bool | int | float | list[str]] = {"enable_external_access": False, "lock_configuration": True}


@dataclass(frozen=True)
class _Header:
    """How the CSV begins. DuckDB must not guess it: it would skip odd lines, or take ``a,b`` for one column."""

    delimiter: str
    blank_lines: int
    columns: tuple[str, ...]


def read_csv(path: Path, *, filename_column: str = "filename", split: str = "subset") -> pa.Table:
    """Read a dataset CSV (UTF-8, with a header, separated by comma, semicolon, tab or bar) and compute the split.

    Args:
        path: the CSV.
        filename_column: the column with the paths of the images, relative to the image folder, with ``/``.
        split: a SQL expression (DuckDB's dialect) over the columns of the CSV, which gives ``'train'``, ``'test'`` or
            another word for every row. It is evaluated without access to files or network.

    Returns:
        One row per row of the CSV, in its order: ``filename`` (string, normalised), ``subset`` (string), then every
        other column with the type that DuckDB detects. A column named like one of ``RESERVED`` (in any case) becomes
        ``csv_<name>``. If normalising changed a filename, ``csv_filename`` keeps the spelling of the CSV.

    Raises:
        DatasetError: the CSV can't be read, a filename is unusable or not unique, or the split can't be evaluated or
            leaves an image without a subset.

    """
    rows = _load(path, _read_header(path, filename_column), filename_column)
    if not rows.num_rows:
        raise DatasetError(f"{path.name} has a header but no rows: there is nothing to ingest. Add one row per image.")
    position = _find(rows.column_names, filename_column)
    written = rows.column(position)
    with duckdb.connect(config=_SEALED) as con:
        subsets = _evaluate_split(con, rows, position, split)
        filenames = _normalise(con, written, filename_column)
        con.register("images", _numbered(filename=filenames, subset=subsets))
        _check_unique(con)
        _check_split(con, split)
    ours = {"subset"} if _is_subset(split) else set()
    if filenames is written and rows.column_names[position].lower() == "filename":
        ours.add("filename")
    return pa.table({"filename": filenames, "subset": subsets, **_other_columns(rows, ours)})


def scan_folder(folder: Path) -> pa.Table:
    """List the image files below a folder; nothing is held out, all of them are ``train``.

    Hidden files and folders are skipped. Links to folders are followed, but no folder is entered twice.

    Returns:
        ``filename`` (string, relative to ``folder``, with ``/``), sorted, and ``subset`` (string, ``'train'``).

    Raises:
        DatasetError: there is no such folder, a part of it can't be read, it holds no image, or the name of an image
            is not UTF-8.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DatasetError(f"The image folder {folder} {what}. Give the folder that the images are in.")
    try:
        filenames = pa.array(sorted(_images_below(folder)), pa.string())
    except OSError as error:
        raise DatasetError(f"Can't list {error.filename}: {error.strerror}. Make it readable or move it.") from None
    except UnicodeEncodeError as error:
        raise DatasetError(f"The file name {os.fsencode(error.object)!r} is not UTF-8. Rename it.") from None
    if not len(filenames):
        raise DatasetError(f"The folder {folder} holds no image: no file ends in one of {' '.join(IMAGE_SUFFIXES)}.")
    return pa.table({"filename": filenames, "subset": pa.repeat("train", len(filenames))})


def _images_below(folder: Path) -> Iterator[str]:
    """Yield relative paths; real folders come before links, so that an image goes by its real path if it has one."""
    # A link to a folder above would bring in whatever lies beside the image folder, and then the folder once more.
    seen = {(above.stat().st_dev, above.stat().st_ino) for above in folder.resolve().parents}
    real, links = [""], list[str]()
    while real or links:
        here = real.pop() if real else links.pop(0)
        stat = (folder / here).stat()
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        with os.scandir(folder / here) as found:
            entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
        for entry in entries:
            name = posixpath.join(here, entry.name)
            if leads_to_folder(entry):
                (links if entry.is_symlink() else real).append(name)
            elif name.lower().endswith(IMAGE_SUFFIXES) and (entry.is_symlink() or entry.is_file()):
                yield name  # a dangling or circular link too: extract will say what is wrong with it


def _read_header(path: Path, filename_column: str) -> _Header:
    """Find the delimiter: the one that makes ``filename_column`` a column, else the one that makes most columns."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise DatasetError(f"The dataset CSV {path} {what}. Give the path of a CSV with one row per image.")
    try:
        str(path).encode()  # DuckDB takes no other
        headers = [_split_header(path, delimiter) for delimiter in ",;\t|"]
    except UnicodeEncodeError:
        raise DatasetError(f"The name {os.fsencode(path.name)!r} of the CSV is not UTF-8. Rename it.") from None
    except (OSError, csv.Error) as error:
        raise DatasetError(f"Can't read the header of {path.name}: {error}. Is it a CSV, and readable?") from None
    header = max(headers, key=lambda found: (_has(found.columns, filename_column), len(found.columns)))
    if not header.columns:
        raise DatasetError(f"{path.name} is empty. A header and one row per image are needed.")
    if any("\0" in column for column in header.columns):
        raise _not_utf8(path, "it looks like UTF-16, or like no text at all", "utf16")
    if not _has(header.columns, filename_column):
        raise DatasetError(
            f"{path.name} has no column {filename_column!r}. Its columns are: {_one_line(', '.join(header.columns))}. "
            "Name the one with the filenames (--filename-column)."
        )
    return header


def _split_header(path: Path, delimiter: str) -> _Header:
    # errors="replace": DuckDB is to say where the first byte that is not UTF-8 stands.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for blank_lines, fields in enumerate(csv.reader(file, delimiter=delimiter)):
            if fields:
                return _Header(delimiter, blank_lines, tuple(field.strip() for field in fields))
    return _Header(delimiter, 0, ())


def _load(path: Path, header: _Header, filename_column: str) -> pa.Table:
    """Read the CSV in its order, with DuckDB's types but for the filename: ``001`` is not a number."""
    name = header.columns[_find(header.columns, filename_column)]
    try:
        return _scan(path, header, "sample_size=-1, comment='', types=$types", {name: "VARCHAR"})
    except duckdb.Error as error:
        message = str(error)
    if "Error when sniffing" in message:
        # The sniffer does not say where it failed; reading everything as text stops at the row that is wrong.
        try:
            texts = {f"column{i}": "VARCHAR" for i in range(len(header.columns))}
            _scan(path, header, "auto_detect=false, columns=$types", texts)
        except duckdb.Error as error:
            message = str(error)
    raise _unreadable(path, header, message)


def _scan(path: Path, header: _Header, options: str, types: dict[str, str]) -> pa.Table:
    # The path is one file, not a pattern: `data[1].csv` would read data1.csv, a folder `subset=test` add a column.
    query = f"""SELECT * FROM read_csv($path, header=true, delim=$delimiter, quote='"', escape='"', skip=$skip,
        compression='none', hive_partitioning=false, {options})"""
    params = {"path": glob.escape(str(path)), "delimiter": header.delimiter, "skip": header.blank_lines, "types": types}
    with duckdb.connect() as con:
        return con.sql(query, params=params).to_arrow_table()


def _unreadable(path: Path, header: _Header, message: str) -> DatasetError:
    """Condense DuckDB's page of text into one line."""
    found = re.search(r"CSV Error on Line: (\d+)", message)
    line = int(found[1]) if found else 0
    where = f"line {line} (a value that spans lines counted as one)" if line > header.blank_lines + 1 else "the header"
    if "Invalid unicode" in message:
        return _not_utf8(path, f"the first wrong byte is in {where}", "latin1")
    if counts := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
        what = f"{where} has {counts[2]} fields where the header has {counts[1]}"
        return DatasetError(f"{path.name}: {what}. Correct it; {header.delimiter!r} in a value needs double quotes.")
    if "unterminated quote" in message:
        return DatasetError(f"{path.name}: {where} has a double quote that is not closed as it should be. Correct it.")
    if size := re.search(r"Maximum line size of (\d+) bytes exceeded", message):
        return DatasetError(f"{path.name}: {where} or the next is longer than {size[1]} bytes. Is a quote not closed?")
    # What is left of a failed sniffer: fields too many that are empty, which reading as text lets pass.
    what = "its rows differ in their number of fields" if "when sniffing" in message else _first_line(message)
    hint = "Look for quotes that are not closed, and for mixed line ends (dos2unix makes them one kind)."
    return DatasetError(f"{path.name} is not a CSV that DuckDB can read: {what.rstrip('.')}. {hint}")


def _not_utf8(path: Path, why: str, encoding: str) -> DatasetError:
    hint = f"iconv -f {encoding} -t utf8 {path.name} > utf8.csv"
    return DatasetError(f"{path.name} is not UTF-8: {why}. Convert it, for example: {hint}")


def _evaluate_split(con: duckdb.DuckDBPyConnection, rows: pa.Table, position: int, split: str) -> pa.ChunkedArray:
    """Evaluate the expression for every row; the result is text, in the order of the rows."""
    names = rows.column_names
    if _is_subset(split) and not _has(names, "subset"):
        example = "CASE WHEN md5_number_lower(filename) % 10 = 0 THEN 'test' ELSE 'train' END"
        what = f"The CSV has no column 'subset'. Its columns are: {_one_line(', '.join(names))}"
        raise DatasetError(f'{what}. Say how to tell train from test, for example --split "{example}".')
    if not _has(names, "filename"):
        rows = rows.append_column("filename", rows.column(position))
    row = "__row"
    while _has(names, row):
        row += "_"
    con.register("csv", rows.append_column(row, pa.arange(0, rows.num_rows)))
    try:
        # It must be one expression by itself, and in brackets too: neither `1), (2` nor `1 AS x` is both.
        split.encode()  # an argument of the command line need not be UTF-8
        duckdb.SQLExpression(split)
        values = con.sql(f"SELECT {row}, CAST((\n{split}\n) AS VARCHAR) FROM csv ORDER BY {row}").to_arrow_table()
        why = "It does not give one value for each row." if values.shape != (rows.num_rows, 2) else ""
    except (duckdb.Error, UnicodeEncodeError) as error:
        why = _first_line(str(error))
    if why:
        need = f"It must be one SQL expression over the columns of the CSV: {_one_line(', '.join(names))}."
        raise DatasetError(f"The split can't be evaluated: {_one_line(split)} -- {why} {need}")
    return values.column(1)


def _normalise(con: duckdb.DuckDBPyConnection, filenames: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """Return paths in normal form; the very same array if they are already."""
    con.register("names", _numbered(filename=filenames))
    suspicious = con.sql(f"SELECT row, filename FROM names WHERE {_SUSPICIOUS} ORDER BY row").to_arrow_table()
    if not suspicious.num_rows:
        return filenames
    pairs = zip(suspicious["row"].to_pylist(), suspicious["filename"].to_pylist(), strict=True)
    normal = pa.array([_relative(row, filename, column) for row, filename in pairs], pa.string())
    con.register("normal", pa.table({"row": suspicious["row"], "path": normal}))
    query = "SELECT coalesce(path, filename) AS filename FROM names LEFT JOIN normal USING (row) ORDER BY row"
    return con.sql(query).to_arrow_table()["filename"]


def _relative(row: int, filename: str | None, column: str) -> str:
    """Normalise one path, or say why no image can be there."""
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
        """SELECT count(*) OVER (), filename, min(row, 2) FROM images
        GROUP BY filename HAVING count(*) > 1 ORDER BY min(row) LIMIT 1"""
    ).fetchone()
    if repeated:
        n, filename, (first, second) = repeated
        what = f"{n} filename{' occurs' if n == 1 else 's occur'} more than once in the CSV; the first is {filename!r}"
        raise DatasetError(f"{what}, in rows {first} and {second}. Keep one row per image.")


def _check_split(con: duckdb.DuckDBPyConnection, split: str) -> None:
    query = "SELECT count(*), arg_min(filename, row), arg_min(subset, row) FROM images WHERE "
    missing = f"subset IS NULL OR regexp_full_match(subset, '{_BLANK}')"
    n, filename, _ = con.execute(query + missing).fetchone() or (0, "", "")
    if n:
        hint = "Give them one, for example by coalesce(..., 'train') or CASE ... ELSE 'train' END."
        what = f"The split gives no subset for {n} images, for example {filename!r}"
        raise DatasetError(f"{what}: {_one_line(split)} -- {hint}")
    similar = f"subset NOT IN ('train', 'test') AND regexp_full_match(subset, '{_BLANK}(train|test){_BLANK}', 'i')"
    n, filename, subset = con.execute(query + similar).fetchone() or (0, "", "")
    if n:
        what = f"The split gives {subset!r} ({n} images, for example {filename!r}), which differs from"
        meant = subset.strip().lower()
        raise DatasetError(f"{what} {meant!r} only by case or blanks. Correct the CSV, or --split 'lower(trim(...))'.")


def _other_columns(rows: pa.Table, ours: set[str]) -> dict[str, pa.ChunkedArray]:
    """Return every column that is not one of ours already, under a name that is not one of ours."""
    taken = {name.lower() for name in rows.column_names}
    columns = {}
    for name in rows.column_names:
        free = name
        while free.lower() in RESERVED or (free != name and free.lower() in taken):
            free = f"csv_{free}"
        taken.add(free.lower())
        if name.lower() not in ours:
            columns[free] = rows[name]
    return columns


def _is_subset(split: str) -> bool:
    return split.strip().lower() in ("subset", '"subset"')


def _has(columns: Sequence[str], name: str) -> bool:
    return name.lower() in (column.lower() for column in columns)


def _find(columns: Sequence[str], name: str) -> int:
    """Find a column as SQL does. Of several that differ only by case, DuckDB renames all but the first."""
    return [column.lower() for column in columns].index(name.lower())


def _one_line(text: str, limit: int = 1000) -> str:
    line = " ".join(text.split()).encode(errors="backslashreplace").decode()
    return line if len(line) <= limit else f"{line[:limit]}..."


def _first_line(message: str) -> str:
    """DuckDB's message without what follows it: candidates, the drawing with the caret, advice on settings."""
    return _one_line(message.strip().split("\n")[0], limit=300).rstrip(".!") + "."
