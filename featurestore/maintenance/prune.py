"""Pruning: delete old variants, files without a record and, on request, blobs upstream of partitions to keep.

A pruned partition leaves an index, its rows without descriptors and keypoints, so that its chunk stays done and the
catalog can still be rebuilt.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from duckdb import DuckDBPyConnection

from featurestore.catalog import (
    ChunkState,
    Context,
    ModelRow,
    PartitionRow,
    Step,
    WritableContext,
    all_models,
    all_partitions,
    chunk_states,
    describe_partition,
    forget_models,
    forget_partitions,
    forget_unused_variants,
    models_by_variant,
    paces,
    record_described,
    recorded_files,
    resolve,
    unneeded_blocks,
)
from featurestore.errors import ConfigError
from featurestore.formatting import chunk_list
from featurestore.maintenance.recover import recover_store
from featurestore.maintenance.stray_files import stray_files
from featurestore.notebook import Tabular
from featurestore.stages import INDEX as INDEX_STAGES
from featurestore.stages import ChunkStage, upstream_of
from featurestore.storage import INDEX, PAIRS, Root, index_name, write_index
from featurestore.system import command_line


@dataclass(frozen=True)
class PruneItem:
    """A line of the report: an old variant, the blobs of a stage, models, or files without a record."""

    what: str
    n_files: int
    n_bytes: int  # that are freed
    seconds: float | None  # to recompute it; None: no earlier run tells


@dataclass
class PruneReport(Tabular):
    """The report of prune, or of its dry run."""

    items: list[PruneItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # reasons why something was kept

    @property
    def n_bytes(self) -> int:
        """The bytes that are freed."""
        return sum(item.n_bytes for item in self.items)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**dataclasses.asdict(self), "n_bytes": self.n_bytes}


@dataclass
class _Plan:
    """The files to delete."""

    dry_run: bool  # file contents are not read
    old: list[PartitionRow] = field(default_factory=list)  # partitions to delete entirely
    blobs: list[PartitionRow] = field(default_factory=list)  # partitions to replace by their index
    models: list[ModelRow] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    searched: dict[str, int] = field(default_factory=dict)  # files of the search index, with their sizes
    pairs: dict[str, int] = field(default_factory=dict)  # files of found pairs, with their sizes
    notes: list[str] = field(default_factory=list)


def plan_prune(context: Context, *, keep: Collection[str]) -> PruneReport:
    """Return the report of what `prune_store` would delete. Nothing is changed.

    No partition is read: the size tells whether one to keep is whole.

    Args:
        context: of the store.
        keep: as in `prune_store`.

    Raises:
        ConfigError: ``keep`` names a stage without partitions.
    """
    _refuse_unknown(context, keep)
    with context.catalog.reading() as connection:
        plan = _plan(context, connection, keep, dry_run=True)
        items = _items(context.root, plan, paces(connection))
    said = "files without a record, those that are not whole"
    return PruneReport(items + _unknown_files(said, _unrecorded(context)) + _unneeded_blocks(context), plan.notes)


def prune_store(context: WritableContext, *, keep: Collection[str]) -> PruneReport:
    """Prune a store, and return the report.

    Args:
        context: of the store.
        keep: stages whose partitions suffice: where they are all current, the partitions upstream are pruned.
            Empty: prune only old variants and files without a record.

    Raises:
        ConfigError: ``keep`` names a stage without partitions.
        CorruptFile: a partition to replace by its index is damaged.
    """
    _refuse_unknown(context, keep)
    strays, blocks = _unrecorded(context), _unneeded_blocks(context)
    recover_store(context)
    strays = {name: size for name, size in strays.items() if context.root.state(name) is None}
    with context.catalog.reading() as connection:
        plan = _plan(context, connection, keep, dry_run=False)
        items = _items(context.root, plan, paces(connection))
    for folder in unneeded_blocks(context):
        context.root.remove_folder(folder)
    _carry_out(context, plan)
    return PruneReport(items + _unknown_files("files without a record", strays) + blocks, plan.notes)


def _unknown_files(said: str, strays: Mapping[str, int]) -> list[PruneItem]:
    return [PruneItem(said, len(strays), sum(strays.values()), 0.0)] if strays else []


def _unneeded_blocks(context: Context) -> list[PruneItem]:
    """Return the bytes of blocks that no run can use, including those that `recover_store` removes first."""
    sizes = [context.root.local(name).stat().st_size for names in unneeded_blocks(context).values() for name in names]
    return [PruneItem("blocks of images that no run goes on from", len(sizes), sum(sizes), 0.0)] if sizes else []


def _refuse_unknown(context: Context, keep: Collection[str]) -> None:
    known = [stage.name for stage in context.flow if isinstance(stage, ChunkStage)]
    for name in keep:
        if name not in known:
            raise ConfigError(f"{name!r} is no stage with partitions to keep; those are {' '.join(known)}")


def _unrecorded(context: Context) -> dict[str, int]:
    """Return the files without a record, with their sizes in bytes."""
    with context.catalog.reading() as connection:
        known = recorded_files(connection).every
    names = (name for name in stray_files(context.root)[0] if name not in known)
    return {name: _size(context.root, name) for name in names}


def _plan(context: Context, connection: DuckDBPyConnection, keep: Collection[str], *, dry_run: bool) -> _Plan:
    steps = resolve(connection, context.flow)
    states = {(state.stage, state.chunk_id): state for state in chunk_states(connection, steps)}
    plan = _Plan(dry_run)
    rows = all_partitions(connection)
    current = {(step.stage.name, step.variant) for step in steps}
    waiting: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        state = states.get((row.stage, row.chunk_id))
        if (row.stage, row.variant) in current:
            continue
        if state is not None and state.current:
            plan.old.append(row)
        else:
            waiting[row.stage, row.variant].append(row.chunk_id)
    for (stage, variant), chunks in waiting.items():
        where = f"{stage} {variant}, {chunk_list(chunks)}"
        plan.notes.append(f"kept: {where}: the current recipe has made nothing in its place yet")
    if keep:
        _plan_blobs(context, steps, states, {(r.stage, r.variant, r.chunk_id): r for r in rows}, keep, plan)
    _plan_models(context.root, connection, steps, rows, plan)
    plan.searched = _old_index(context.root, steps)
    plan.pairs = _old_pairs(context.root, rows, plan.old)
    return plan


def _old_index(root: Root, steps: Sequence[Step]) -> dict[str, int]:
    """Return the files of the search index that are of no use: there are some of the current variant, or no stage."""
    names = root.files(INDEX, "")
    words = next((step for step in steps if step.stage.name == INDEX_STAGES[-1].name), None)
    current = {name for name in names if words is not None and name.startswith(f"{INDEX}/{words.variant}-")}
    old = [] if words is not None and not current else [name for name in names if name not in current]
    return {name: root.local(name).stat().st_size for name in old}


def _old_pairs(root: Root, rows: Sequence[PartitionRow], old: Sequence[PartitionRow]) -> dict[str, int]:
    """Return the files of found pairs whose codes are no longer there."""
    gone = {row.path for row in old}
    staying = {row.variant for row in rows if row.path not in gone}
    names = [name for name in root.files(PAIRS, "") if name.split("/")[-1].partition("-")[0] not in staying]
    return {name: root.local(name).stat().st_size for name in names}


def _plan_blobs(
    context: Context,
    steps: Sequence[Step],
    states: dict[tuple[str, int], ChunkState],
    rows: dict[tuple[str, str, int], PartitionRow],
    keep: Collection[str],
    plan: _Plan,
) -> None:
    """Find the partitions upstream of those to keep, for every chunk whose kept partitions are current and whole."""
    before = {stage.name for name in keep for stage in upstream_of(context.flow, name)} - set(keep)
    upstream = [step for step in steps if step.stage.name in before]
    for chunk in sorted({chunk for _, chunk in states}):
        kept = [states[name, chunk] for name in keep]
        if not all(state.current and state.upstream_current and not state.pruned for state in kept):
            plan.notes.append(f"kept: upstream of chunk {chunk}: {' and '.join(keep)} is not up to date for it")
            continue
        files = [rows[state.stage, str(state.variant), chunk] for state in kept]
        damaged = [row.path for row in files if not _is_whole(context.root, row, by_size=plan.dry_run)]
        if damaged:
            mend = command_line("verify", context.root.path, "--repair")
            plan.notes.append(f"kept: upstream of {damaged[0]}, which is damaged: {mend}")
            continue
        for step in upstream:
            state = states[step.stage.name, chunk]
            if state.current and not state.pruned and not state.wanted:
                plan.blobs.append(rows[step.stage.name, str(step.variant), chunk])


def _is_whole(root: Root, row: PartitionRow, *, by_size: bool) -> bool:
    """Return whether a file matches its record, by its size or by all of its bytes."""
    if _size(root, row.path) != row.n_bytes:
        return False
    return by_size or root.partitions.checksum(row.path) == row.checksum


def _size(root: Root, name: str) -> int:
    state = root.state(name)
    return 0 if state is None else state.size


def _plan_models(
    root: Root, connection: DuckDBPyConnection, steps: Sequence[Step], rows: Sequence[PartitionRow], plan: _Plan
) -> None:
    """Find the models that have a replacement, and that neither the recipe nor a remaining partition needs."""
    models = {row.model_id: row for row in all_models(connection)}
    gone = {(row.variant, row.chunk_id) for row in plan.old}
    staying = {row.variant for row in rows if (row.variant, row.chunk_id) not in gone}
    needed = [model for variant, model in models_by_variant(connection).items() if variant in staying]
    needed += [step.current_model.model_id for step in steps if step.current_model is not None]
    kept: set[str] = set()
    while needed:  # with the parents that updates started from
        model = models.get(needed.pop())
        if model is not None and model.model_id not in kept:
            kept.add(model.model_id)
            needed += [model.parent_id] if model.parent_id else []
    fitted = {step.stage.name for step in steps if step.current_model is not None}
    plan.models = [row for row in models.values() if row.model_id not in kept and row.stage in fitted]
    variants = {step.variant for step in steps}
    plan.checkpoints = [
        name
        for name in root.files("models", "state.npz")
        if name.split("/")[1] in fitted and name.split("/")[2] not in variants
    ]


def _items(root: Root, plan: _Plan, pace: dict[str, float]) -> list[PruneItem]:
    groups: dict[str, list[PartitionRow]] = defaultdict(list)
    for row in plan.old:
        groups[f"{row.stage} {row.variant}, an old variant"].append(row)
    for row in plan.blobs:
        groups[f"descriptors of {row.stage} {row.variant}"].append(row)
    items = []
    for what, rows in groups.items():
        seconds = pace.get(rows[0].stage)
        cost = None if seconds is None else seconds * sum(row.n_images for row in rows)
        items.append(PruneItem(what, len(rows), sum(row.n_bytes for row in rows), cost))
    for model in plan.models:
        seconds = pace.get(model.stage)
        cost = None if seconds is None else seconds * model.n_images
        items.append(PruneItem(f"model {model.model_id} of {model.stage}", 1, model.n_bytes, cost))
    for name in plan.checkpoints:
        items.append(PruneItem(f"{name}, of an old variant", 1, root.local(name).stat().st_size, None))
    if plan.searched:
        items.append(PruneItem("old files of the search index", len(plan.searched), sum(plan.searched.values()), None))
    if plan.pairs:
        items.append(PruneItem("found pairs of old codes", len(plan.pairs), sum(plan.pairs.values()), None))
    return items


def _carry_out(context: WritableContext, plan: _Plan) -> None:
    root, catalog = context.root, context.catalog
    for row in plan.blobs:
        name = index_name(row.stage, row.variant, row.chunk_id)
        with root.publishing(name) as temporary:
            write_index(root.at(row.path), temporary)
        replaced = record_described(catalog, describe_partition(root, name))
        if replaced:
            root.remove(replaced)
    with catalog.transaction() as connection:
        forget_partitions(connection, plan.old)
        forget_models(connection, plan.models)
        forget_unused_variants(connection)
    for name in [*(row.path for row in plan.old), *(model.path for model in plan.models)]:
        root.remove(name)
    for name in [*plan.checkpoints, *plan.searched, *plan.pairs]:
        root.remove(name)
    root.remove_empty_folders()
