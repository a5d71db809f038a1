"""The status of a store: each stage's chunks, images, descriptors and bytes, and what is missing and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from duckdb import DuckDBPyConnection

from featurestore.catalog import (
    Context,
    DatasetMasks,
    StageFacts,
    StagePlan,
    Step,
    TrainingSet,
    change_note,
    count_finished_images,
    dataset_counts,
    make_plan,
    observed_before,
    opencv_of,
    resolve,
    running_stage,
    stage_facts,
    utc_now,
    why_missing,
)
from featurestore.formatting import chunk_list, counted
from featurestore.query.index_coverage import Coverage, index_coverage
from featurestore.query.status_report import StageStatus, Status
from featurestore.stages import Extract, FitStage
from featurestore.storage import Root, living_holder
from featurestore.system import command_line


def store_status(context: Context) -> Status:
    """Return the status of a store."""
    with context.catalog.reading() as connection:
        steps = resolve(connection, context.flow)
        plans = make_plan(connection, steps)
        missing = {name: _missing(connection, plan) for name, plan in plans.items()}
        dataset = dataset_counts(connection)
        facts = stage_facts(connection, steps, n_removed=dataset.n_removed)
        masks = DatasetMasks(connection)
        notes = {step.stage.name: _notes(connection, context.root, step, masks) for step in steps}
        before = observed_before(connection)
        coverage = index_coverage(context, connection, steps)
        running = running_stage(connection, context.root, plans, now=utc_now())
    if coverage is not None and coverage.chunks:
        notes[coverage.stage.name].append(_index_note(context.root, coverage))
    stages = tuple(
        _stage_status(context.root, plan, facts[name], missing[name], notes[name]) for name, plan in plans.items()
    )
    holder = living_holder(context.root)
    return Status(
        str(context.root.path),
        dataset.n_images,
        dataset.subsets,
        dataset.n_chunks,
        stages,
        holder,
        notes=tuple(filter(None, [change_note(context, before), _removed_note(dataset.n_removed)])),
        running=running if holder is not None else None,
    )


def outline(context: Context) -> str:
    """Return the number of images and whether all is done, in one line: ``483 images, extract 3/8, project 0/8``."""
    with context.catalog.reading() as connection:
        plans = make_plan(connection, resolve(connection, context.flow))
        n_images = dataset_counts(connection).n_images
    unfinished = [
        f"{name} {plan.n_chunks - len(plan.todo):,}/{plan.n_chunks:,}" for name, plan in plans.items() if plan.todo
    ]
    return ", ".join([counted(n_images, "image"), *(unfinished or ["up to date"])])


def _index_note(root: Root, coverage: Coverage) -> str:
    n, there = coverage.n_images, coverage.n_in_file
    if there == n:
        return f"the index file covers all {counted(n, 'image')}"
    if not coverage.old:
        return f"the index file covers {there:,} of {counted(n, 'image')}; a search reads the others too"
    return f"the index file covers {there:,} of {counted(n, 'image')}; make it with: {command_line('index', root.path)}"


def _removed_note(n: int) -> str | None:
    left = f"{counted(n, 'image')} {'has' if n == 1 else 'have'} left the dataset; see the view removed_images"
    return left if n else None


def _notes(connection: DuckDBPyConnection, root: Root, step: Step, masks: DatasetMasks) -> list[str]:
    if not isinstance(step.stage, FitStage) or step.current_model is None:
        return []
    notes, learning = [], TrainingSet(connection, step, masks)
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


def _stage_status(
    root: Root, plan: StagePlan, facts: StageFacts, missing: Sequence[tuple[str, str]], notes: Sequence[str]
) -> StageStatus:
    step, lines = plan.step, list(notes)
    if facts.n_clipped and facts.n_values:
        lines.append(f"{facts.n_clipped / facts.n_values:.3%} of the values were clipped to the bounds")
    if len(facts.versions) > 1:
        lines.append(_mixed(facts.versions))
    if facts.n_pruned:
        lines.append(f"pruned: {counted(facts.n_pruned, 'partition')}")
    return StageStatus(
        stage=step.stage.name,
        is_fit=isinstance(step.stage, FitStage),
        variant=step.variant,
        n_chunks=plan.n_chunks,
        n_done=plan.n_chunks - len(plan.todo),
        missing=tuple(missing),
        images=facts.images,
        n_descriptors=facts.n_descriptors,
        n_bytes=facts.n_bytes if not step.current_model else step.current_model.n_bytes,
        n_in_blocks=count_finished_images(root, plan) if isinstance(step.stage, Extract) else 0,
        model=step.current_model,
        notes=tuple(lines),
    )


def _mixed(versions: Sequence[Mapping[str, str]]) -> str:
    """Return a note on a variant made by several library versions: versions of OpenCV differ in descriptors."""
    opencv = sorted(set(map(opencv_of, versions)))
    if len(opencv) > 1:
        return f"made by several versions of OpenCV, which give other descriptors: {', '.join(opencv)}"
    return "made by several versions of the libraries; see: SELECT DISTINCT versions FROM partitions"


def _missing(connection: DuckDBPyConnection, plan: StagePlan) -> tuple[tuple[str, str], ...]:
    if isinstance(plan.step.stage, FitStage):
        return () if plan.step.current_model else ((why_missing(connection, plan.step), ""),)
    reasons = Counter(work.why for work in plan.todo)
    return tuple((why, chunk_list([w.chunk_id for w in plan.todo if w.why == why])) for why in reasons)
