"""Cost estimates of a run: chunks, bytes and, from earlier runs, the time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from featurestore.catalog import Context, StagePlan, bytes_per_image, paces
from featurestore.engines import WINDOW
from featurestore.errors import NotEnoughSpace
from featurestore.formatting import chunk_list, counted, human_bytes, human_seconds
from featurestore.stages import ChunkStage, FitPca

SPARE = 1.1  # reserve beyond the estimate: a new file is written before the old one is deleted
MANY = 1_000_000  # images, of which a fit on one core takes longer than all else on a cluster


@dataclass(frozen=True)
class Estimate:
    """The work of one stage, and its cost."""

    stage: str
    chunks: tuple[int, ...]
    n_images: int
    n_bytes: int
    block_bytes: int  # of blocks and other pieces of partitions, deleted when their chunk is published
    seconds: float | None  # None: no earlier run tells
    why: tuple[tuple[str, str], ...]  # the reasons, and the chunks of each
    notes: tuple[str, ...] = ()  # what to know before it begins

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return dataclasses.asdict(self)


class Plan(list[Estimate]):
    """The work of a run, by stage; a notebook shows it as a table."""

    def _repr_html_(self) -> str:
        from featurestore.notebook import html_lines, html_table

        if not self:
            return html_lines(["everything is up to date; there is nothing to do"])
        table = html_table(PLAN_HEADER, plan_rows(self), numbers=[False, *[True] * 4, False])
        return table + html_lines(plan_lines(self))


PLAN_HEADER = ("stage", "chunks", "images", "writes about", "takes about", "why")


def plan_rows(plan: Sequence[Estimate]) -> list[list[str]]:
    """Return a row for each stage, with the columns of `PLAN_HEADER`."""
    return [
        [
            e.stage,
            f"{len(e.chunks):,}",
            f"{e.n_images:,}",
            human_bytes(e.n_bytes) if e.n_bytes else "",
            human_seconds(e.seconds) if e.seconds is not None else "unknown",
            "; ".join(f"{why} ({chunks})" for why, chunks in e.why),
        ]
        for e in plan
    ]


def plan_lines(plan: Sequence[Estimate]) -> list[str]:
    """Return the lines below the table."""
    total = human_bytes(sum(e.n_bytes for e in plan))
    return [
        f"about {total} in all; stages that wait for a model are counted in full",
        *(note for e in plan for note in e.notes),
    ]


def estimate_costs(connection: DuckDBPyConnection, plans: Mapping[str, StagePlan]) -> Plan:
    """Return the cost of every stage that has work."""
    past = paces(connection)
    sizes = bytes_per_image(connection)
    return Plan(_of(name, plan, past.get(name), sizes) for name, plan in plans.items() if plan.todo)


def _of(name: str, plan: StagePlan, pace: float | None, sizes: Mapping[str, float]) -> Estimate:
    n_images = sum(work.n_left for work in plan.todo)
    # A chunk of which some images are extracted again is rewritten as a whole.
    stage = plan.step.stage
    written = sum(work.n_images for work in plan.todo) if isinstance(stage, ChunkStage) else 0
    size = sizes.get(name) or (stage.typical_bytes if isinstance(stage, ChunkStage) else 0)
    reasons = list(dict.fromkeys(work.why for work in plan.todo))
    why = tuple((reason, chunk_list([w.chunk_id for w in plan.todo if w.why == reason])) for reason in reasons)
    return Estimate(
        stage=name,
        chunks=tuple(work.chunk_id for work in plan.todo),
        n_images=n_images,
        n_bytes=round(written * size),
        block_bytes=round(_in_blocks(plan) * size),
        seconds=None if pace is None else pace * n_images,
        why=why,
        notes=_notes(plan, n_images, pace),
    )


def _notes(plan: StagePlan, n_images: int, pace: float | None) -> tuple[str, ...]:
    """Return what a fit of so many images would take on one core, and with the solver that all workers share."""
    stage = plan.step.stage
    if n_images <= MANY or not isinstance(stage, FitPca) or stage.joins():
        return ()
    serial = n_images * (pace or stage.typical_seconds[stage.solver])
    shared = n_images * stage.typical_seconds["covariance"]
    return (
        f'{stage.name} with solver = "{stage.solver}" learns one image after another, on one core: about '
        f'{human_seconds(serial)} for {counted(n_images, "image")}. With "covariance" all workers share about '
        f"{human_seconds(shared)} of CPU time; the model is another one (docs/scaling.md)",
    )


def _in_blocks(plan: StagePlan) -> int:
    """Return how many images are in blocks at one time: those of the chunk that is being joined, and of the next."""
    left = [work.n_left for work in plan.todo] if isinstance(plan.step.stage, ChunkStage) else []
    return sum(sorted(left)[-2:])


def refuse_if_too_large(context: Context, estimates: Sequence[Estimate], *, workers: int = 0) -> None:
    """Check that the disk has room for the run: of partitions that are elsewhere, for those that workers write now.

    Raises:
        NotEnoughSpace: it has less than the estimate.
    """
    partitions = [e.n_bytes for e in estimates]
    if not context.root.partitions.is_local:
        at_once = WINDOW * max(workers, 1)
        partitions = [round(e.n_bytes * min(1, at_once / len(e.chunks))) for e in estimates if e.chunks]
        partitions = [max(partitions, default=0)]
    written = sum(partitions) + max((e.block_bytes for e in estimates), default=0)
    needed, free = round(written * SPARE), context.root.free_bytes()
    if needed > free:
        raise NotEnoughSpace(
            f"this run will write about {human_bytes(needed)}, and {context.root.path} has {human_bytes(free)} free; "
            "make room, or run fewer chunks at a time with --chunks"
        )
