"""The plan: what is missing at every stage of the recipe, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from duckdb import DuckDBPyConnection

from featurestore.catalog.chunk_state import ChunkState, chunk_states
from featurestore.catalog.partitions import has_partitions
from featurestore.catalog.statements import query_column, query_pairs, query_value
from featurestore.catalog.steps import Step
from featurestore.catalog.table_rows import Outcome, VariantRow, query_row
from featurestore.rows import Status
from featurestore.stages import ChunkStage
from featurestore.storage import Block


@dataclass(frozen=True)
class Work:
    """One chunk of one stage that a run has to compute."""

    chunk_id: int
    first_image_id: int
    n_images: int
    why: str
    input_payload: str | None
    input_path: str | None
    input_ready: bool
    old_path: str | None = None
    old_payload: str | None = None
    redo: frozenset[int] | None = None  # only these images; None: all
    again: bool = False  # it was pruned, and recomputing gives the same rows
    pruned: bool = False  # of what a fit learns from: only its index is left
    whole_for: int = 0  # images to recompute; the others only because they were pruned
    finished: tuple[Block, ...] = ()  # of extract: blocks that an earlier run finished

    @property
    def wanted(self) -> Sequence[int]:
        """The images to compute, ascending."""
        return (
            range(self.first_image_id, self.first_image_id + self.n_images) if self.redo is None else sorted(self.redo)
        )

    @property
    def n_left(self) -> int:
        """The number of images that are in no finished block."""
        n_wanted = self.n_images if self.redo is None else len(self.redo)
        return n_wanted - sum(len(block.image_ids) for block in self.finished)


@dataclass(frozen=True)
class StagePlan:
    """The work of one stage. A fit stage without a model has to learn all of its ``inputs``, one with a model none."""

    step: Step
    n_chunks: int
    todo: tuple[Work, ...]
    inputs: tuple[Work, ...] = ()


def make_plan(
    connection: DuckDBPyConnection,
    steps: Sequence[Step],
    *,
    retry: Collection[str] = (),
    replaced: Mapping[int, frozenset[int]] | None = None,
    asked: Collection[str] = (),
    only: Collection[str] | None = None,
) -> dict[str, StagePlan]:
    """Return the plan of every stage, by the stage's name.

    Args:
        connection: to the catalog.
        steps: from `resolve`.
        retry: statuses whose rows of extract are recomputed.
        replaced: by chunk, the images whose file has changed since it was extracted.
        asked: stages requested by name: their pruned partitions are recomputed too.
        only: the plans of these stages are enough; None: all.
    """
    state = chunk_states(connection, steps)
    plans = {}
    for step in (step for step in steps if only is None or step.stage.name in only):
        rows = [row for row in state if row.stage == step.stage.name]
        if isinstance(step.stage, ChunkStage):
            other = replaced or {} if step.stage.reads == "images" else {}
            stale = stale_images(connection, step, retry)
            redo = {chunk: stale.get(chunk, frozenset()) | other.get(chunk, frozenset()) for chunk in {*stale, *other}}
            reason = why_missing(connection, step) if any(not row.current for row in rows) else ""
            works = [_work(row, redo, reason, row.wanted or step.stage.name in asked) for row in rows]
            todo = [_with_reason(work, other) for work in works if work]
            plans[step.stage.name] = StagePlan(step, len(rows), tuple(todo))
        else:
            plans[step.stage.name] = _fit_plan(step, [row for row in state if row.stage == step.stage.reads])
    return plans


def _work(row: ChunkState, redo: dict[int, frozenset[int]], reason: str, wanted: bool) -> Work | None:
    images = redo.get(row.chunk_id)
    pruned = row.current and row.pruned
    again, whole_for = pruned and not images, len(images or ()) if pruned and not wanted else 0
    if not row.current:
        why = "input changed" if row.payload is not None else reason
        images = None
    elif row.pruned and (wanted or images):
        why, images = "pruned, and needed again", None
    elif images:
        why = "failed or decided otherwise by a policy" if row.upstream_current else "input changed"
        images = images if row.pos == 0 else None  # only extract recomputes single images; other stages are quick
    elif not row.upstream_current:
        why = "input changed"
    else:
        return None
    return Work(
        chunk_id=row.chunk_id,
        first_image_id=row.first_image_id,
        n_images=row.n_images,
        why=why,
        input_payload=row.input_payload,
        input_path=row.input_path,
        input_ready=row.input_payload is not None and not row.input_pruned and row.upstream_current,
        old_path=row.path,
        old_payload=row.payload,
        redo=images,
        again=again,
        whole_for=whole_for,
    )


def _with_reason(work: Work, replaced: Mapping[int, frozenset[int]]) -> Work:
    return replace(work, why="image files were replaced") if work.redo and work.chunk_id in replaced else work


def _fit_plan(step: Step, inputs: list[ChunkState]) -> StagePlan:
    todo = [
        Work(
            chunk_id=row.chunk_id,
            first_image_id=row.first_image_id,
            n_images=row.n_images,
            why="pruned" if row.pruned else "never run",
            pruned=row.pruned,
            input_payload=row.payload,
            input_path=row.path,
            input_ready=row.current and row.upstream_current and not row.pruned,
        )
        for row in inputs
    ]
    chunks = tuple(todo)
    return StagePlan(step, len(inputs), chunks if step.current_model is None else (), chunks)


def stale_images(connection: DuckDBPyConnection, step: Step, retry: Collection[str] = ()) -> dict[int, frozenset[int]]:
    """Return the images of each chunk whose row in a current partition must be recomputed.

    These are rows that the current policies decide differently, and rows of a status in ``retry``.
    """
    assert isinstance(step.stage, ChunkStage)
    stale = step.stage.stale_rows()
    if step.stage.reads != "images":  # other failures come from extract, and change with it
        retry = [status for status in retry if status == Status.CRASHED]
    if stale is None and not retry:
        return {}
    key = {"stage": step.stage.name, "variant": step.variant}
    of_variant = "FROM results WHERE stage = $stage AND variant = $variant"
    perhaps = step.stage.perhaps_stale_rows()
    if perhaps and not retry and not query_column(connection, f"SELECT 1 {of_variant} AND ({perhaps}) LIMIT 1", key):
        return {}
    statuses = ", ".join(f"'{status}'" for status in retry) or "NULL"
    # The rows of a chunk must not depend on when an image left the dataset; a retry may.
    retried = f"status IN ({statuses}) AND image_id NOT IN (SELECT image_id FROM images WHERE removed_by IS NOT NULL)"
    chosen = f"{of_variant} AND (({stale or 'false'}) OR ({retried}))"
    found = query_pairs(connection, f"SELECT chunk_id, list(image_id) AS images {chosen} GROUP BY chunk_id", key)
    return {chunk: frozenset(images) for chunk, images in found.items()}


def why_missing(connection: DuckDBPyConnection, step: Step) -> str:
    """Return why a variant of a stage has no partitions."""
    if step.variant is None:
        return f"waits for {step.stage.model or step.stage.reads}"
    query = "SELECT outcome, message FROM runs WHERE variant = $variant ORDER BY started DESC LIMIT 1"
    for outcome, message in connection.execute(query, {"variant": step.variant}).fetchall():
        if outcome == Outcome.FAILED:
            return f"failed: {message}"
    other = query_row(
        connection,
        VariantRow,
        """SELECT v.* FROM variants v JOIN partitions p ON p.variant = v.variant
           WHERE v.stage = $stage AND v.variant <> $variant
           GROUP BY ALL ORDER BY count(*) DESC, v.variant LIMIT 1""",
        {"stage": step.stage.name, "variant": step.variant},
    )
    if other is None or has_partitions(connection, step.variant):
        return "never run"
    return _difference(step, other)


def _difference(step: Step, other: VariantRow) -> str:
    changed = _changes(other.parameters, step.stage.parameters())
    if changed:
        return f"parameters changed ({', '.join(changed)})"
    if other.version != step.stage.version:
        return f"version of the stage changed ({other.version} -> {step.stage.version})"
    if other.model_id != step.model_id:
        return f"model changed ({other.model_id} -> {step.model_id})"
    return f"{step.stage.reads} changed"


def _changes(before: dict[str, Any], today: dict[str, Any]) -> list[str]:
    found = []
    for name, value in today.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            found += [f"{name}.{change}" for change in _changes(old, value)]
        elif old != value:
            found.append(f"{name}: {old} -> {value}")
    return found


def downstream_partitions(connection: DuckDBPyConnection, step: Step) -> int:
    """Return the number of partitions made with a model, directly or downstream."""
    assert step.current_model is not None
    query = """WITH RECURSIVE made AS (
                   SELECT variant FROM variants WHERE model_id = $model
                   UNION
                   SELECT v.variant FROM variants v JOIN made m ON v.reads_variant = m.variant
               )
               SELECT count(*) FROM partitions SEMI JOIN made USING (variant)"""
    return int(query_value(connection, query, {"model": step.current_model.model_id}))
