"""A dataset CSV as it is written: its header, and its cells as text. What can't be read is one line that says why."""

from __future__ import annotations

import csv
import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from featurestore.errors import DatasetError
from featurestore.spill import Spill


@dataclass(frozen=True)
class Header:
    """How the CSV begins. DuckDB must not guess it: it would skip odd lines, or take ``a,b`` for one column."""

    delimiter: str
    blank_lines: int
    columns: tuple[str, ...]


def read_header(path: Path, filename_column: str) -> Header:
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
    header = max(headers, key=lambda found: (has(found.columns, filename_column), len(found.columns)))
    if not header.columns:
        raise DatasetError(f"{path.name} is empty. A header and one row per image are needed.")
    if any("\0" in column for column in header.columns):
        raise _not_utf8(path, "it looks like UTF-16, or like no text at all", "utf16")
    if not has(header.columns, filename_column):
        raise DatasetError(
            f"{path.name} has no column {filename_column!r}. Its columns are: {one_line(', '.join(header.columns))}. "
            "Name the one with the filenames (--filename-column)."
        )
    return header


def _split_header(path: Path, delimiter: str) -> Header:
    # errors="replace": DuckDB is to say where the first byte that is not UTF-8 stands.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for blank_lines, fields in enumerate(csv.reader(file, delimiter=delimiter)):
            if fields:
                return Header(delimiter, blank_lines, tuple(field.strip() for field in fields))
    return Header(delimiter, 0, ())


def read_texts(path: Path, header: Header, spill: Spill) -> pa.Table:
    """Read the CSV as text, in its order."""
    try:
        return _scan(path, header, "sample_size=-1, comment='', all_varchar=true", spill)
    except duckdb.Error as error:
        message = str(error)
    if "Error when sniffing" in message:
        # The sniffer does not say where it failed; reading everything as text stops at the row that is wrong.
        try:
            texts = {f"column{i}": "VARCHAR" for i in range(len(header.columns))}
            _scan(path, header, "auto_detect=false, columns=$types", spill, types=texts)
        except duckdb.Error as error:
            message = str(error)
    raise _unreadable(path, header, message)


def _scan(path: Path, header: Header, options: str, spill: Spill, **parameters: dict[str, str]) -> pa.Table:
    # The path is one file, not a pattern: `data[1].csv` would read data1.csv, a folder `subset=test` add a column.
    query = f"""SELECT * FROM read_csv($path, header=true, delim=$delimiter, quote='"', escape='"', skip=$skip,
        compression='none', hive_partitioning=false, {options})"""
    params = {"path": glob.escape(str(path)), "delimiter": header.delimiter, "skip": header.blank_lines}
    with duckdb.connect() as con, spill.bounding(con, columns=len(header.columns)):
        return spill.table(con.sql(query, params=params | parameters))


def _unreadable(path: Path, header: Header, message: str) -> DatasetError:
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
    what = "its rows differ in their number of fields" if "when sniffing" in message else first_line(message)
    hint = "Look for quotes that are not closed, and for mixed line ends (dos2unix makes them one kind)."
    return DatasetError(f"{path.name} is not a CSV that DuckDB can read: {what.rstrip('.')}. {hint}")


def _not_utf8(path: Path, why: str, encoding: str) -> DatasetError:
    hint = f"iconv -f {encoding} -t utf8 {path.name} > utf8.csv"
    return DatasetError(f"{path.name} is not UTF-8: {why}. Convert it, for example: {hint}")


def has(columns: Sequence[str], name: str) -> bool:
    """Tell whether there is a column of this name, in any case."""
    return name.lower() in (column.lower() for column in columns)


def find(columns: Sequence[str], name: str) -> int:
    """Find a column as SQL does. Of several that differ only by case, DuckDB renames all but the first."""
    return [column.lower() for column in columns].index(name.lower())


def one_line(text: str, limit: int = 1000) -> str:
    """Return a text in one line that can be printed and is not too long."""
    line = " ".join(text.split()).encode(errors="backslashreplace").decode()
    return line if len(line) <= limit else f"{line[:limit]}..."


def first_line(message: str) -> str:
    """DuckDB's message without what follows it: candidates, the drawing with the caret, advice on settings."""
    return one_line(message.strip().split("\n")[0], limit=300).rstrip(".!") + "."
