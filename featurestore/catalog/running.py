"""The stage that a run is at, as others see it: from finished blocks, partitions and the checkpoint of a fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from featurestore.catalog.blocks import count_finished_images, finished_blocks
from featurestore.catalog.plan import StagePlan
from featurestore.catalog.statements import query_value
from featurestore.catalog.table_rows import Outcome, query_row, query_rows
from featurestore.errors import CorruptFile, FormatError, UnreadableFile
from featurestore.stages import Extract, FitStage
from featurestore.storage import Root, read_state


@dataclass(frozen=True)
class RunningStage:
    """The stage that a run is at, and how far it is."""

    stage: str
    n_images: int  # of the stage, in all chunks
    n_done: int  # of these, by earlier runs too
    seconds: float  # since the stage began
    images_per_second: float | None  # since then; None until the first images are done
    seconds_left: float | None  # at this rate


class _Begun(NamedTuple):
    stage: str
    variant: str
    started: datetime  # UTC, naive
    n_images: int  # of extract: done by this run, in partitions


_LATEST = f"""SELECT stage, variant, started, n_images FROM runs WHERE outcome = '{Outcome.RUNNING}'
              ORDER BY started DESC LIMIT 1"""


class _Made(NamedTuple):
    path: str
    n_images: int


def running_stage(
    connection: DuckDBPyConnection, root: Root, plans: Mapping[str, StagePlan], *, now: datetime
) -> RunningStage | None:
    """Return the stage that is recorded as running, whether its process lives or not; None if there is none.

    Args:
        connection: to the catalog.
        root: of the store.
        plans: of every stage.
        now: the current time, UTC and naive.
    """
    begun = query_row(connection, _Begun, _LATEST)
    plan = plans.get(begun.stage) if begun is not None else None
    if begun is None or plan is None or plan.step.variant != begun.variant:
        return None
    if isinstance(plan.step.stage, FitStage):
        n_images = sum(work.n_images for work in plan.inputs)
        n_done, n_new = _learnt(root, plan, begun.started)
    else:
        n_images = int(query_value(connection, "SELECT coalesce(sum(n_images), 0) FROM chunks"))
        n_done = n_images - sum(work.n_images for work in plan.todo) + count_finished_images(root, plan)
        if isinstance(plan.step.stage, Extract):  # its partitions may have images that an earlier run extracted
            n_new = begun.n_images + _in_blocks_since(root, plan, begun.started)
        else:
            query = "SELECT path, n_images FROM partitions WHERE variant = $variant AND NOT pruned"
            made = query_rows(connection, _Made, query, {"variant": begun.variant})
            n_new = _since(root, plan, made, begun.started)
    seconds = max((now - begun.started).total_seconds(), 0.0)
    rate = n_new / seconds if n_new and seconds else None
    left = None if rate is None else (n_images - n_done) / rate
    return RunningStage(begun.stage, n_images, n_done, seconds, rate, left)


def _since(root: Root, plan: StagePlan, made: Iterable[_Made], started: datetime) -> int:
    """Return the number of images in partitions that were written since then."""
    begun = _nanoseconds(started)
    states, _ = root.partitions.list(f"partitions/{plan.step.stage.name}/{plan.step.variant}", ".parquet")
    files = [(states.get(file.path), file.n_images) for file in made]
    return sum(n_images for state, n_images in files if state is not None and state.modified_ns >= begun)


def _in_blocks_since(root: Root, plan: StagePlan, started: datetime) -> int:
    """Return the number of images in finished blocks that were written since then."""
    n_images = 0
    for block in finished_blocks(root, plan):
        with suppress(UnreadableFile):
            state = root.state(block.name)  # None: its partition was published meanwhile
            n_images += block.n_images if state is not None and state.modified_ns >= _nanoseconds(started) else 0
    return n_images


def _nanoseconds(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp() * 1e9


def _learnt(root: Root, plan: StagePlan, started: datetime) -> tuple[int, int]:
    """Return how many images the chunks have that the checkpoint of a fit has learnt, and those learnt since then."""
    name = f"models/{plan.step.stage.name}/{plan.step.variant}/state.npz"
    try:
        _, manifest = read_state(root.local(name))
        state = root.state(name)
    except (OSError, CorruptFile, FormatError, UnreadableFile):  # before the first chunk, or after the last
        return 0, 0
    n_images = {str(work.chunk_id): work.n_images for work in plan.inputs}
    learnt = n_images.keys() & set(manifest.get("chunks", {}))
    of_this_run = state is not None and state.modified_ns >= _nanoseconds(started)
    new = learnt - set(map(str, manifest.get("resumed", []))) if of_this_run else set()
    return sum(map(n_images.__getitem__, learnt)), sum(map(n_images.__getitem__, new))
