"""The views that queries see: those of a copy of the catalog, and the committed partitions themselves.

``docs/views.md`` describes every column; a test compares.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection

from featurestore.catalog import (
    CATALOG_VIEWS,
    FOUND_PAIRS,
    ChunkState,
    Context,
    StagePlan,
    Step,
    attach_copy,
    chunk_states,
    make_catalog_views,
    make_plan,
    removed_ids,
    resolve,
)
from featurestore.query.descriptor_views import make_descriptor_view, make_function
from featurestore.query.duplicates import DUPLICATES, find_duplicates
from featurestore.query.gaps import Gaps, find_gaps
from featurestore.quoting import literal
from featurestore.rows import EXIF_ORIENTATION, OUTSIDE, SOURCE_VERSION, Layout
from featurestore.stages import ChunkStage, FitStage, Stage, layouts_of

REMOVED = "_removed"  # the ids of images that have left the dataset
MISSING = "missing"  # the plan of `run`: stage, chunk_id, n_images, why

# A query that names one of these lists the views, so all views are created.
_LISTINGS = {"show", "information_schema", "duckdb_views", "duckdb_tables", "duckdb_columns"}

SNAPSHOT_VIEWS = (*(view for view in CATALOG_VIEWS if view != DUPLICATES), MISSING)  # which need no other file


def is_of_snapshot(flow: Sequence[Stage], text: str) -> bool:
    """Return whether a query names only views among `SNAPSHOT_VIEWS`, and so needs no others of `make_views`."""
    names = set(re.findall(r"\w+", text.lower()))
    others = any(_wanted(view, names) for view in partition_views(flow))
    return not (others or DUPLICATES in names or names & _LISTINGS or names == {"describe"})


def partition_views(flow: Sequence[Stage]) -> dict[str, str]:
    """Return the views over partitions, and the stage of each."""
    return {stage.view: stage.name for stage in flow if isinstance(stage, ChunkStage)}


def every_view(flow: Sequence[Stage]) -> tuple[str, ...]:
    """Return the names of all views of a store."""
    views = partition_views(flow)
    return (*CATALOG_VIEWS, MISSING, *views, *(f"{view}_descriptors" for view in views))


def set_up(connection: duckdb.DuckDBPyConnection, folder: Path | None) -> None:
    """Prepare a connection for queries that may spill into ``folder``."""
    # the default is a folder in the working directory; "" keeps everything in memory
    connection.execute("SET temp_directory = $folder", {"folder": "" if folder is None else str(folder)})
    connection.execute("SET arrow_large_buffer_size = true")  # a batch of BLOBs may be over 2 GiB


def make_views(
    context: Context, connection: duckdb.DuckDBPyConnection, text: str, folder: Path | None
) -> tuple[str, ...]:
    """Create the views and functions that ``text`` names, and restrict the connection to their files.

    They read a copy of the catalog, which is made if it is needed, in ``folder`` if it is too large for memory.
    Return what a reader has to know of the views that ``text`` names, in one line each.
    """
    named = names = set(re.findall(r"\w+", text.lower()))
    if names & _LISTINGS or names == {"describe"}:
        names = names | set(every_view(context.flow))
    views = [view for view in CATALOG_VIEWS if view in names]
    stages = {view: stage for view, stage in partition_views(context.flow).items() if _wanted(view, names)}
    with context.catalog.reading() as catalog:
        steps = resolve(catalog, context.flow)
        duplicates = find_duplicates(context, catalog, steps) if DUPLICATES in names else None
        if MISSING in names:
            make_missing(connection, make_plan(catalog, steps))
        stored = _find_stored(context, catalog, steps, stages) if stages else _Stored()
        if views:
            attach_copy(connection, catalog, folder)
    if duplicates is not None:
        connection.register(FOUND_PAIRS, duplicates.rows)
    if views:
        make_catalog_views(connection, views, steps)
    if stages:
        context.root.partitions.register(connection)
    without = REMOVED if stored.removed else None
    if without:  # their rows stay in the partitions
        connection.register(REMOVED, stored.removed)
    layouts, every = layouts_of(context.flow), not names.isdisjoint({*OUTSIDE, "describe", "summarize"})
    for view, stage in stages.items():
        make_partition_view(connection, view, stored.files[view], layouts[stage], without=without, every=every)
        make_function(connection, view, layouts[stage])
        if f"{view}_descriptors" in names:
            make_descriptor_view(connection, view, layouts[stage])
    lock_down(connection, [path for both in stored.files.values() for path in (*both.whole, *both.pruned)])
    notes = [
        note for gap in stored.gaps if {gap.view, f"{gap.view}_descriptors"} & named for note in gap.notes(context)
    ]
    if duplicates is not None and DUPLICATES in named:
        notes += filter(None, [duplicates.note(context)])
    return tuple(notes)


def _wanted(view: str, names: set[str]) -> bool:
    return not names.isdisjoint({view, f"{view}_descriptors", f"{view}_vectors"})


def lock_down(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
    """Restrict queries to these files: no other file, no network, and no Python variables."""
    connection.execute("SET parquet_metadata_cache = true")
    both = [*files, *map(glob.escape, files)]  # DuckDB checks the pattern, and then the file
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, both))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


class Files(NamedTuple):
    """The committed partitions of a view."""

    whole: Sequence[str]
    pruned: Sequence[str] = ()  # what is left of those that were pruned: the same rows without some columns


# The columns of `rows.OUTSIDE`, which partitions of earlier versions lack. To find out which do takes as long as a
# count of all rows, so a view has these columns only for queries that name them.
NEW_COLUMNS = f"SELECT NULL::TINYINT AS {EXIF_ORIENTATION}, NULL::BIGINT AS {SOURCE_VERSION} WHERE false"


def make_partition_view(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    files: Files,
    layout: Layout,
    *,
    without: str | None = None,
    every: bool = True,
) -> None:
    """Create a view over committed partitions: a list of files, never a glob, which could match a broken file.

    ``without`` names a table with the ``image_id`` of rows to leave out; ``every`` adds the columns of `rows.OUTSIDE`.
    """
    empty = pa.Table.from_batches([], layout.schema())  # empty_table would import pandas
    if not files.whole and not files.pruned:
        connection.register(view, empty)
        return
    union_by_name = layout.outside and every
    sources = [f"SELECT * FROM {_read(paths, union_by_name)}" for paths in files if paths]
    if not files.whole:  # the columns that only whole partitions have
        connection.register(f"_{view}", empty)
        sources.insert(0, f"SELECT * FROM _{view}")
    if union_by_name:
        sources.append(NEW_COLUMNS)
    columns = f"COLUMNS(lambda name: name NOT IN {tuple(OUTSIDE)})" if layout.outside and not every else "*"
    passing = f" ANTI JOIN {without} USING (image_id)" if without else ""
    union = " UNION ALL BY NAME ".join(sources)
    connection.execute(f"CREATE TEMP VIEW {view} AS SELECT {columns} FROM ({union}){passing}")


def _read(files: Sequence[str], union_by_name: bool) -> str:
    # The store's own path must not act as a glob or as hive columns either: `old[1]`, `a*`, `status=ok`.
    listed = ", ".join(literal(glob.escape(file)) for file in files)
    return f"read_parquet([{listed}], hive_partitioning = false, union_by_name = {str(union_by_name).lower()})"


class _Stored(NamedTuple):
    """The files and gaps of the views over partitions."""

    files: Mapping[str, Files] = {}
    gaps: Sequence[Gaps] = ()
    removed: pa.Table | None = None  # the ids of images that have left the dataset, if there are any


def _find_stored(
    context: Context, catalog: DuckDBPyConnection, steps: Sequence[Step], stages: Mapping[str, str]
) -> _Stored:
    removed, chunks = removed_ids(catalog), chunk_states(catalog, steps)
    files, gaps = dict[str, Files](), list[Gaps]()
    for view, stage in stages.items():
        step, states = _step(steps, stage), [state for state in chunks if state.stage == stage]
        files[view] = _files(context, states)
        gaps.append(find_gaps(catalog, step, states, removed))
    return _Stored(files, gaps, removed if len(removed) else None)


def _step(steps: Sequence[Step], stage: str) -> Step:
    return next(step for step in steps if step.stage.name == stage)


def _files(context: Context, states: Sequence[ChunkState]) -> Files:
    name = context.root.partitions.for_sql
    there = [(name(state.path), state.pruned) for state in states if state.path is not None]
    return Files([path for path, pruned in there if not pruned], [path for path, pruned in there if pruned])


def make_missing(connection: duckdb.DuckDBPyConnection, plans: Mapping[str, StagePlan]) -> None:
    """Create the table of what is missing, without Arrow: to convert Python values, it would import pandas."""
    chunk_plans = [plan for plan in plans.values() if not isinstance(plan.step.stage, FitStage)]
    todo = [(plan.step.stage.name, work) for plan in chunk_plans for work in plan.todo]
    columns = {
        "stage": [stage for stage, _ in todo],
        "chunk_id": [work.chunk_id for _, work in todo],
        "n_images": [work.n_images for _, work in todo],
        "why": [work.why for _, work in todo],
    }
    kinds = {"stage": "VARCHAR", "chunk_id": "INTEGER", "n_images": "INTEGER", "why": "VARCHAR"}
    values = ", ".join(f"unnest(CAST(${name} AS {kind}[])) AS {name}" for name, kind in kinds.items())
    connection.execute(f"CREATE TEMP TABLE {MISSING} AS SELECT {values}", columns)
