"""Taking over what other machines have made: partitions and models of stores of the same dataset and recipe.

Content may differ in the last bits between machines, so that variants and model ids decide, not bytes. Everything is
checked before anything is taken, and what was taken is not taken again.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from featurestore.catalog import (
    Context,
    Run,
    Step,
    WritableContext,
    check_partition,
    describe_model,
    insert_arrow,
    query_arrow,
    record_file,
    record_model,
    registered_table,
    resolve,
)
from featurestore.errors import CorruptFile, Incompatible, NotEnoughSpace
from featurestore.formatting import counted, human_bytes
from featurestore.stages import FitStage, Stage
from featurestore.storage import refuse_busy
from featurestore.system import command_line, file_digest, readable

Row = dict[str, Any]
SHOWN = 5  # differences that are spelt out


@dataclass(frozen=True)
class MergeReport:
    """What was taken over from one store."""

    store: str
    n_partitions: int
    n_models: int
    n_bytes: int
    n_here: int  # partitions that were here already
    notes: tuple[str, ...] = ()


@dataclass
class _Takeover:
    """What is to be copied from one store."""

    models: list[Row] = field(default_factory=list)
    partitions: list[Row] = field(default_factory=list)
    n_here: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        return sum(row["n_bytes"] for row in (*self.models, *self.partitions))


def merge_stores(context: WritableContext, other: Context) -> MergeReport:
    """Take over what another store has and this one lacks.

    Raises:
        Incompatible: the other store is of another dataset or recipe, or has fitted a model of its own.
        StoreBusy: the other store is being changed.
        UnreadableFile: a file of the other store can't be read. Nothing was taken from it.
        CorruptFile: a file of the other store is not what it promises. Nothing was taken from it.
        NotEnoughSpace: the disk has no room for what is to be copied.
    """
    refuse_busy(other.root, say=context.reporter.say)
    _compare_recipes(context, other)
    notes = _compare_datasets(context, other)
    found = _find(context, other)
    _check(context, other, found)
    for row in found.models:
        _copy(context, other, row)
        record_model(context.root, context.catalog, row["path"])
    for row in found.partitions:
        _copy(context, other, row)
        record_file(context.root, context.catalog, row["path"])
    _take_runs(context, other, {row["variant"] for row in (*found.models, *found.partitions)})
    return MergeReport(
        str(other.root.path),
        len(found.partitions),
        len(found.models),
        found.n_bytes,
        found.n_here,
        (*notes, *found.notes),
    )


def _compare_recipes(context: Context, other: Context) -> None:
    found = []
    for ours, theirs in zip(context.flow, other.flow, strict=True):
        here, there = _flat(ours.parameters()), _flat(theirs.parameters())
        found += [f"{ours.name}.{n} is {here[n]!r} here and {there[n]!r} there" for n in here if here[n] != there[n]]
    if found:
        raise Incompatible(
            f"{other.root.path} has another recipe: {_shown(found[:SHOWN], len(found))}. Make featurestore.toml the "
            "same in both, and run there what has changed"
        )


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _compare_datasets(context: Context, other: Context) -> list[str]:
    """Make sure that every image of the other store is the same image here; return notes on the others.

    An image may have left one dataset and not the other: its partitions are the same, and this store's dataset stays.
    """
    with other.catalog.reading() as connection:
        theirs = query_arrow(connection, "SELECT image_id, chunk_id, filename, subset, removed_by FROM images")
    with context.catalog.reading() as connection, registered_table(connection, "theirs", theirs):
        n_images = connection.execute(sa.text("SELECT count(*) FROM images")).scalar_one()
        different = query_arrow(connection, f"{_DIFFERENT} LIMIT {SHOWN}").to_pylist()
        (removals,) = query_arrow(connection, _REMOVALS).to_pylist()
    if len(theirs) > n_images:
        raise Incompatible(
            f"{other.root.path} has {counted(len(theirs), 'image')} and this store {n_images:,}; ingest the same "
            "dataset here first, then merge again"
        )
    if different and not different[0]["n_others"]:
        raise Incompatible(_other_chunks(context, other))
    if different:
        listed = _shown([row["what"] for row in different], different[0]["n"])
        raise Incompatible(
            f"{other.root.path} has another dataset: {listed}. Only stores of the same dataset CSV, split and chunk "
            "size can be merged"
        )
    where = {"here": ("n_here", "there"), "there": ("n_there", "here")}
    return [
        f"{counted(removals[n], 'image')} removed {place} and in the dataset {elsewhere}; this store's dataset is kept"
        for place, (n, elsewhere) in where.items()
        if removals[n]
    ]


def _other_chunks(context: Context, other: Context) -> str:
    """Return what is wrong with a store whose images are the same, and lie in other chunks."""
    sizes = []
    for store in (context, other):
        with store.catalog.reading() as connection:
            sizes.append(
                query_arrow(connection, "SELECT n_images FROM chunks ORDER BY chunk_id")["n_images"].to_pylist()
            )
    chunk, (here, there) = next((i, pair) for i, pair in enumerate(zip(*sizes, strict=False)) if pair[0] != pair[1])
    mine, theirs = context.settings.chunk_size, other.settings.chunk_size
    why = f"chunk_size is {mine:,} here and {theirs:,} there"
    if mine == theirs:
        why = "the datasets grew by other ingests"
    return (
        f"{other.root.path} has the same images in other chunks: {why}; chunk {chunk} has {counted(here, 'image')} "
        f"here and {there:,} there. Only stores that made their chunks alike can be merged: make one of them again"
    )


# Images that are not the same in both. What subset a removed image was in is of no consequence.
_DIFFERENT = """
SELECT format('image {} is {} ({}, chunk {}) here and {} ({}, chunk {}) there',
              o.image_id, o.filename, o.subset, o.chunk_id, t.filename, t.subset, t.chunk_id) AS what,
       count(*) OVER () AS n,
       count(*) FILTER (WHERE o.filename <> t.filename OR o.subset <> t.subset) OVER () AS n_others
FROM images o JOIN theirs t ON t.image_id = o.image_id
WHERE o.filename <> t.filename OR o.chunk_id <> t.chunk_id
   OR (o.subset <> t.subset AND o.removed_by IS NULL AND t.removed_by IS NULL)
ORDER BY o.image_id
"""
_REMOVALS = """
SELECT count(*) FILTER (WHERE o.removed_by IS NOT NULL AND t.removed_by IS NULL) AS n_here,
       count(*) FILTER (WHERE o.removed_by IS NULL AND t.removed_by IS NOT NULL) AS n_there
FROM images o JOIN theirs t ON t.image_id = o.image_id
"""


def _shown(differences: Sequence[str], n: int) -> str:
    more = n - len(differences)
    return "; ".join(differences) + (f"; and {more:,} more" if more > 0 else "")


def _find(context: Context, other: Context) -> _Takeover:
    """Go through the flow, and find what the other store has of today's variants and this one lacks."""
    found = _Takeover()
    with context.catalog.reading() as mine, other.catalog.reading() as yours:
        here = {step.stage.name: step for step in resolve(mine, context.flow)}
        digests = query_arrow(mine, "SELECT chunk_id, digest FROM chunks").to_pylist()
        payloads = {("images", row["chunk_id"]): row["digest"] for row in digests}
        reachable = {"images"}  # stages whose variant is the same in both, once the models are taken
        for step in resolve(yours, other.flow):
            stage, ours = step.stage, here[step.stage.name]
            if stage.reads not in reachable or (stage.model is not None and stage.model not in reachable):
                continue
            if isinstance(stage, FitStage):
                models = _models(mine, yours, step, other)
                found.models += models
                if step.current_model is not None and (models or _same_model(ours, step)):
                    reachable.add(stage.name)
            elif step.variant is not None:
                reachable.add(stage.name)
                _find_partitions(stage, _partitions(mine, step), _partitions(yours, step), payloads, found)
        _note_the_rest(yours, found)
    return found


def _same_model(ours: Step, theirs: Step) -> bool:
    mine, yours = ours.current_model, theirs.current_model
    return mine is not None and yours is not None and mine.model_id == yours.model_id


def _models(mine: sa.Connection, yours: sa.Connection, step: Step, other: Context) -> list[Row]:
    """Return the other store's models of a fit stage that follow the newest one here, oldest first."""
    query = "SELECT * FROM models WHERE variant = $variant ORDER BY generation"
    ours = {row["model_id"]: row for row in query_arrow(mine, query, {"variant": step.variant}).to_pylist()}
    theirs = {row["model_id"]: row for row in query_arrow(yours, query, {"variant": step.variant}).to_pylist()}
    if not theirs or set(theirs) <= set(ours):
        return []
    if ours and not set(ours) <= set(theirs):
        mine_only, theirs_only = (_newest(a, b) for a, b in ((ours, theirs), (theirs, ours)))
        raise Incompatible(
            f"{step.stage.name} was fitted in both stores: model {mine_only['model_id']} of "
            f"{counted(mine_only['n_images'], 'image')} here, {theirs_only['model_id']} of {theirs_only['n_images']:,} "
            "there; what was made with one is of no use to the other. Merge before fitting, or let one store go on "
            "from a copy of the other"
        )
    return [row for name, row in theirs.items() if name not in ours]


def _newest(models: Mapping[str, Row], without: Collection[str]) -> Row:
    return max((row for name, row in models.items() if name not in without), key=lambda row: row["generation"])


def _partitions(connection: sa.Connection, step: Step) -> dict[int, Row]:
    query = "SELECT * FROM partitions WHERE stage = $stage AND variant = $variant ORDER BY chunk_id"
    rows = query_arrow(connection, query, {"stage": step.stage.name, "variant": step.variant}).to_pylist()
    return {row["chunk_id"]: row for row in rows}


def _find_partitions(
    stage: Stage,
    ours: Mapping[int, Row],
    theirs: Mapping[int, Row],
    payloads: dict[tuple[str, int], str],
    found: _Takeover,
) -> None:
    """Add the partitions of one stage that this store lacks, and note what each chunk will be."""
    payloads.update(((stage.name, chunk), row["payload"]) for chunk, row in ours.items())
    for chunk, row in theirs.items():
        upstream = payloads.get((stage.reads, chunk))
        if chunk in ours and ours[chunk]["input_payload"] == upstream:
            found.n_here += 1
        elif row["input_payload"] == upstream:
            found.partitions.append(row)
            payloads[stage.name, chunk] = row["payload"]
        else:
            found.notes.append(f"left there: {row['path']}, which was made from other rows than those here")


def _note_the_rest(yours: sa.Connection, found: _Takeover) -> None:
    n = yours.execute(sa.text("SELECT count(*) FROM partitions")).scalar_one()
    rest = n - found.n_here - len(found.partitions) - len(found.notes)
    if rest:
        found.notes.append(f"left there: {counted(rest, 'partition')} of other variants")


def _check(context: Context, other: Context, found: _Takeover) -> None:
    """Read every file that is to be taken, and make sure that there is room."""
    if found.n_bytes > context.root.free_bytes():
        raise NotEnoughSpace(
            f"{human_bytes(found.n_bytes)} are to be copied from {other.root.path}, and {context.root.path} has "
            f"{human_bytes(context.root.free_bytes())} free; make room, then merge again"
        )
    try:
        for row in found.models:
            describe_model(other.root, row["path"])
        for row in found.partitions:
            described = check_partition(other.root, row["path"])
            if described.row.checksum != row["checksum"]:
                raise CorruptFile(f"{row['path']} is not the file that was recorded")
    except CorruptFile as error:
        raise CorruptFile(
            f"{other.root.path}: {error}; nothing was taken from it. Mend it first: "
            + command_line("verify", other.root.path, "--repair")
        ) from error


def _copy(context: WritableContext, other: Context, row: Row) -> None:
    name = row["path"]
    with context.root.publishing(name) as temporary:
        with readable(other.root.local(name)):
            shutil.copyfile(other.root.local(name), temporary)
        if file_digest(temporary) != row["checksum"]:
            raise CorruptFile(f"{name} changed while it was copied from {other.root.path}; merge again")


def _take_runs(context: WritableContext, other: Context, variants: Collection[str]) -> None:
    """Take over who made what was taken, when and with what."""
    with other.catalog.reading() as connection:
        query = "SELECT * FROM runs WHERE list_contains($variants, variant) AND outcome <> 'running'"
        runs = query_arrow(connection, query, {"variants": sorted(variants)})
    with context.catalog.transaction() as connection:
        known = connection.execute(sa.select(Run.run_id)).scalars().all()
        new = pc.invert(pc.is_in(runs["run_id"], pa.array(known, pa.string())))
        insert_arrow(connection, Run.__tablename__, runs.filter(new))
