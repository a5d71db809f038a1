"""The dataset file: its format and its rows.

A CSV has no types, so its cells are text (`csv_file`). Parquet and JSON keep their types; nested values become JSON
text. Any format may be compressed with gzip or zstd. The content identifies Parquet and the compression, the name
identifies JSON, and every other file is read as a CSV.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.dataset.csv_file import check_columns, find, has, nested_filenames, not_utf8, read_texts
from featurestore.dataset.parquet import read_parquet, read_pattern, with_filenames
from featurestore.errors import DatasetError
from featurestore.quoting import identifier
from featurestore.system import Spill, is_file, status_of
from featurestore.wording import first_line, one_line

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_PARQUET = b"PAR1"
_SHEET = "Save the sheet as CSV UTF-8, and give that file."
_OTHERS = {
    b"PK\x03\x04": ("a zip file, as workbooks of Excel (.xlsx) and LibreOffice (.ods) are", _SHEET),
    b"\xd0\xcf\x11\xe0": ("an old workbook of Excel (.xls)", _SHEET),
    b"ARROW1": ("an Arrow (Feather) file", "Write the table as Parquet, and give that file."),
    b"BZh": ("compressed with bzip2", "Decompress it, or compress it with gzip or zstd."),
    b"\xfd7zXZ": ("compressed with xz", "Decompress it, or compress it with gzip or zstd."),
}
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
# Which of the first four bytes are NUL, in ASCII text without a byte order mark.
_NULS = {"0111": "UTF-32LE", "1110": "UTF-32BE", "0101": "UTF-16LE", "1010": "UTF-16BE"}
_NESTED = pa.array(["{", "["])  # the first characters of JSON's objects and lists


def read_file(con: duckdb.DuckDBPyConnection, path: Path, filename_column: str, spill: Spill) -> tuple[pa.Table, bool]:
    """Read a dataset file.

    Args:
        con: a DuckDB connection.
        path: one file, or a pattern of Parquet files; its folders are not partitions.
        filename_column: one of its columns.
        spill: where large tables go.

    Returns:
        Its rows, in order, and whether its columns have types; if not, they are all text.

    Raises:
        DatasetError: the file can't be read, or has no such column.
        UnreadableFile: the system does not say whether there is a file.
    """
    if glob.has_magic(str(path)) and status_of(path) is None:
        rows = read_pattern(con, path, filename_column, spill)
        check_columns(path.name, rows.column_names, filename_column)
        return rows, True
    if not is_file(path):
        what = "is not a file" if status_of(path) is not None else "does not exist"
        raise DatasetError(f"The dataset {path} {what}. Give the path of a CSV with one row per image.")
    try:
        str(path).encode()  # DuckDB takes no other
    except UnicodeEncodeError:
        raise DatasetError(f"The name {os.fsencode(path.name)!r} of the dataset is not UTF-8. Rename it.") from None
    name = path.name
    with _plain(path, spill) as file:
        kind = _kind(file, name)
        if kind == "csv":
            return read_texts(con, file, name, filename_column, spill), False
        try:
            if kind == "parquet":
                rows = read_parquet(con, file, spill, filename_column=filename_column)
                rows = with_filenames(rows, filename_column)
            else:
                rows = _read_json(con, file, name, filename_column, spill)
        except duckdb.Error as error:
            why = first_line(str(error).replace(str(file), name), limit=300)
            raise DatasetError(f"{name} can't be read as {kind}: {why}. Is the file whole?") from None
    check_columns(name, rows.column_names, filename_column)
    return rows, True


@contextmanager
def _plain(path: Path, spill: Spill) -> Iterator[Path]:
    """Yield the file, or a decompressed copy."""
    compression = next((how for magic, how in _COMPRESSIONS.items() if _head(path).startswith(magic)), None)
    if compression is None:
        yield path
        return
    with spill.file() as copy:
        with copy.open("wb") as out:
            blocks = _decompressed(path, compression)
            out.writelines(blocks)
        yield copy


def _decompressed(path: Path, compression: str) -> Iterator[bytes]:
    try:
        with pa.input_stream(str(path), compression=compression) as data:
            while block := data.read(1 << 20):
                yield block
    except (OSError, pa.ArrowException) as error:
        why = first_line(error, limit=300)
        raise DatasetError(f"{path.name} can't be decompressed ({compression}): {why}. Is the file whole?") from None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise DatasetError(f"Can't read the dataset {path.name}: {error.strerror}. Make it readable.") from None


def _kind(file: Path, name: str) -> str:
    """Return ``csv``, ``json`` or ``parquet``; refuse other formats by their names."""
    head = _head(file)
    for magic, (what, hint) in _OTHERS.items():
        if head.startswith(magic):
            raise DatasetError(f"{name} is {what}. {hint}")
    nuls = "".join(str(int(byte == 0)) for byte in head[:4])
    encoding = next((found for mark, found in _MARKS.items() if head.startswith(mark)), _NULS.get(nuls))
    if encoding is not None:
        raise not_utf8(name, f"it is {encoding}", encoding.lower())
    plain_name = name.lower().removesuffix(".gz").removesuffix(".zst")
    if head.startswith(_PARQUET):
        return "parquet"
    if plain_name.endswith((".parquet", ".pq")):
        raise DatasetError(f"{name} is not a Parquet file: it does not begin like one. Give it the right extension.")
    return "json" if plain_name.endswith((".json", ".jsonl", ".ndjson")) else "csv"


def _read_json(con: duckdb.DuckDBPyConnection, file: Path, name: str, filename_column: str, spill: Spill) -> pa.Table:
    found = con.sql(
        """FROM read_json($path, format='auto', records=true, maximum_depth=1, sample_size=-1,
            map_inference_threshold=-1, field_appearance_threshold=0, compression='none',
            hive_partitioning=false)""",
        params={"path": glob.escape(str(file))},
    )
    # Do not let DuckDB guess: it reads objects of many keys as maps, and words as dates, UUIDs and booleans, and
    # loses digits of numbers.
    with spill.bounding(con, columns=len(found.columns)):
        written = spill.table(
            found.project(", ".join(f"CAST({identifier(n)} AS VARCHAR) AS {identifier(n)}" for n in found.columns))
        )
        _check_rows(written, name, filename_column)
        texts = spill.table(
            found.project(", ".join(f"{identifier(n)} ->> '$' AS {identifier(n)}" for n in found.columns))
        )
    columns = [_typed(*pair) for pair in zip(written.columns, texts.columns, strict=True)]
    return pa.table(columns, names=texts.column_names)


def _check_rows(written: pa.Table, name: str, filename_column: str) -> None:
    """Refuse JSON whose filenames are lists or objects, as they are where one object holds all images.

    Raises:
        DatasetError: says how to write a row for each image.
    """
    is_there = has(written.column_names, filename_column)
    asked = [written.column(find(written.column_names, filename_column))] if is_there else written.columns
    nested = [column.filter(pc.is_in(pc.utf8_slice_codeunits(column, 0, 1), _NESTED)) for column in asked]
    if len(written) == 1 and all(map(len, nested)):
        raise DatasetError(
            f"{name} holds one object for all images and not one for each. Write a row for each image, in pandas with "
            "to_json(..., orient='records')."
        )
    if is_there and len(nested[0]):
        raise nested_filenames(filename_column, f"lists or objects, for example {one_line(nested[0][0].as_py(), 50)},")


def _typed(written: pa.ChunkedArray, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a JSON column with its type: BOOLEAN or a number if all values are, else text."""
    first = set(pc.unique(pc.utf8_slice_codeunits(written, 0, 1)).to_pylist()) - {None}
    if first and first <= {"t", "f"}:
        return pc.equal(texts, "true")
    if not first or not first <= set("-0123456789"):
        return texts
    is_whole = pc.match_substring_regex(texts, "^-?[0-9]+$")
    try:
        whole = pc.cast(pc.if_else(is_whole, texts, None), pa.int64())
        if pc.all(is_whole).as_py():
            return whole
        pc.cast(whole, pa.float64())
    except pa.ArrowInvalid:  # integers beyond 64 bits, or, beside fractions, beyond the exact ones of float64
        return texts
    numbers = pc.cast(texts, pa.float64())
    return numbers if pc.all(pc.is_finite(numbers)).as_py() else texts
