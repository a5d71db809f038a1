"""Typed rows of the catalog's tables, for small results.

Results with a row per image stay Arrow tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from duckdb import DuckDBPyConnection

from featurestore.catalog.statements import query_tuples

T = TypeVar("T")

JSON = frozenset({"parameters", "summary", "versions"})  # the columns of this type, in whatever table


class Outcome(StrEnum):
    """The outcome of a run."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    KILLED = "killed"  # its process ended without recording an outcome
    REBUILT = "rebuilt"  # known only from manifests


@dataclass(frozen=True)
class PartitionRow:
    """A row of `schema.Partition`."""

    stage: str
    variant: str
    chunk_id: int
    payload: str
    input_payload: str
    path: str
    checksum: str
    n_bytes: int
    n_images: int
    n_descriptors: int
    dim: int
    n_clipped: int | None
    pruned: bool
    origin: str
    versions: dict[str, str]
    etag: str | None = field(default=None, compare=False)  # says where the bytes are, and nothing of them


@dataclass(frozen=True)
class ModelRow:
    """A row of `schema.Model`."""

    model_id: str
    stage: str
    variant: str
    parent_id: str | None
    generation: int
    partial: bool
    path: str
    checksum: str
    n_bytes: int
    n_images: int
    summary: dict[str, Any]


@dataclass(frozen=True)
class VariantRow:
    """A row of `schema.Variant`."""

    variant: str
    stage: str
    version: int
    parameters: dict[str, Any]
    reads_variant: str
    model_id: str | None


def query_rows(
    connection: DuckDBPyConnection, kind: type[T], query: str, parameters: Mapping[str, Any] | None = None
) -> list[T]:
    """Return a query's result as rows of a dataclass or named tuple, whose fields have the names of columns.

    Columns that ``kind`` has no field for are left out.
    """
    make: Any = kind
    names, rows = query_tuples(connection, query, parameters)
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    return [
        make(*values) for values in zip(*(_values(name, columns[name]) for name in make.__match_args__), strict=True)
    ]


def query_row(
    connection: DuckDBPyConnection, kind: type[T], query: str, parameters: Mapping[str, Any] | None = None
) -> T | None:
    """Return the first row of a query's result, None if it has none; see `query_rows`."""
    return next(iter(query_rows(connection, kind, query, parameters)), None)


def _values(name: str, column: Sequence[Any]) -> Sequence[Any]:
    return [json.loads(text) for text in column] if name in JSON else column
