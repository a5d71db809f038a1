"""Merging stores of the same dataset and recipe: copy the partitions and models that this store lacks.

Content may differ in the last bits between machines, so variants and model ids decide, not bytes. No copy is published
before all files are checked, and no file is copied twice.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from featurestore.catalog import (
    Context,
    ModelRow,
    PartitionRow,
    Step,
    WritableContext,
    add_runs,
    catalog_counts,
    chunk_digests,
    describe_model,
    finished_runs,
    models_of,
    partitions_of,
    record_file,
    record_model,
    resolve,
)
from featurestore.engines import EngineChoice
from featurestore.errors import CorruptFile, Incompatible, NotEnoughSpace
from featurestore.formatting import chunk_list, counted, human_bytes
from featurestore.maintenance.check_files import COPIED_AT_ONCE, Checked, CheckFile, check_files, checkers_of
from featurestore.maintenance.mergeable import compare_datasets, compare_recipes
from featurestore.notebook import Tabular
from featurestore.stages import FitStage, Stage
from featurestore.storage import open_hashed, refuse_busy
from featurestore.system import command_line, readable


@dataclass(frozen=True)
class MergeReport(Tabular):
    """The report of copying from one store."""

    store: str
    n_partitions: int
    n_models: int
    n_bytes: int
    n_here: int  # partitions that this store had already
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return dataclasses.asdict(self)


@dataclass
class _Takeover:
    """The files to copy from one store."""

    models: list[ModelRow] = field(default_factory=list)
    partitions: list[PartitionRow] = field(default_factory=list)
    n_here: int = 0
    others: list[int] = field(default_factory=list)  # of these, the chunk of each that has other rows there
    n_left: int = 0  # partitions that a note is about
    notes: list[str] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        return self.model_bytes + sum(row.n_bytes for row in self.partitions)

    @property
    def model_bytes(self) -> int:
        return sum(model.n_bytes for model in self.models)


def merge_stores(context: WritableContext, other: Context, *, choice: EngineChoice) -> MergeReport:
    """Copy the partitions and models that this store lacks from another one.

    Args:
        context: of this store.
        other: that of the other one.
        choice: of the workers that read files.

    Raises:
        Incompatible: the other store is of another dataset or recipe, or has fitted a model of its own.
        StoreBusy: the other store is being changed.
        UnreadableFile: a file of the other store can't be read. Nothing was taken from it.
        CorruptFile: a file of the other store is not what it promises. Nothing was taken from it.
        NotEnoughSpace: the disk has no room for the copies.
    """
    refuse_busy(other.root, say=context.reporter.say)
    compare_recipes(context, other)
    notes = compare_datasets(context, other)
    found = _find(context, other)
    _refuse_full_disk(context, other, found)
    with ExitStack() as stack:
        copies = _check(context, other, found, choice, stack)
        for model in found.models:
            _copy(context, other, model)
            record_model(context.root, context.catalog, model.path)
        for row in found.partitions:
            if row.path in copies:
                context.root.publish(copies[row.path], row.path)
            else:
                _copy(context, other, row)
            record_file(context.root, context.catalog, row.path, checksum=row.checksum)
    variants = {model.variant for model in found.models} | {row.variant for row in found.partitions}
    _take_runs(context, other, variants)
    return MergeReport(
        str(other.root.path),
        len(found.partitions),
        len(found.models),
        found.n_bytes,
        found.n_here,
        (*notes, *found.notes),
    )


def _find(context: Context, other: Context) -> _Takeover:
    """Find the partitions and models of current variants that this store lacks, stage by stage."""
    found = _Takeover()
    with context.catalog.reading() as mine, other.catalog.reading() as yours:
        here = {step.stage.name: step for step in resolve(mine, context.flow)}
        payloads = {("images", chunk): digest for chunk, digest in chunk_digests(mine).items()}
        reachable = {"images"}  # stages whose variant is the same in both, once the models are copied
        for step in resolve(yours, other.flow):
            stage, ours = step.stage, here.get(step.stage.name)
            if ours is None:
                _leave(stage, partitions_of(yours, step), found)
                continue
            if stage.reads not in reachable or (stage.model is not None and stage.model not in reachable):
                continue
            if isinstance(stage, FitStage):
                models = _models(mine, yours, step, other)
                found.models += models
                if step.current_model is not None and (models or _same_model(ours, step)):
                    reachable.add(stage.name)
            elif step.variant is not None:
                reachable.add(stage.name)
                _find_partitions(stage, partitions_of(mine, step), partitions_of(yours, step), payloads, found)
        _add_notes(yours, found)
    return found


def _leave(stage: Stage, yours: Sequence[PartitionRow], found: _Takeover) -> None:
    """Note a stage that this store's recipe does not have."""
    found.n_left += len(yours)
    n_files = f" with {counted(len(yours), 'partition')}" if yours else ""
    found.notes.append(f"left there: the stage {stage.name}{n_files}, which the recipe of this store does not have")


def _same_model(ours: Step, theirs: Step) -> bool:
    mine, yours = ours.current_model, theirs.current_model
    return mine is not None and yours is not None and mine.model_id == yours.model_id


def _models(mine: DuckDBPyConnection, yours: DuckDBPyConnection, step: Step, other: Context) -> list[ModelRow]:
    """Return the other store's models of a fit stage that follow the newest one here, oldest first."""
    ours = {row.model_id: row for row in models_of(mine, step.variant)}
    theirs = {row.model_id: row for row in models_of(yours, step.variant)}
    if not theirs or set(theirs) <= set(ours):
        return []
    if ours and not set(ours) <= set(theirs):
        mine_only, theirs_only = (_newest(a, b) for a, b in ((ours, theirs), (theirs, ours)))
        raise Incompatible(
            f"{step.stage.name} was fitted in both stores: model {mine_only.model_id} of "
            f"{counted(mine_only.n_images, 'image')} here, {theirs_only.model_id} of {theirs_only.n_images:,} "
            "there; what was made with one can't be used with the other. Merge before fitting, or let one store go on "
            "from a copy of the other"
        )
    return [row for name, row in theirs.items() if name not in ours]


def _newest(models: Mapping[str, ModelRow], without: Collection[str]) -> ModelRow:
    return max((row for name, row in models.items() if name not in without), key=lambda row: row.generation)


def _find_partitions(
    stage: Stage,
    mine: Sequence[PartitionRow],
    yours: Sequence[PartitionRow],
    payloads: dict[tuple[str, int], str],
    found: _Takeover,
) -> None:
    """Add the partitions of one stage that this store lacks, and note the new payload of each chunk."""
    payloads.update(((stage.name, row.chunk_id), row.payload) for row in mine)
    ours = {row.chunk_id: row for row in mine}
    for row in yours:
        upstream = payloads.get((stage.reads, row.chunk_id))
        if row.chunk_id in ours and ours[row.chunk_id].input_payload == upstream:
            found.n_here += 1
            if row.payload != ours[row.chunk_id].payload:
                found.others.append(row.chunk_id)
        elif row.input_payload == upstream:
            found.partitions.append(row)
            payloads[stage.name, row.chunk_id] = row.payload
        else:
            found.n_left += 1
            found.notes.append(f"left there: {row.path}, which was made from other rows than those here")


def _add_notes(yours: DuckDBPyConnection, found: _Takeover) -> None:
    if n := len(found.others):
        here = f"{n:,} of {counted(found.n_here, 'partition')} here already ({chunk_list(set(found.others))})"
        found.notes.append(f"other rows there in {here}; the rows here are kept")
    rest = catalog_counts(yours).n_partitions - found.n_here - len(found.partitions) - found.n_left
    if rest:
        found.notes.append(f"left there: {counted(rest, 'partition')} of other variants")


def _refuse_full_disk(context: Context, other: Context, found: _Takeover) -> None:
    needed = found.n_bytes
    if not context.root.partitions.is_local:  # they pass through the folder one by one
        needed = found.model_bytes + max((row.n_bytes for row in found.partitions), default=0)
    if needed > context.root.free_bytes():
        raise NotEnoughSpace(
            f"{human_bytes(needed)} would be copied from {other.root.path}, and {context.root.path} has "
            f"{human_bytes(context.root.free_bytes())} free; make room, then merge again"
        )


def _check(
    context: Context, other: Context, found: _Takeover, choice: EngineChoice, stack: ExitStack
) -> dict[str, Path]:
    """Read every file to copy, and return the temporary copies that were made of partitions, by name.

    There is none of the index of a pruned partition. There are none at all if workers are elsewhere, which need not be
    able to write here, or if partitions are, for which the folder need not have room.

    Args:
        context: of this store.
        other: that of the other one.
        found: the files.
        choice: of the workers that read them.
        stack: removes copies that were not published.
    """
    copies: dict[str, Path] = {}

    def tasks() -> Iterator[CheckFile]:
        for row in found.partitions:
            if context.root.partitions.is_local and not choice.is_remote and not row.pruned:
                copies[row.path] = stack.enter_context(context.root.temporary(row.path))
            yield CheckFile(row.chunk_id, other.root, row.path, row, copy=copies.get(row.path))

    try:
        for model in found.models:
            describe_model(other.root, model.path)
        n_bytes = sum(row.n_bytes for row in found.partitions)
        checkers = checkers_of(context, choice, read=other.root)
        with closing(check_files(tasks(), checkers=checkers, n_bytes=n_bytes)) as results:
            for task, checked in results:
                _refuse(task.name, checked)
    except CorruptFile as error:
        raise CorruptFile(
            f"{other.root.path}: {error}; nothing was taken from it. Repair it first: "
            + command_line("verify", other.root.path, "--repair")
        ) from error
    return copies


def _refuse(name: str, checked: Checked) -> None:
    if isinstance(checked.error, CorruptFile) and name not in str(checked.error):
        raise CorruptFile(f"{name}: {checked.error}") from checked.error
    if checked.error is not None:
        raise checked.error


def _copy(context: WritableContext, other: Context, row: ModelRow | PartitionRow) -> None:
    name = row.path
    with context.root.publishing(name) as temporary:
        with (
            readable(other.root.at(name)),
            open_hashed(other.root.at(name)) as source,
            temporary.open("wb") as copy,
        ):
            shutil.copyfileobj(source, copy, COPIED_AT_ONCE)
            checksum = source.hexdigest()
        if checksum != row.checksum:
            raise CorruptFile(f"{name} changed while it was copied from {other.root.path}; merge again")


def _take_runs(context: WritableContext, other: Context, variants: Collection[str]) -> None:
    """Copy the records of the runs that made the copied files."""
    with other.catalog.reading() as connection:
        runs = finished_runs(connection, variants)
    with context.catalog.transaction() as connection:
        add_runs(connection, runs)
