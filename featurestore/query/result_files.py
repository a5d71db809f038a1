"""Results as files and text: CSV, JSON, Parquet and Arrow, a batch at a time.

In CSV and JSON, a BLOB is base64, and times and intervals are ISO 8601, UTC if they have no zone. In CSV, lists and
structs are JSON, and NULL is empty. In JSON, NULL is null, and NaN, infinity and decimals no float equals are text.
"""

from __future__ import annotations

import base64
import csv
import datetime
import decimal
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from featurestore.errors import OutputError, QueryError
from featurestore.query.sql import Answer
from featurestore.query.table_files import write_arrow, write_parquet
from featurestore.system import located, output_at, refuse_output

GROUP_BYTES = 64 << 20  # in a row group of a Parquet file
GROUP_ROWS = 1_000_000


def write_csv(answer: Answer, file: IO[bytes]) -> None:
    """Write an answer as CSV with a header: UTF-8, text quoted, lines that end in a line feed."""
    from pyarrow.csv import CSVWriter, WriteOptions

    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(answer.schema.names)
    file.write(header.getvalue().encode())
    schema = pa.schema([(field.name, _csv_type(field.type)) for field in answer.schema])
    options = WriteOptions(include_header=False, quoting_style="needed")
    with CSVWriter(file, schema, write_options=options) as writer:
        for batch in answer.batches:
            arrays = [_csv_array(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _csv_type(kind: pa.DataType) -> pa.DataType:
    text = pa.types.is_nested(kind) or pa.types.is_decimal(kind) or pa.types.is_interval(kind)
    return pa.string() if text or _is_binary(kind) or pa.types.is_dictionary(kind) else kind


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _csv_array(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    values = column.to_pylist(maps_as_pydicts="lossy")
    return pa.array([None if value is None else _as_text(value) for value in values], pa.string())


def _as_text(value: Any) -> str:
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    plain = as_json_value(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def write_json(answer: Answer, file: IO[bytes]) -> None:
    """Write an answer as one JSON list of objects, an object to a line."""
    before = b"[\n"
    for batch in answer.batches:
        for row in batch.to_pylist(maps_as_pydicts="lossy"):
            text = json.dumps({name: as_json_value(value) for name, value in row.items()}, ensure_ascii=False)
            file.write(before + text.encode("utf-8", errors="surrogatepass"))
            before = b",\n"
    file.write(b"[]\n" if before == b"[\n" else b"\n]\n")


def as_json_value(value: Any) -> Any:
    """Return a value as JSON."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, decimal.Decimal):
        return _as_number(value)
    if isinstance(value, dict):
        return {_as_text(name): as_json_value(item) for name, item in value.items()}
    if isinstance(value, pa.MonthDayNano):
        seconds = decimal.Decimal(value.nanoseconds).scaleb(-9).normalize()
        return f"P{value.months}M{value.days}DT{seconds:f}S"
    if isinstance(value, (list, tuple)):
        return [as_json_value(item) for item in value]
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _as_number(value: decimal.Decimal) -> int | float | str:
    """Return the number if a float holds it exactly, else its text: readers of JSON parse numbers as floats."""
    if value == value.to_integral_value():
        return int(value)
    near = float(value)
    return near if decimal.Decimal(repr(near)) == value else f"{value:f}"


def _write_parquet(answer: Answer, file: IO[bytes]) -> None:
    write_parquet(_gathered(answer), answer.schema, file)


def _write_arrow(answer: Answer, file: IO[bytes]) -> None:
    write_arrow(_gathered(answer), answer.schema, file)


def _gathered(answer: Answer) -> Iterator[pa.Table]:
    """Yield the batches merged to tables of the size of a row group: batches of BLOBs have few rows."""
    held: list[pa.RecordBatch] = []
    n_bytes = n_rows = 0
    for batch in answer.batches:
        held.append(batch)
        n_bytes, n_rows = n_bytes + batch.nbytes, n_rows + len(batch)
        if n_bytes >= GROUP_BYTES or n_rows >= GROUP_ROWS:
            yield pa.Table.from_batches(held, answer.schema)
            held, n_bytes, n_rows = [], 0, 0
    if held:
        yield pa.Table.from_batches(held, answer.schema)


RESULT_FORMATS: dict[str, Callable[[Answer, IO[bytes]], None]] = {
    ".csv": write_csv,
    ".json": write_json,
    ".parquet": _write_parquet,
    ".arrow": _write_arrow,
}


def write_result(answer: Answer, path: Path, *, store: Path | None = None, force: bool = False) -> int:
    """Write an answer to a file, which appears when it is complete; return the number of rows.

    Args:
        answer: to a query.
        path: the file; its suffix chooses the format.
        store: the folder of the store, in which nothing may be written.
        force: replace a file that exists.

    Raises:
        UnusablePath: the system can't open such a path.
        OutputError: the name ends in none of `RESULT_FORMATS`, the file exists or lies in the store, or its folder does
            not exist or can't be written.
        QueryError: the format does not support a type.
        NotEnoughSpace: the disk is full.
    """
    if path.suffix.lower() not in RESULT_FORMATS:
        raise OutputError(
            f"{path.name} ends in none of {', '.join(RESULT_FORMATS)}, which determine the format; name it so"
        )
    path = located(path, "an answer")
    refuse_output(path, store, force=force)
    counted, counts = _counting(answer)
    with _explaining(path), output_at(path) as temporary, temporary.open("wb") as file:
        RESULT_FORMATS[path.suffix.lower()](counted, file)
    return sum(counts)


def _counting(answer: Answer) -> tuple[Answer, list[int]]:
    counts: list[int] = []

    def batches() -> Iterable[pa.RecordBatch]:
        for batch in answer.batches:
            counts.append(len(batch))
            yield batch

    return Answer(answer.schema, iter(batches())), counts


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())
        raise QueryError(f"{path.suffix} can't hold a column of the answer ({reason}); CAST it to VARCHAR") from error
