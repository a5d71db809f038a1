"""How far a store is: each stage's chunks, images, descriptors and bytes, and what is missing and why."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from featurestore.catalog import (
    Context,
    ModelRow,
    StagePlan,
    Step,
    TrainingSet,
    change_note,
    count_finished_images,
    make_plan,
    observed_before,
    opencv_of,
    query_arrow,
    resolve,
)
from featurestore.formatting import chunk_list, counted
from featurestore.stages import Extract, FitStage
from featurestore.storage import Root, living_holder
from featurestore.system import command_line

NOTHING: Mapping[str, Any] = {
    "n_descriptors": 0,
    "n_bytes": 0,
    "n_clipped": None,
    "n_values": None,
    "n_pruned": 0,
    "versions": [],
}


@dataclass(frozen=True)
class StageStatus:
    """One stage."""

    stage: str
    variant: str | None
    n_chunks: int
    n_done: int
    missing: tuple[tuple[str, str], ...]  # why, and which chunks
    images: Mapping[str, int] = field(default_factory=dict)  # by status
    n_descriptors: int = 0
    n_bytes: int = 0
    n_in_blocks: int = 0  # images of chunks that are not done which an earlier run has extracted already
    model: ModelRow | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """A store."""

    path: str
    n_images: int
    subsets: Mapping[str, int]
    n_chunks: int
    stages: tuple[StageStatus, ...]
    holder: str | None  # who is changing the store now
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return dataclasses.asdict(self)


def store_status(context: Context) -> Status:
    """Return how far the store is."""
    with context.catalog.reading() as connection:
        steps = resolve(connection, context.flow)
        plans = make_plan(connection, steps)
        query = "SELECT subset, count(*) FROM images WHERE removed_by IS NULL GROUP BY 1 ORDER BY 1"
        subsets = connection.execute(sa.text(query)).all()
        query = "SELECT count(*) FROM images WHERE removed_by IS NOT NULL"
        n_removed = connection.execute(sa.text(query)).scalar_one()
        n_chunks = connection.execute(sa.text("SELECT count(*) FROM chunks")).scalar_one()
        facts = _facts(connection, steps)
        notes = {step.stage.name: _notes(connection, context.root, step) for step in steps}
        before = observed_before(connection)
    counts = {str(name): int(n) for name, n in subsets}
    stages = tuple(
        _stage_status(context.root, plans[step.stage.name], facts[step.stage.name], notes[step.stage.name])
        for step in steps
    )
    return Status(
        str(context.root.path),
        sum(counts.values()),
        counts,
        n_chunks,
        stages,
        living_holder(context.root),
        notes=tuple(filter(None, [change_note(context, before), _removed_note(n_removed)])),
    )


def _removed_note(n: int) -> str | None:
    left = f"{counted(n, 'image')} {'has' if n == 1 else 'have'} left the dataset; see the view removed_images"
    return left if n else None


def _facts(connection: sa.Connection, steps: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """Return what is recorded of each step, by the stage's name."""
    # They count every variant, which takes less than looking for today's in ten million rows.
    query = "SELECT stage, variant, status, count(*) AS n FROM results GROUP BY ALL ORDER BY n DESC"
    results = query_arrow(connection, query).to_pylist()
    query = """SELECT stage, variant, status, count(*) AS n, CAST(sum(n_descriptors) AS BIGINT) AS n_descriptors
               FROM results SEMI JOIN (SELECT image_id FROM images WHERE removed_by IS NOT NULL) USING (image_id)
               GROUP BY ALL"""
    removed = {(row["stage"], row["variant"], row["status"]): row for row in query_arrow(connection, query).to_pylist()}
    query = """SELECT stage, variant, CAST(sum(n_descriptors) AS BIGINT) AS n_descriptors,
                      CAST(coalesce(sum(n_bytes) FILTER (WHERE NOT pruned), 0) AS BIGINT) AS n_bytes,
                      CAST(sum(n_clipped) AS BIGINT) AS n_clipped, CAST(sum(n_descriptors * dim) AS BIGINT) AS n_values,
                      count(*) FILTER (WHERE pruned) AS n_pruned, list(DISTINCT versions) AS versions
               FROM partitions GROUP BY ALL"""
    partitions = {(row["stage"], row["variant"]): row for row in query_arrow(connection, query).to_pylist()}
    facts = {}
    for step in steps:
        key = step.stage.name, step.variant
        images = {row["status"]: row["n"] for row in results if (row["stage"], row["variant"]) == key}
        found = {**NOTHING, **partitions.get(key, {})}
        for status in images:
            left = removed.get((*key, status), {"n": 0, "n_descriptors": 0})
            images[status] -= left["n"]
            found["n_descriptors"] -= left["n_descriptors"]
        facts[step.stage.name] = {**found, "images": {status: n for status, n in images.items() if n}}
    return facts


def _notes(connection: sa.Connection, root: Root, step: Step) -> list[str]:
    if not isinstance(step.stage, FitStage) or step.current_model is None:
        return []
    notes, learning = [], TrainingSet(connection, step)
    unseen = sum(learning.unseen().values())
    if unseen:
        update = command_line("run", root.path, step.stage.name, "--update")
        new = f"{counted(unseen, 'image')} {'is' if unseen == 1 else 'are'} new to the model"
        notes.append(f"{new}; to learn what is new: {update}")
    if learning.leakage:
        notes.append(learning.leakage)
    removed = int((learning.learnt & learning.removed).sum())
    if removed:
        left = f"{counted(removed, 'image')} that {'has' if removed == 1 else 'have'} left the dataset"
        notes.append(f"the model learnt from {left}")
    return notes


def _stage_status(root: Root, plan: StagePlan, facts: Mapping[str, Any], notes: Sequence[str]) -> StageStatus:
    step, lines = plan.step, list(notes)
    if facts["n_clipped"]:
        lines.append(f"{facts['n_clipped'] / facts['n_values']:.3%} of the values were clipped to the bounds")
    if len(facts["versions"]) > 1:
        lines.append(_mixed([json.loads(versions) for versions in facts["versions"]]))
    if facts["n_pruned"]:
        lines.append(f"pruned: {counted(facts['n_pruned'], 'partition')}")
    return StageStatus(
        stage=step.stage.name,
        variant=step.variant,
        n_chunks=plan.n_chunks,
        n_done=plan.n_chunks - len(plan.todo),
        missing=_missing(plan),
        images=facts["images"],
        n_descriptors=facts["n_descriptors"],
        n_bytes=facts["n_bytes"] if not step.current_model else step.current_model.n_bytes,
        n_in_blocks=count_finished_images(root, plan) if isinstance(step.stage, Extract) else 0,
        model=step.current_model,
        notes=tuple(lines),
    )


def _mixed(versions: Sequence[Mapping[str, str]]) -> str:
    """Return a note on a variant that several versions of the libraries made: those of OpenCV differ in descriptors."""
    opencv = sorted(set(map(opencv_of, versions)))
    if len(opencv) > 1:
        return f"made by several versions of OpenCV, which give other descriptors: {', '.join(opencv)}"
    return "made by several versions of the libraries; see: SELECT DISTINCT versions FROM partitions"


def _missing(plan: StagePlan) -> tuple[tuple[str, str], ...]:
    if isinstance(plan.step.stage, FitStage):
        return () if plan.step.current_model else (("never run", ""),)
    reasons = Counter(work.why for work in plan.todo)
    return tuple((why, chunk_list([w.chunk_id for w in plan.todo if w.why == why])) for why in reasons)
