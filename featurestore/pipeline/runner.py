"""The loop over stages: plan the missing partitions, and compute them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from featurestore.catalog import Context, StagePlan, WritableContext, make_plan, resolve, with_finished_blocks
from featurestore.engines import Engine, RemoteEngine, open_engine
from featurestore.errors import NotReady
from featurestore.formatting import chunk_list
from featurestore.pipeline.chunk_run import TransformRun
from featurestore.pipeline.extract_run import ExtractRun
from featurestore.pipeline.fit_run import run_fit
from featurestore.pipeline.terms import agreed_terms
from featurestore.progress import StageSummary
from featurestore.stages import Extract, FitStage
from featurestore.system import command_line, one_blas_thread


@dataclass(frozen=True)
class Options:
    """The options of a run."""

    stages: tuple[str, ...] = ()  # empty: bring everything up to date
    chunks: frozenset[int] | None = None  # None: all
    workers: int = 1
    max_bytes: int | None = None  # of memory for extract; None: most of what is free
    engine: str | None = None  # its name; None: processes of this machine, or this process for 0 workers
    scheduler: str | None = None  # of an engine whose workers are elsewhere
    retry: tuple[str, ...] = ()  # statuses of rows to recompute
    replaced: Mapping[int, frozenset[int]] = field(default_factory=dict)  # images of other files, by chunk
    partial: bool = False
    update: bool = False
    confirm: Callable[[str], bool] = field(default=lambda question: False)


def plan_of(context: Context, options: Options, only: Collection[str] | None = None) -> dict[str, StagePlan]:
    """Return the current plan of every stage, or of some stages only, for the requested chunks."""
    retry, replaced, asked = options.retry, options.replaced, options.stages
    with context.catalog.reading() as connection:
        steps = resolve(connection, context.flow)
        plans = make_plan(connection, steps, retry=retry, replaced=replaced, asked=asked, only=only)
    if options.chunks is not None:
        plans = {name: _only(plan, options.chunks) for name, plan in plans.items()}
    if Extract.name in plans:
        plans[Extract.name] = with_finished_blocks(context, plans[Extract.name], retry=options.retry)
    return plans


def _only(plan: StagePlan, chunks: Collection[int]) -> StagePlan:
    if isinstance(plan.step.stage, FitStage):
        return plan
    return replace(plan, todo=tuple(work for work in plan.todo if work.chunk_id in chunks))


def run_stages(
    context: WritableContext, options: Options, today: Mapping[str, StagePlan] | None = None
) -> list[StageSummary]:
    """Bring the stages up to date, and return a summary of each.

    Args:
        context: of the store.
        options: of the run.
        today: the plan of every stage as the store is now, if the caller has it from `plan_of`.

    Raises:
        NotReady: what a stage reads is incomplete.
        NothingUsable: every image failed, or there is nothing to learn from.
    """
    engine = open_engine(options.workers, options.engine, scheduler=options.scheduler)
    names = options.stages or tuple(stage.name for stage in context.flow)
    try:
        with agreed_terms(engine, context), one_blas_thread():
            summaries = run_each(context, engine, options, names, today)
    except BaseException:
        engine.close()
        context.root.sweep()  # a worker that was killed may have left a temporary file
        raise
    engine.close()
    if any(summaries):
        context.root.sweep()  # the file of a worker that died, whose task was done by another one
    return [summary for summary in summaries if summary is not None]


def run_each(
    context: WritableContext,
    engine: Engine,
    options: Options,
    names: Sequence[str],
    today: Mapping[str, StagePlan] | None = None,
) -> list[StageSummary | None]:
    """Bring stages up to date, in this order, and return a summary of each; None for one that had nothing to do."""
    summaries: list[StageSummary | None] = []
    plans = dict(today or {})
    for number, name in enumerate(names):
        plans = plans or plan_of(context, options, names[number:])
        summaries.append(run_stage(context, engine, options, plans[name]))
        if summaries[-1] is not None:  # the catalog has changed; no other process may change it
            plans = {}
    return summaries


def run_stage(context: WritableContext, engine: Engine, options: Options, plan: StagePlan) -> StageSummary | None:
    """Compute the missing partitions or the model of one stage; return None if there are none."""
    name = plan.step.stage.name
    if isinstance(plan.step.stage, FitStage):
        if fit_waits(plan, options):
            unready = [work.chunk_id for work in plan.todo if not work.input_ready]
            context.reporter.say(f"{name} waits for {plan.step.stage.reads} of {chunk_list(unready)}")
            return None
        return run_fit(context, engine, plan, partial=options.partial, update=options.update, confirm=options.confirm)
    waits = options.chunks is not None and not options.stages and plan.step.variant is None
    if waits or not plan.todo:
        return None
    refuse_unready(plan, fitted=plan.step.variant is not None)
    if isinstance(plan.step.stage, Extract):
        refuse_imported(context, plan.step.stage, [work.chunk_id for work in plan.todo])
        max_bytes = options.max_bytes
        if max_bytes is None and isinstance(engine, RemoteEngine):
            max_bytes = engine.memory()
        return ExtractRun(context, engine, plan, max_bytes=max_bytes).run()
    return TransformRun(context, engine, plan).run()


def refuse_imported(context: Context, stage: Extract, chunks: Sequence[int]) -> None:
    """Check that an extractor can compute descriptors.

    Raises:
        NotReady: they are imported from elsewhere.
    """
    if verb := stage.extractor.imported_by:
        raise NotReady(
            f"the descriptors of {stage.extractor.name} are not computed but imported, and {chunk_list(chunks)} can't "
            f"be without them; import them with: {command_line(verb, context.root.path, 'DB')}. Images that DB lacks "
            f"are left out by removing their rows from the dataset: {command_line('ingest', context.root.path)}, then "
            "import again"
        )


def fit_waits(plan: StagePlan, options: Options) -> bool:
    """Return whether a fit is skipped: it learns from every chunk, and only some were requested."""
    return options.chunks is not None and any(not work.input_ready for work in plan.todo)


def refuse_unready(plan: StagePlan, *, fitted: bool) -> None:
    """Check that a stage can run; ``fitted`` is whether its model exists.

    Raises:
        NotReady: its model or its input partitions do not exist.
    """
    stage = plan.step.stage
    if not fitted:
        raise NotReady(
            f"{stage.name} needs the model of {stage.model}, which has not been fitted yet; "
            f"run {stage.model} first, or run without naming a stage"
        )
    unready = [work.chunk_id for work in plan.todo if not work.input_ready]
    if unready:
        raise NotReady(
            f"{stage.name} reads {stage.reads}, which is not up to date for {chunk_list(unready)}; "
            f"run {stage.reads} first, or run without naming a stage"
        )
