"""A CSV file: its header, and its cells as text. Errors are one line that says where and why."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import duckdb
import pyarrow as pa

from featurestore.errors import DatasetError
from featurestore.system import Spill
from featurestore.wording import first_line, is_hidden, one_line

_SEPARATOR = re.compile(r'\s*"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's first line


@dataclass(frozen=True)
class Header:
    """The header of a CSV. DuckDB must not guess it: it would skip odd lines, or read ``a,b`` as one column."""

    delimiter: str
    skipped: int  # lines before the header: blank ones, and Excel's ``sep=;``
    columns: tuple[str, ...]


def read_texts(con: duckdb.DuckDBPyConnection, file: Path, name: str, filename_column: str, spill: Spill) -> pa.Table:
    """Read a CSV as text, in its order.

    Args:
        con: a DuckDB connection.
        file: the CSV in UTF-8.
        name: of the dataset, for messages.
        filename_column: the delimiter is the one that gives this column.
        spill: where large tables go.

    Raises:
        DatasetError: it can't be read; the message says where.
    """
    header = _read_header(file, name, filename_column)
    check_columns(name, header.columns, filename_column)
    with _with_one_line_end(file, name, header, spill) as even:
        return _read_texts(con, even, name, header, spill)


def _read_header(file: Path, name: str, filename_column: str) -> Header:
    """Find the delimiter: the one that gives the column ``filename_column``, else the one that gives most columns."""
    try:
        with _opened(file, "replace") as text:
            named = _SEPARATOR.fullmatch(next((line for line in text if line.strip()), ""))
        headers = [_split_header(file, d, named is not None) for d in (named[1] if named else ",;\t|")]
    except (OSError, csv.Error, TypeError) as error:  # TypeError: a character that can't be a delimiter
        raise DatasetError(f"Can't read the header of {name}: {error}. Is it a CSV, and readable?") from None
    header = max(headers, key=lambda found: (has(found.columns, filename_column), len(found.columns)))
    if not header.columns:
        raise DatasetError(f"{name} is empty. A header and one row per image are needed.")
    if any("\0" in column for column in header.columns):
        raise DatasetError(f"{name} is not text: its header has a NUL character. Give a CSV in UTF-8.")
    return header


def _opened(file: Path, errors: str) -> TextIO:
    return file.open(encoding="utf-8-sig", errors=errors, newline="")


def _split_header(file: Path, delimiter: str, is_named: bool) -> Header:
    # errors="replace": DuckDB reports the position of the first byte that is not UTF-8.
    with _opened(file, "replace") as text:
        for skipped, fields in enumerate(csv.reader(text, delimiter=delimiter)):
            if fields and not is_named:
                return Header(delimiter, skipped, tuple(field.strip() for field in fields))
            is_named = is_named and not fields  # the line that names the delimiter is skipped too
    return Header(delimiter, 0, ())


@contextmanager
def _with_one_line_end(file: Path, name: str, header: Header, spill: Spill) -> Iterator[Path]:
    """Yield the file, or a copy with LF if it mixes line ends: DuckDB refuses mixed ones."""
    if not _has_mixed_line_ends(file):
        yield file
        return
    with spill.file() as copy:
        with _opened(file, "surrogateescape") as text:
            rows = csv.reader(text, delimiter=header.delimiter, strict=True)
            with copy.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out:
                try:
                    csv.writer(out, delimiter=header.delimiter, lineterminator="\n").writerows(rows)
                except csv.Error as error:
                    raise DatasetError(
                        f"{name}: line {rows.line_num} is not a line of a CSV: {error}. Correct it; look for quotes "
                        "that are not closed."
                    ) from None
        yield copy


def _has_mixed_line_ends(file: Path) -> bool:
    """Return whether a file has more than one of LF, CRLF and CR, even in quotes, where a copy does no harm."""
    pairs = returns = feeds = 0
    with file.open("rb") as data:
        last = b""
        while block := data.read(1 << 20):
            pairs += block.count(b"\r\n") + (last == b"\r" and block[:1] == b"\n")
            returns += block.count(b"\r")
            feeds += block.count(b"\n")
            last = block[-1:]
    return (pairs > 0) + (returns > pairs) + (feeds > pairs) > 1


def _read_texts(con: duckdb.DuckDBPyConnection, file: Path, name: str, header: Header, spill: Spill) -> pa.Table:
    try:
        return _scan(con, file, header, "sample_size=-1, comment='', all_varchar=true", spill)
    except duckdb.Error as error:
        message = str(error)
    if "Error when sniffing" in message:
        # The sniffer does not say where it failed; reading everything as text stops at the wrong row.
        try:
            texts = {f"column{i}": "VARCHAR" for i in range(len(header.columns))}
            _scan(con, file, header, "auto_detect=false, columns=$types", spill, types=texts)
        except duckdb.Error as error:
            message = str(error)
    raise _unreadable(name, header, message.replace(str(file), name))


def _scan(
    con: duckdb.DuckDBPyConnection,
    file: Path,
    header: Header,
    options: str,
    spill: Spill,
    **parameters: dict[str, str],
) -> pa.Table:
    # The path is not a pattern: `data[1].csv` would read data1.csv, and a folder `subset=test` would add a column.
    query = f"""SELECT * FROM read_csv($path, header=true, delim=$delimiter, quote='"', escape='"', skip=$skip,
        compression='none', hive_partitioning=false, {options})"""
    params = {"path": glob.escape(str(file)), "delimiter": header.delimiter, "skip": header.skipped}
    with spill.bounding(con, columns=len(header.columns)):
        return spill.table(con.sql(query, params=params | parameters))


def _unreadable(name: str, header: Header, message: str) -> DatasetError:
    """Condense DuckDB's long message into one line."""
    found = re.search(r"CSV Error on Line: (\d+)", message)
    line = int(found[1]) if found else 0
    where = f"line {line} (a value that spans lines counted as one)" if line > header.skipped + 1 else "the header"
    if "Invalid unicode" in message:
        return not_utf8(name, f"the first wrong byte is in {where}", "latin1")
    if counts := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
        what = f"{where} has {counts[2]} fields where the header has {counts[1]}"
        return DatasetError(f"{name}: {what}. Correct it; {header.delimiter!r} in a value needs double quotes.")
    if "unterminated quote" in message:
        return DatasetError(f"{name}: {where} has a double quote that is not closed as it should be. Correct it.")
    if size := re.search(r"Maximum line size of (\d+) bytes exceeded", message):
        return DatasetError(f"{name}: {where} or the next is longer than {size[1]} bytes. Is a quote not closed?")
    # What is left of a failed sniffer: fields too many that are empty, which reading as text lets pass.
    what = "its rows differ in their number of fields" if "when sniffing" in message else first_line(message, limit=300)
    return DatasetError(f"{name} is not a CSV that DuckDB can read: {what}. Look for quotes that are not closed.")


def not_utf8(name: str, why: str, encoding: str) -> DatasetError:
    """Return the error for a file that is not UTF-8, with the way to convert it."""
    hint = f"iconv -f {encoding} -t utf8 {name} > utf8.csv"
    return DatasetError(f"{name} is not UTF-8: {why}. Convert it, for example: {hint}")


def check_columns(name: str, columns: Sequence[str], filename_column: str) -> None:
    """Refuse column names with invisible characters, and a header without ``filename_column``.

    Raises:
        DatasetError: names the column, with invisible characters escaped.
    """
    for position, column in enumerate(columns, 1):
        if column and (is_hidden(column[0]) or is_hidden(column[-1])):
            raise DatasetError(
                f"{name}: the name of column {position} begins or ends with a character that can't be seen: "
                f"'{one_line(column)}'. Remove that character from the header."
            )
    if not has(columns, filename_column):
        raise DatasetError(
            f"{name} has no column {filename_column!r}. Its columns are: {one_line(', '.join(columns))}. "
            "Name the one with the filenames (--filename-column)."
        )


def nested_filenames(column: str, what: str) -> DatasetError:
    """Return the error for filenames that are lists or objects."""
    return DatasetError(
        f"The column {column!r} holds {what} and not paths. Write one path in each row, or name another column "
        "(--filename-column)."
    )


def has(columns: Sequence[str], name: str) -> bool:
    """Return whether a column has this name, in any case."""
    return name.lower() in (column.lower() for column in columns)


def find(columns: Sequence[str], name: str) -> int:
    """Return the position of a column, found as SQL does. DuckDB renames later columns that differ only by case."""
    return [column.lower() for column in columns].index(name.lower())
