"""SQL over the store: views on a copy in memory, so that no question can hold up a run or change anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from featurestore.catalog import arrow
from featurestore.context import Context
from featurestore.errors import MissingDependency, QueryError
from featurestore.partition import Layout
from featurestore.plan import Step, make_plan, resolve
from featurestore.stages import ChunkStage, FitStage

if TYPE_CHECKING:
    import pandas as pd

# Views by name: the tables of the catalog that each needs, and its SQL. `_flow` is the current recipe.
VIEWS: dict[str, tuple[tuple[str, ...], str]] = {
    "images": (
        ("images", "dataset_columns"),
        "SELECT i.image_id, i.filename, i.subset, i.chunk_id, d.* EXCLUDE (image_id) "
        "FROM _images i LEFT JOIN _dataset_columns d ON d.image_id = i.image_id",
    ),
    "descriptor_counts": (
        ("images", "results"),
        "SELECT i.image_id, i.filename, i.subset, r.stage, r.status, r.n_descriptors "
        "FROM _results r SEMI JOIN _flow f ON f.stage = r.stage AND f.variant = r.variant "
        "JOIN _images i ON i.image_id = r.image_id",
    ),
    "failures": (
        ("images", "results"),
        "SELECT i.image_id, i.filename, i.subset, r.stage, r.status, r.error "
        "FROM _results r JOIN _flow f ON f.stage = r.stage AND f.variant = r.variant "
        "JOIN _images i ON i.image_id = r.image_id WHERE r.status NOT IN ('ok', 'empty') "
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
        "SELECT t.model_id, t.image_id, i.filename, i.subset "
        "FROM _training_images t JOIN _images i ON i.image_id = t.image_id",
    ),
    "chunks": (("chunks",), "SELECT * FROM _chunks"),
    "variants": (("variants",), "SELECT * FROM _variants"),
}
PARTITION_VIEWS = {"extracted": "extract", "projected": "project", "quantized": "quantize"}
MISSING = "missing"  # what `run` would do: stage, chunk_id, n_images, why


@dataclass(frozen=True)
class QueryResult:
    """The answer to a query, in whichever form is wanted."""

    table: pa.Table

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.table.column_names)

    def arrow(self) -> pa.Table:
        """Return the answer as an Arrow table."""
        return self.table

    def df(self) -> pd.DataFrame:
        """Return the answer as a pandas data frame."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def pl(self) -> Any:
        """Return the answer as a polars data frame.

        Raises:
            MissingDependency: polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise MissingDependency("polars is not installed; pip install 'featurestore[polars]'") from error
        return polars.from_arrow(self.table)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the answer as a list of tuples."""
        columns = [column.to_pylist() for column in self.table.columns]
        return list(zip(*columns, strict=True))


def sql(context: Context, query: str) -> QueryResult:
    """Answer a question about the store.

    Raises:
        QueryError: it is not a question, or DuckDB refused it.
    """
    _refuse_statements(query)
    with asking(context, query) as connection:
        try:
            return QueryResult(connection.sql(query).to_arrow_table())
        except duckdb.Error as error:
            raise QueryError(explain(error, [*VIEWS, *PARTITION_VIEWS, MISSING])) from error


@contextmanager
def asking(context: Context, text: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection of its own, in memory and locked down, with those views that ``text`` names."""
    with duckdb.connect() as connection:
        _make_views(context, connection, set(re.findall(r"\w+", text.lower())))
        yield connection


def explain(error: duckdb.Error, views: Sequence[str] = ()) -> str:
    """Return what DuckDB says in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    about = lines[0] if lines else type(error).__name__
    hint = next((line for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))), "")
    end = f"; the views are {', '.join(views)}" if views and about.startswith("Catalog Error: Table") else ""
    return f"{about}{'. ' + hint if hint else ''}{end}"


def _refuse_statements(query: str) -> None:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise QueryError(explain(error)) from error
    if len(statements) != 1:
        raise QueryError(f"sql takes one query, and this is {len(statements)}; ask them one after the other")
    kind = statements[0].type
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise QueryError(f"sql only answers questions, and this is {kind.name}; begin with SELECT")


def _make_views(context: Context, connection: duckdb.DuckDBPyConnection, names: set[str]) -> None:
    views = {view: definition for view, definition in VIEWS.items() if view in names}
    tables = {table for needed, _ in views.values() for table in needed}
    stages = {view: stage for view, stage in PARTITION_VIEWS.items() if view in names}
    with context.catalog.reading() as catalog:
        steps = resolve(catalog, context.flow)
        copies = {f"_{table}": arrow(catalog, f"SELECT * FROM {table}") for table in sorted(tables)}
        copies["_flow"] = _flow_table(steps)
        if MISSING in names:
            copies[MISSING] = _missing_table(catalog, steps)
        files = {view: _files(context, catalog, _step(steps, stage)) for view, stage in stages.items()}
    for name, table in copies.items():
        connection.register(name, table)
    for view, (_, select) in views.items():
        connection.execute(f"CREATE TEMP VIEW {view} AS {select}")
    for view, stage in stages.items():
        make_partition_view(connection, view, files[view], _step(steps, stage))
    lock_down(connection, [path for paths in files.values() for path in paths])


def lock_down(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
    """Let a query read these files and nothing else."""
    connection.execute("SET parquet_metadata_cache = true")
    connection.execute(f"SET allowed_paths = [{', '.join(map(quoted, files))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def make_partition_view(connection: duckdb.DuckDBPyConnection, view: str, files: Sequence[str], step: Step) -> None:
    """Make a view over committed partitions: a list of files and never a glob, which one broken file would fail."""
    if files:
        listed = ", ".join(map(quoted, files))
        connection.execute(f"CREATE TEMP VIEW {view} AS SELECT * FROM read_parquet([{listed}])")
        return
    assert isinstance(step.stage, ChunkStage)
    layout = step.stage.layout(Layout(dim=1, dtype="uint8"), {"components_": np.empty((1, 1))})
    connection.register(view, layout.schema().empty_table())


def quoted(text: str) -> str:
    """Return a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return a SQL name, quoted."""
    return '"' + name.replace('"', '""') + '"'


def _files(context: Context, catalog: sa.Connection, step: Step) -> list[str]:
    found = arrow(
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
        "model_id": (pa.string(), lambda step: (step.current_model or {}).get("model_id")),
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
