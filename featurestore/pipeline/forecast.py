"""The forecast of a run: the plans of all its stages, made before it begins.

`run_each` plans each stage after the earlier ones have run. The forecast makes the same plans ahead, from the chunks
that the earlier stages will have computed, and those that may have changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from duckdb import DuckDBPyConnection

from featurestore.catalog import Context, StagePlan, Work, first_leakage
from featurestore.errors import ConfirmationNeeded, NotReady
from featurestore.formatting import chunk_list, counted, human_seconds
from featurestore.pipeline.estimate import Estimate
from featurestore.pipeline.fit_inputs import ready_chunks, refuse_most_lost, wanted_chunks
from featurestore.pipeline.runner import Options, fit_waits, plan_of, refuse_unready
from featurestore.stages import Extract, FitStage

FOLLOWS = "if images that are made again come out otherwise"


@dataclass(frozen=True)
class Forecast:
    """The work of a run by stage, and the error that will end it, if one is known."""

    plans: dict[str, StagePlan]
    error: NotReady | None
    today: dict[str, StagePlan]  # of every stage as the store is now, before any has run


@dataclass
class _Made:
    """The simulated results of the earlier stages."""

    chunks: dict[str, set[int]] = field(default_factory=dict)  # by stage: chunks whose partition will exist
    changed: dict[str, set[int]] = field(default_factory=dict)  # by stage: chunks whose rows may change
    models: set[str] = field(default_factory=set)  # fit stages with a new model
    variants: set[str] = field(default_factory=set)  # stages whose variant follows from a new model


def make_forecast(context: Context, options: Options) -> Forecast:
    """Return the forecast of `run` with these options.

    Stages that wait for a model are counted in full.
    """
    plans = plan_of(context, options)
    every = next(plan.inputs for plan in plans.values() if isinstance(plan.step.stage, FitStage))
    found, made = dict[str, StagePlan](), _Made()
    for name in options.stages or plans:
        try:
            plan = _ahead(context, options, plans[name], every, made)
        except NotReady as error:
            return Forecast(found, error, plans)
        if plan is not None and plan.todo:
            found[name] = plan
            _note(plan, made)
    return Forecast(found, None, plans)


def _ahead(context: Context, options: Options, plan: StagePlan, every: Iterable[Work], made: _Made) -> StagePlan | None:
    """Return the plan of a stage when its turn comes; None if it waits for an earlier one.

    Raises:
        NotReady: it can't do that.
    """
    if isinstance(plan.step.stage, FitStage):
        return _fit_ahead(context, options, plan, made)
    stage, todo = plan.step.stage, {work.chunk_id: work for work in plan.todo}
    another = stage.model in made.models or stage.reads in made.variants
    follows = made.changed.get(stage.reads, set())
    for work in every:
        if options.chunks is None or work.chunk_id in options.chunks:
            if another:  # without a model, the plan already says what the stage waits for
                known = todo.get(work.chunk_id) if plan.step.variant is None else None
                todo[work.chunk_id] = replace(work, why=known.why if known else "model changed")
            elif work.chunk_id in follows:
                todo.setdefault(work.chunk_id, replace(work, why=FOLLOWS))
    fitted = stage.model in made.models or (plan.step.variant is not None and stage.reads not in made.variants)
    if not todo or (not fitted and options.chunks is not None and not options.stages):
        return None
    ahead = replace(plan, todo=_there(sorted(todo.values(), key=lambda work: work.chunk_id), stage.reads, made))
    refuse_unready(ahead, fitted=fitted)
    return ahead


def _fit_ahead(context: Context, options: Options, plan: StagePlan, made: _Made) -> StagePlan | None:
    reads = plan.step.stage.reads
    if reads in made.variants:  # it has no model yet
        plan = replace(plan, step=replace(plan.step, current_model=None), todo=plan.inputs)
    if fit_waits(replace(plan, todo=_there(plan.todo, reads, made)), options):
        return None
    if plan.step.current_model is not None and not options.update:
        return None
    changed = made.changed.get(reads, set())
    wanted = {work.chunk_id: work for work in wanted_chunks(context, plan)}
    for work in plan.inputs:
        if work.chunk_id in changed:
            wanted.setdefault(work.chunk_id, replace(work, why=FOLLOWS))
    works = _there([wanted[chunk] for chunk in sorted(wanted)], reads, made)
    ready = ready_chunks(context, plan.step, works, partial=options.partial)
    if ready and not options.partial and reads not in made.chunks:
        refuse_most_lost(context, plan.step)
    return replace(plan, todo=tuple(ready))


def _there(works: Iterable[Work], reads: str, made: _Made) -> tuple[Work, ...]:
    """Return the works, with the inputs that the earlier stages will have made."""
    there = made.chunks.get(reads, set())
    return tuple(replace(work, input_ready=work.input_ready or work.chunk_id in there) for work in works)


def _note(plan: StagePlan, made: _Made) -> None:
    stage = plan.step.stage
    if isinstance(stage, FitStage):
        made.models.add(stage.name)
        return
    if stage.model in made.models or stage.reads in made.variants:
        made.variants.add(stage.name)
    made.chunks[stage.name] = {work.chunk_id for work in plan.todo}
    made.changed[stage.name] = {work.chunk_id for work in plan.todo if not work.again}


def refuse_unasked(found: Forecast, estimates: Iterable[Estimate], options: Options) -> None:
    """Ask before pruned chunks are extracted again as a whole because of some of their images.

    Raises:
        ConfirmationNeeded: the caller did not agree.
    """
    plan = found.plans.get(Extract.name)
    works = [work for work in plan.todo if work.whole_for] if plan is not None else []
    if not works:
        return
    cost = next(estimate for estimate in estimates if estimate.stage == Extract.name)
    n_images = sum(work.n_images for work in works)
    takes = (
        "" if cost.seconds is None else f", which takes about {human_seconds(cost.seconds / cost.n_images * n_images)}"
    )
    question = (
        f"{counted(sum(work.whole_for for work in works), 'image')} of {chunk_list([w.chunk_id for w in works])} "
        f"would be extracted again, and the descriptors of the others were pruned: so all {n_images:,} images will be"
        f"{takes}"
    )
    if not options.confirm(question):
        raise ConfirmationNeeded(f"{question}; agree with --yes")


def known_leakage(connection: DuckDBPyConnection, ahead: Forecast, options: Options) -> str | None:
    """Return the note on a model that learnt held-out images, if the run reaches that model."""
    steps = [plan.step for plan in ahead.today.values()]
    names = [step.stage.name for step in steps]
    last = options.stages[-1] if options.stages else names[-1]
    return first_leakage(connection, steps[: names.index(last) + 1])
