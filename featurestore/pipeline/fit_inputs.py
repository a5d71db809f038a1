"""The chunks that a fit learns from, and refusals when too few of them are ready."""

from __future__ import annotations

from collections.abc import Sequence

from featurestore.catalog import (
    Context,
    Mask,
    StagePlan,
    Step,
    TrainingSet,
    Work,
)
from featurestore.errors import NotReady
from featurestore.formatting import chunk_list, counted
from featurestore.system import command_line


def wanted_chunks(context: Context, plan: StagePlan) -> list[Work]:
    """Return the chunks that a fit learns from, ready or not: all, or those with images new to its model."""
    if plan.step.current_model is None:
        return list(plan.todo)
    unseen = unseen_images(context, plan.step)
    return [w for w in plan.inputs if w.chunk_id in unseen or not (w.input_ready or w.pruned)]


def ready_chunks(context: Context, step: Step, wanted: Sequence[Work], *, partial: bool) -> list[Work]:
    """Return the chunks whose input exists.

    Raises:
        NotReady: some are not, and ``partial`` was not given; or none is.
    """
    ready = [work for work in wanted if work.input_ready]
    missing = [work.chunk_id for work in wanted if not work.input_ready]
    none = step.current_model is None and not ready
    if missing and (none or not partial):
        without = "" if none else f", or fit without them: {_without_them(context, step)}"
        raise NotReady(
            f"{step.stage.name} learns from every chunk, and {step.stage.reads} is not up to date for "
            f"{chunk_list(missing)}; run {step.stage.reads} first{without}"
        )
    return ready


def _without_them(context: Context, step: Step) -> str:
    return command_line("run", context.root.path, step.stage.name, "--partial")


def unseen_images(context: Context, step: Step) -> dict[int, int]:
    """Return how many images each chunk has that the model has not learnt."""
    with context.catalog.reading() as connection:
        return TrainingSet(connection, step).unseen()


def refuse_most_lost(context: Context, step: Step) -> Mask:
    """Refuse to fit when most training images have failed; return all training images.

    Raises:
        NotReady: more than half of what it would learn from has failed.
    """
    with context.catalog.reading() as connection:
        learning = TrainingSet(connection, step)
        lost, selected = learning.lost(), learning.selected
    n_images = int(selected.sum())
    n_lost = sum(lost.values())
    if 2 * n_lost > n_images:
        images = counted(n_images, "image")
        reasons = ", ".join(f"{n:,} {status}" for status, n in lost.items())
        raise NotReady(
            f"{step.stage.name} would learn from less than half of its {images}, since {n_lost:,} failed "
            f"({reasons}; SELECT * FROM failures says why). Put that right and run with --retry-failed, or fit without "
            f"them: {_without_them(context, step)}"
        )
    return selected


def selected_images(context: Context, step: Step) -> Mask:
    """Return all training images of a fit, usable or not."""
    with context.catalog.reading() as connection:
        return TrainingSet(connection, step).selected
