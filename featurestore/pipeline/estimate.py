"""Cost estimates of a run: chunks, bytes and, from earlier runs, the time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from featurestore.catalog import Context, StagePlan, bytes_per_image, paces
from featurestore.errors import NotEnoughSpace
from featurestore.formatting import chunk_list, human_bytes
from featurestore.stages import ChunkStage

SPARE = 1.1  # reserve beyond the estimate: a new file is written before the old one is deleted


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

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return dataclasses.asdict(self)


def estimate_costs(connection: DuckDBPyConnection, plans: Mapping[str, StagePlan]) -> list[Estimate]:
    """Return the cost of every stage that has work."""
    past = paces(connection)
    sizes = bytes_per_image(connection)
    return [_of(name, plan, past.get(name), sizes) for name, plan in plans.items() if plan.todo]


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
    )


def _in_blocks(plan: StagePlan) -> int:
    """Return how many images are in blocks at one time: those of the chunk that is being joined, and of the next."""
    left = [work.n_left for work in plan.todo] if isinstance(plan.step.stage, ChunkStage) else []
    return sum(sorted(left)[-2:])


def refuse_if_too_large(context: Context, estimates: list[Estimate]) -> None:
    """Check that the disk has room for the run.

    Raises:
        NotEnoughSpace: it has less than the estimate.
    """
    written = sum(estimate.n_bytes for estimate in estimates) + max((e.block_bytes for e in estimates), default=0)
    needed, free = round(written * SPARE), context.root.free_bytes()
    if needed > free:
        raise NotEnoughSpace(
            f"this run will write about {human_bytes(needed)}, and {context.root.path} has {human_bytes(free)} free; "
            "make room, or run fewer chunks at a time with --chunks"
        )
