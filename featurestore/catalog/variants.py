"""The recorded variants."""

from __future__ import annotations

from duckdb import DuckDBPyConnection

from featurestore.catalog.statements import query_pairs
from featurestore.catalog.table_rows import VariantRow, query_row, query_rows


def find_variant(connection: DuckDBPyConnection, variant: str) -> VariantRow | None:
    """Return a recorded variant, or None."""
    return query_row(connection, VariantRow, "SELECT * FROM variants WHERE variant = $variant", {"variant": variant})


def all_variants(connection: DuckDBPyConnection) -> dict[str, VariantRow]:
    """Return all recorded variants by name."""
    return {row.variant: row for row in query_rows(connection, VariantRow, "SELECT * FROM variants")}


def models_by_variant(connection: DuckDBPyConnection) -> dict[str, str]:
    """Return the model of each variant that uses one, by variant."""
    return query_pairs(connection, "SELECT variant, model_id FROM variants WHERE model_id IS NOT NULL")
