"""Tables as HTML, for notebooks. File names and cells come from other people: everything is escaped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from featurestore.formatting import cell_text

MOST_ROWS = 20  # of a list in a report
ENDS = 5  # rows that are shown of either end of a long result


class Tabular:
    """The base class of reports, which are dataclasses: a notebook shows their fields as a table."""

    def _repr_html_(self) -> str:
        return html_report(self)


def html_table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: Sequence[bool] = ()) -> str:
    """Return a table; columns of ``numbers`` are aligned to the right."""
    right = [*numbers, *[False] * (len(header) - len(numbers))]
    aligned = [' style="text-align: right"' if number else ' style="text-align: left"' for number in right]
    head = "".join(f"<th{align}>{escaped(name)}</th>" for name, align in zip(header, aligned, strict=True))
    lines = [
        "".join(f"<td{align}>{escaped(cell)}</td>" for cell, align in zip(row, aligned, strict=True)) for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_lines(lines: Sequence[str]) -> str:
    """Return lines as paragraphs."""
    return "".join(f"<p>{escaped(line)}</p>" for line in lines)


def html_report(report: Any) -> str:
    """Return the fields of a dataclass as a table, and a table for each field that lists dataclasses."""
    rows, tables = [], []
    for field in dataclasses.fields(report):
        value, name = getattr(report, field.name), field.name.removeprefix("n_").replace("_", " ")
        if isinstance(value, (list, tuple)) and value and all(map(dataclasses.is_dataclass, value)):
            tables.append(f"<p>{escaped(name)}</p>{_records(value)}")
        else:
            rows.append([name, _field_text(value)])
    return f"<p><b>{escaped(type(report).__name__)}</b></p>{html_table(['', ''], rows)}{''.join(tables)}"


def _records(records: Sequence[Any]) -> str:
    names = [field.name for field in dataclasses.fields(records[0])]
    found = ([getattr(record, name) for name in names] for record in islice(records, MOST_ROWS))
    rows = [["" if value is None else value for value in record] for record in found]
    more = len(records) - len(rows)
    return html_table(names, rows) + (f"<p>and {more:,} more</p>" if more > 0 else "")


def _field_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_field_text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        more = [f"and {len(value) - MOST_ROWS:,} more"] if len(value) > MOST_ROWS else []
        return "; ".join([*map(_field_text, value[:MOST_ROWS]), *more])
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else cell_text(value)


def escaped(value: Any) -> str:
    """Return a value as HTML text, on one line and without control characters."""
    import html  # here, since the command line does without

    return html.escape(cell_text(value))
