"""Selections: which images of which partitions to read. Every load and export starts with one.

A `Selection` locates the chosen images. It is read a row group at a time, and row groups without chosen images are
skipped, so that memory is bounded whatever the size of the collection.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import duckdb
import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection, DuckDBPyRelation
from numpy.typing import NDArray

from featurestore.arrow_arrays import numpy_array
from featurestore.catalog import (
    ChunkState,
    Context,
    Step,
    chunk_states,
    count_by_variant,
    resolve,
    steps_of,
    view_of_images,
    why_missing,
)
from featurestore.errors import CorruptFile, NotReady, QueryError, StoreBusy
from featurestore.formatting import chunk_list, counted
from featurestore.query.exact import exact_columns
from featurestore.query.explain import column_hint, explain
from featurestore.query.sql import open_query, tidy_schema
from featurestore.quoting import identifier
from featurestore.rows import OUTSIDE, Layout
from featurestore.stages import ChunkStage, Extract, codes_of
from featurestore.storage import PartitionFile, Place, is_there
from featurestore.system import command_line

PENDING = "pending"  # the status of an image that the stage has not seen, or not with its current input
PRUNED = "pruned"
OF_PARTITIONS = ("status", "error", "n_descriptors", "descriptors")  # even if the dataset has such a column


@dataclass(frozen=True)
class Piece:
    """One chunk's part of a selection: the images in rows ``start`` to ``stop`` of `Selection.images`."""

    chunk_id: int
    first_image_id: int
    start: int
    stop: int
    path: Place | None  # of the partition; None: there is none
    why: str = ""  # there is none


@dataclass(frozen=True)
class Selection:
    """Chosen images, and the partitions with their rows at one variant of a stage.

    ``images`` has one row per chosen image, in ``image_id`` order: ``image_id``, ``chunk_id``, ``filename``, ``subset``
    and the columns that `with_columns` adds. An image without a partition has a row nevertheless, of status
    ``pending``.
    """

    stage: str
    variant: str
    where: str | None
    layout: Layout
    images: pa.Table
    pieces: tuple[Piece, ...]
    dataset_columns: tuple[str, ...]  # of the view ``images``

    @cached_property
    def image_ids(self) -> NDArray[np.int64]:
        """The chosen images, ascending."""
        ids: NDArray[np.int64] = numpy_array(self.images["image_id"])
        return ids

    def schema(self, columns: Sequence[str]) -> pa.Schema:
        """Return the types of columns of partitions or of ``images``, with ``dim``, ``dtype`` and identity."""
        known = {**{f.name: f for f in self.layout.schema()}, **{f.name: f for f in self.images.schema}}
        about = {"stage": self.stage, "variant": self.variant, "dim": str(self.layout.dim), "dtype": self.layout.dtype}
        return pa.schema([known[name] for name in columns], metadata=about)


def select_images(
    context: Context,
    *,
    stage: str | None = None,
    where: str | None = None,
    variant: str | None = None,
    allow_missing: bool = False,
    columns: Sequence[str] = (),
) -> Selection:
    """Choose images, and find the partitions with their rows at a stage. Arguments as in `FeatureStore.select`.

    ``columns`` are read as by `with_columns`, from the copy of the catalog that the images are chosen in; it is left to
    `with_columns` to refuse those that do not exist.

    Raises:
        QueryError: ``where`` can't be evaluated, or there is no such stage or variant.
        NotReady: chosen images lack the stage, or it has never been run.
    """
    stage = stage or codes_of(context.flow).name
    check_stage(context, stage)
    images, dataset_columns = _choose(context, where, columns)
    with context.catalog.reading() as connection:
        steps = (
            resolve(connection, context.flow) if variant is None else older_steps(connection, context, stage, variant)
        )
        step = next(step for step in steps if step.stage.name == stage)
        states = {state.chunk_id: state for state in chunk_states(connection, steps) if state.stage == stage}
        lacking = any(state.path is None for state in states.values()) or not states
        never = why_missing(connection, step) if variant is None and lacking else "never run"
    pieces = tuple(_pieces(context, images, states, never))
    paths = [context.root.at(state.path) for state in states.values() if state.path and not state.pruned]
    if not allow_missing or not paths:
        _refuse_missing(context, stage, pieces, can_leave_out=bool(paths))
    if not paths or step.variant is None:  # and no image was chosen
        raise NotReady(
            f"nothing of {stage} is there yet ({never}); make it with: {command_line('run', context.root.path)}"
        )
    with open_partition(paths[0]) as file:
        layout = file.layout
    if stage == Extract.name:  # partitions of earlier versions lack these columns
        layout = replace(layout, extra=tuple({**dict(layout.extra), **OUTSIDE}.items()))
    return Selection(stage, step.variant, where, layout, images, pieces, dataset_columns)


def with_columns(context: Context, selection: Selection, columns: Sequence[str]) -> Selection:
    """Return a selection whose ``images`` also have the dataset's ``columns``, with their current values.

    Raises:
        QueryError: neither the dataset nor the stage's partitions have a column.
        StoreBusy: an ingest has removed images or a column since they were chosen.
    """
    _check_columns(columns, selection)
    added = _lacking(selection.images, columns, selection.dataset_columns)
    if not added:
        return selection
    with _every_image(context) as (connection, view):
        return replace(selection, images=_with(context, connection, view, selection.images, added))


def _lacking(images: pa.Table, columns: Sequence[str], dataset_columns: Sequence[str]) -> list[str]:
    """Return those of ``columns`` that belong to the dataset and that ``images`` does not have yet."""
    known = {name.lower() for name in dataset_columns}
    there = {*images.column_names, *OF_PARTITIONS}
    return list(dict.fromkeys(name for name in columns if name.lower() in known and name not in there))


def _with(
    context: Context,
    connection: DuckDBPyConnection,
    view: DuckDBPyRelation,
    images: pa.Table,
    added: Sequence[str],
) -> pa.Table:
    """Return chosen images with more columns of the view `images`."""
    if lost := sorted({name.lower() for name in added} - {name.lower() for name in view.columns}):
        raise _ingested(f"the column {lost[0]!r} has left the dataset")
    connection.register("_chosen", images.select(["image_id"]))
    try:
        found = _columns_of(view.filter("image_id IN (FROM _chosen)"), ["image_id", *added])
    except duckdb.Error as error:
        raise QueryError(f"the columns {', '.join(added)} can't be read: {explain(error, context.flow)}") from None
    if len(found) < len(images):
        raise _ingested(f"{len(images) - len(found):,} of the chosen images have left the dataset")
    for name in added:
        images = images.append_column(found.schema.field(name), found[name])
    return images


def _ingested(what: str) -> StoreBusy:
    return StoreBusy(f"{what} in the meantime; choose the images again")


def check_stage(context: Context, stage: str) -> None:
    """Check that a stage gives descriptors.

    Raises:
        QueryError: it does not.
    """
    names = [s.name for s in context.flow if isinstance(s, ChunkStage)]
    if not isinstance(stage, str):  # columns, which `Images.load` takes first
        raise QueryError(f"a stage is one of {', '.join(names)}, and not {stage!r}; give columns as columns=[...]")
    if stage not in names:
        fits = ", which makes a model and no descriptors" if stage in [s.name for s in context.flow] else ""
        raise QueryError(f"there are no descriptors of {stage!r}{fits}; the stages are {', '.join(names)}")


def _choose(context: Context, where: str | None, columns: Sequence[str]) -> tuple[pa.Table, tuple[str, ...]]:
    """Return the chosen images with ``columns``, and the names of all columns that the view `images` has."""
    with _every_image(context) if where is None else _asked(context, where) as (connection, view):
        try:
            chosen = view if where is None else view.filter(where)
            images = _columns_of(chosen, ["image_id", "chunk_id", "filename", "subset"])
        except duckdb.Error as error:
            if where is None:
                raise  # the catalog is damaged
            about = explain(error, context.flow) + column_hint(context, connection, f"images {where}", error)
            raise QueryError(f"where {where!r} can't be evaluated: {about}") from None
        dataset_columns = tuple(view.columns)
        added = _lacking(images, columns, dataset_columns)
        return (_with(context, connection, view, images, added) if added else images), dataset_columns


@contextmanager
def _every_image(context: Context) -> Iterator[tuple[DuckDBPyConnection, DuckDBPyRelation]]:
    """Open the view `images` where no SQL of the user is asked: of the catalog itself, or of a copy of a large one.

    A copy and a DuckDB for it take four times as long as what is asked of a small catalog.
    """
    if context.catalog.is_small:
        with context.catalog.reading() as connection:
            yield connection, view_of_images(connection)
    else:
        with _asked(context, "") as found:
            yield found


@contextmanager
def _asked(context: Context, where: str) -> Iterator[tuple[DuckDBPyConnection, DuckDBPyRelation]]:
    """Open the view `images` of a copy of the catalog, and those that a condition names."""
    with open_query(context, f"images {where}") as (connection, _):
        yield connection, connection.view("images")


def _columns_of(images: duckdb.DuckDBPyRelation, names: Sequence[str]) -> pa.Table:
    found = images.project(", ".join(map(identifier, names)))
    table = exact_columns(found).order("image_id").to_arrow_table()
    return table.cast(tidy_schema(table.schema)).rename_columns(names).combine_chunks()


def _check_columns(columns: Sequence[str], selection: Selection) -> None:
    stored = selection.layout.schema().names
    of_dataset = {name.lower() for name in selection.dataset_columns}
    for name in columns:
        if name not in stored and name.lower() not in of_dataset:
            every = list(dict.fromkeys([*stored, *selection.dataset_columns]))
            near = difflib.get_close_matches(name, every, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(every)}"
            raise QueryError(f"there is no column {name!r}; {hint}")


def older_steps(connection: DuckDBPyConnection, context: Context, stage: str, variant: str) -> tuple[Step, ...]:
    """Return the flow up to a variant of a stage, as it was when that variant was made.

    Raises:
        QueryError: the stage has no partitions of that variant; the message lists those it has.
    """
    found = count_by_variant(connection, stage)
    names = [name for name in found if name.startswith(variant)]
    if len(names) != 1 or not variant:
        listed = ", ".join(f"{name} ({counted(n, 'partition')})" for name, n in found.items()) or "none yet"
        what = "more than one variant begins with" if len(names) > 1 else f"{stage} has no variant"
        raise QueryError(f"{what} {variant!r}; the variants of {stage} are: {listed}")
    return steps_of(connection, context.flow, names[0])


def _pieces(context: Context, images: pa.Table, states: Mapping[int, ChunkState], never: str) -> Iterator[Piece]:
    # A chunk is a range of image_ids, so its images are consecutive.
    chunks = numpy_array(images["chunk_id"])
    borders = [0, *(np.flatnonzero(np.diff(chunks)) + 1).tolist(), len(chunks)] if len(chunks) else []
    for start, stop in pairwise(borders):
        state = states[int(chunks[start])]
        yield Piece(state.chunk_id, state.first_image_id, start, stop, *partition_of(context, state, never))


def partition_of(context: Context, state: ChunkState, never: str) -> tuple[Place | None, str]:
    """Return the partition of one chunk, or None and why there is none.

    Args:
        context: of the store.
        state: of the chunk, at the stage.
        never: the reason if there never was one.
    """
    if state.path is None:
        return None, never
    if not state.current or not state.upstream_current:
        return None, "input changed"
    return (None, PRUNED) if state.pruned else (context.root.at(state.path), "")


def _refuse_missing(context: Context, stage: str, pieces: Sequence[Piece], *, can_leave_out: bool) -> None:
    reasons: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        if piece.path is None:
            reasons[piece.why].append(piece)
    if reasons:
        n = sum(piece.stop - piece.start for found in reasons.values() for piece in found)
        listed = ", ".join(f"{why} ({chunk_list([p.chunk_id for p in found])})" for why, found in reasons.items())
        # Pruned partitions are recomputed only if requested by name.
        missing = command_line("run", context.root.path, *([stage] if PRUNED in reasons else []))
        or_else = ", or leave it out knowingly with allow_missing=True (--allow-missing)" if can_leave_out else ""
        raise NotReady(
            f"{n:,} of the chosen images lack {stage}: {listed}; make what is missing with: {missing}{or_else}"
        )


def open_partition(path: Place) -> PartitionFile:
    """Open a partition that the catalog names.

    Raises:
        StoreBusy: the partition is gone, since a run has replaced it meanwhile, or a prune has deleted it.
        CorruptFile: it is damaged.
        UnreadableFile: it can't be opened or read.
    """
    try:
        return PartitionFile(path)
    except CorruptFile as error:
        if is_there(path):
            raise
        raise StoreBusy(
            f"{path.name} is gone: most likely a run has just recomputed its chunk, or a prune has deleted it; do the "
            "same again, beginning with the choice of images, and if it is still gone, the store is damaged"
        ) from error
