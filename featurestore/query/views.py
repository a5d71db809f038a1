"""The views that queries see: a copy of the catalog's tables, and the committed partitions themselves.

``docs/views.md`` describes every column; a test compares.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from featurestore.catalog import SNAPSHOT, Context, Step, attach_copy, make_plan, query_arrow, resolve
from featurestore.query.descriptor_views import make_descriptor_view, make_function
from featurestore.quoting import literal
from featurestore.rows import Layout
from featurestore.stages import ChunkStage, FitStage, Stage

# Views by name: the tables of the catalog that each needs, and its SQL. `_flow` is the current recipe.
VIEWS: dict[str, tuple[tuple[str, ...], str]] = {
    "images": (
        ("images", "dataset_columns"),
        "SELECT i.image_id, i.filename, i.subset, i.chunk_id, d.* EXCLUDE (image_id) "
        "FROM _images i LEFT JOIN _dataset_columns d ON d.image_id = i.image_id WHERE i.removed_by IS NULL",
    ),
    "descriptor_counts": (
        ("images", "results"),
        "SELECT i.image_id, i.filename, i.subset, r.stage, r.status, r.n_descriptors "
        "FROM _results r JOIN _images i ON i.image_id = r.image_id WHERE i.removed_by IS NULL",
    ),
    "failures": (
        ("images", "results"),
        "SELECT i.image_id, i.filename, i.subset, r.stage, r.status, r.error "
        "FROM _results r JOIN _flow f ON f.stage = r.stage "
        "JOIN _images i ON i.image_id = r.image_id WHERE r.status NOT IN ('ok', 'empty') AND i.removed_by IS NULL "
        "QUALIFY row_number() OVER (PARTITION BY r.image_id ORDER BY f.position) = 1",
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
PARTITION_VIEWS = {"extracted": "extract", "projected": "project", "quantized": "quantize"}
DESCRIPTOR_VIEWS = {f"{view}_descriptors": view for view in PARTITION_VIEWS}
REMOVED = "_removed"  # where images have left the dataset: their ids
MISSING = "missing"  # what `run` would do: stage, chunk_id, n_images, why
EVERY_VIEW = (*VIEWS, MISSING, *PARTITION_VIEWS, *DESCRIPTOR_VIEWS)

# Of everything else than a view that a query can name, these list the views; they are all made then.
_LISTINGS = {"show", "information_schema", "duckdb_views", "duckdb_tables", "duckdb_columns"}


def make_views(context: Context, connection: duckdb.DuckDBPyConnection, text: str, copy: Path | None) -> None:
    """Make the views and functions that ``text`` names, and then let the connection read nothing else.

    What they need of the catalog is read from ``copy``, a copy of its file that is made here if one is needed; None
    makes it in memory.
    """
    names = set(re.findall(r"\w+", text.lower()))
    if names & _LISTINGS or names == {"describe"}:
        names |= set(EVERY_VIEW)
    views = {view: definition for view, definition in VIEWS.items() if view in names}
    tables = {table for needed, _ in views.values() for table in needed}
    stages = {view: stage for view, stage in PARTITION_VIEWS.items() if _wanted(view, names)}
    with context.catalog.reading() as catalog:
        steps = resolve(catalog, context.flow)
        made = {"_flow": _flow_table(steps)}
        if MISSING in names:
            made[MISSING] = _missing_table(catalog, steps)
        files = {view: _files(context, catalog, _step(steps, stage)) for view, stage in stages.items()}
        if stages:  # partitions keep the rows of images that have left the dataset
            removed = query_arrow(catalog, "SELECT image_id FROM images WHERE removed_by IS NOT NULL")
            made |= {REMOVED: removed} if len(removed) else {}
        if tables:
            attach_copy(connection, catalog, copy)
    if tables:
        _make_tables(connection, steps, tables)
    for name, table in made.items():
        connection.register(name, table)
    for view, (_, select) in views.items():
        connection.execute(f"CREATE TEMP VIEW {view} AS {select}")
    layouts = expected_layouts(context.flow)
    for view, stage in stages.items():
        make_partition_view(connection, view, files[view], layouts[stage], without=REMOVED if REMOVED in made else None)
        make_function(connection, view, layouts[stage])
        if f"{view}_descriptors" in names:
            make_descriptor_view(connection, view, layouts[stage])
    lock_down(connection, [path for paths in files.values() for path in paths])


def _wanted(view: str, names: set[str]) -> bool:
    return not names.isdisjoint({view, f"{view}_descriptors", f"{view}_vectors"})


def _make_tables(connection: duckdb.DuckDBPyConnection, steps: Sequence[Step], tables: set[str]) -> None:
    """Give the tables of the copy their names; of the results, which are many, only the current variants'."""
    current = ", ".join(literal(step.variant) for step in steps if step.variant is not None)
    for table in sorted(tables):
        where = f" WHERE variant IN ({current})" if table == "results" else ""
        connection.execute(f"CREATE TEMP VIEW _{table} AS SELECT * FROM {SNAPSHOT}.{table}{where}")


def lock_down(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
    """Let a query read these files and nothing else: no other file, no network, and no variable of Python either."""
    connection.execute("SET parquet_metadata_cache = true")
    both = [*files, *map(glob.escape, files)]  # DuckDB asks for the pattern, and then for the file
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, both))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def make_partition_view(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    files: Sequence[str],
    layout: Layout,
    *,
    without: str | None = None,
) -> None:
    """Make a view over committed partitions: a list of files and never a glob, which one broken file would fail.

    ``without`` is a table of the ``image_id`` of rows that it passes over.
    """
    if files:
        # Nor is the store's own path one, or the place of columns: `old[1]`, `a*`, `status=ok`.
        listed = ", ".join(literal(glob.escape(file)) for file in files)
        passing = f" ANTI JOIN {without} USING (image_id)" if without else ""
        connection.execute(
            f"CREATE TEMP VIEW {view} AS SELECT * FROM read_parquet([{listed}], hive_partitioning = false){passing}"
        )
    else:
        connection.register(view, layout.schema().empty_table())


def expected_layouts(flow: Sequence[Stage]) -> dict[str, Layout]:
    """Return the columns of every chunk stage's partitions, as the recipe has them: also of those yet to be made."""
    components = {s.name: getattr(s, "n_components", 1) for s in flow if isinstance(s, FitStage)}
    layouts: dict[str, Layout] = {}
    for stage in flow:
        if isinstance(stage, ChunkStage):
            model = {"components_": np.empty((components[stage.model], 0))} if stage.model else None
            layouts[stage.name] = stage.layout(layouts.get(stage.reads), model)
    return layouts


def _files(context: Context, catalog: sa.Connection, step: Step) -> list[str]:
    found = query_arrow(
        catalog,
        "SELECT path FROM partitions WHERE stage = $stage AND variant = $variant AND NOT pruned ORDER BY chunk_id",
        {"stage": step.stage.name, "variant": step.variant},
    )
    return [str(context.root.local(name)) for name in found["path"].to_pylist()]


def _step(steps: Sequence[Step], stage: str) -> Step:
    return next(step for step in steps if step.stage.name == stage)


def _flow_table(steps: Sequence[Step]) -> pa.Table:
    columns: dict[str, tuple[pa.DataType, Callable[[Step], Any]]] = {
        "stage": (pa.string(), lambda step: step.stage.name),
        "variant": (pa.string(), lambda step: step.variant),
        "model_id": (pa.string(), lambda step: step.current_model.model_id if step.current_model else None),
    }
    table = {name: pa.array([get(step) for step in steps], kind) for name, (kind, get) in columns.items()}
    return pa.table({"position": pa.array(range(len(steps)), pa.int32()), **table})


def _missing_table(catalog: sa.Connection, steps: Sequence[Step]) -> pa.Table:
    plans = make_plan(catalog, steps)
    rows = [
        {"stage": name, "chunk_id": work.chunk_id, "n_images": work.n_images, "why": work.why}
        for name, plan in plans.items()
        for work in plan.todo
        if not isinstance(plan.step.stage, FitStage)
    ]
    schema = pa.schema(
        [("stage", pa.string()), ("chunk_id", pa.int32()), ("n_images", pa.int32()), ("why", pa.string())]
    )
    return pa.Table.from_pylist(rows, schema=schema)
