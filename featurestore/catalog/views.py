"""The views of the catalog that users query, over a copy of its tables.

``docs/views.md`` describes every column; a test compares.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb

from featurestore.catalog.snapshot import SNAPSHOT
from featurestore.catalog.statements import insert_rows
from featurestore.catalog.steps import Step
from featurestore.quoting import identifier, literal
from featurestore.rows import USABLE_SQL
from featurestore.stages import ChunkStage

FOUND_PAIRS = "_found_pairs"  # a table that has to be there for the view `duplicates`

# Views by name: the catalog's tables that each one reads, and its SQL. `_flow` is the current
# recipe, and `{stages}` a column for each of its chunk stages.
IMAGES = (
    "SELECT i.image_id, i.filename, i.subset, i.chunk_id, d.* EXCLUDE (image_id) "
    "FROM {}images i LEFT JOIN {}dataset_columns d ON d.image_id = i.image_id WHERE i.removed_by IS NULL"
)
CATALOG_VIEWS: dict[str, tuple[tuple[str, ...], str]] = {
    "images": (("images", "dataset_columns"), IMAGES.format("_", "_")),
    "descriptor_counts": (
        ("images", "results"),
        "SELECT i.image_id, i.filename, i.subset, r.stage, r.status, r.n_descriptors "
        "FROM _results r JOIN _images i ON i.image_id = r.image_id WHERE i.removed_by IS NULL",
    ),
    "image_counts": (
        ("images", "results"),
        "SELECT i.image_id, i.filename, i.subset{stages} FROM _images i "
        "LEFT JOIN _results r ON r.image_id = i.image_id WHERE i.removed_by IS NULL "
        "GROUP BY i.image_id, i.filename, i.subset",
    ),
    "failures": (
        ("images", "results"),
        "SELECT i.image_id, i.filename, i.subset, r.stage, r.status, r.error "
        "FROM _results r JOIN _flow f ON f.stage = r.stage "
        f"JOIN _images i ON i.image_id = r.image_id WHERE r.status NOT IN {USABLE_SQL} AND i.removed_by IS NULL "
        "QUALIFY row_number() OVER (PARTITION BY r.image_id ORDER BY f.position) = 1",
    ),
    "duplicates": (
        ("images",),
        "SELECT p.group_id, p.query_id, q.filename AS query, p.ref_id, r.filename AS ref, p.inliers, p.score, "
        "q.subset AS query_subset, r.subset AS ref_subset, q.subset IS DISTINCT FROM r.subset AS across_subsets "
        f"FROM {FOUND_PAIRS} p JOIN _images q ON q.image_id = p.query_id JOIN _images r ON r.image_id = p.ref_id "
        "WHERE q.removed_by IS NULL AND r.removed_by IS NULL",
    ),
    "runs": (("runs",), "SELECT * FROM _runs"),
    "partitions": (
        ("partitions",),
        "SELECT p.*, EXISTS (SELECT 1 FROM _flow f WHERE f.stage = p.stage AND f.variant = p.variant) AS current "
        "FROM _partitions p",
    ),
    "models": (
        ("models",),
        "SELECT m.*, EXISTS (SELECT 1 FROM _flow f WHERE f.model_id = m.model_id) AS current FROM _models m",
    ),
    "training_images": (
        ("images", "training_images"),
        "SELECT t.model_id, t.image_id, i.filename, CASE WHEN i.removed_by IS NULL THEN i.subset END AS subset "
        "FROM _training_images t JOIN _images i ON i.image_id = t.image_id",
    ),
    "removed_images": (
        ("images", "dataset_columns"),
        "SELECT i.image_id, i.filename, i.subset, i.chunk_id, i.removed_by AS ingest_id, d.* EXCLUDE (image_id) "
        "FROM _images i LEFT JOIN _dataset_columns d ON d.image_id = i.image_id WHERE i.removed_by IS NOT NULL",
    ),
    "chunks": (("chunks",), "SELECT * FROM _chunks"),
    "variants": (("variants",), "SELECT * FROM _variants"),
}


def make_catalog_views(connection: duckdb.DuckDBPyConnection, views: Collection[str], steps: Sequence[Step]) -> None:
    """Create some of `CATALOG_VIEWS`.

    Args:
        connection: with a copy of the catalog attached, see `attach_copy`, and `FOUND_PAIRS` for ``duplicates``.
        views: names.
        steps: of the recipe.
    """
    _make_flow(connection, steps)
    _make_tables(connection, steps, {table for view in views for table in CATALOG_VIEWS[view][0]})
    chunk_stages = [step.stage.name for step in steps if isinstance(step.stage, ChunkStage)]
    counts = (f"max(r.n_descriptors) FILTER (r.stage = {literal(n)}) AS {identifier(n)}" for n in chunk_stages)
    stages = "".join(f", {count}" for count in counts)
    for view in views:
        connection.execute(f"CREATE TEMP VIEW {view} AS {CATALOG_VIEWS[view][1].replace('{stages}', stages)}")


def view_of_images(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """Return what the view `images` shows, of the catalog that ``connection`` has open: not of a copy."""
    return connection.sql(IMAGES.format("", ""))


def _make_tables(connection: duckdb.DuckDBPyConnection, steps: Sequence[Step], tables: set[str]) -> None:
    """Create a view for each table of the copy; of the results, which are many, only those of current variants."""
    current = ", ".join(literal(step.variant) for step in steps if step.variant is not None)
    for table in sorted(tables):
        where = f" WHERE variant IN ({current})" if table == "results" else ""
        connection.execute(f"CREATE TEMP VIEW _{table} AS SELECT * FROM {SNAPSHOT}.{table}{where}")


def _make_flow(connection: duckdb.DuckDBPyConnection, steps: Sequence[Step]) -> None:
    """Create the table of the stages, without Arrow: to convert Python values, it would import pandas."""
    connection.execute("CREATE TEMP TABLE _flow (position INTEGER, stage VARCHAR, variant VARCHAR, model_id VARCHAR)")
    rows = []
    for position, step in enumerate(steps):
        model_id = step.current_model.model_id if step.current_model else None
        rows.append({"position": position, "stage": step.stage.name, "variant": step.variant, "model_id": model_id})
    insert_rows(connection, "_flow", rows)
