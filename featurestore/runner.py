"""The only loop over chunks: plan what is missing, hand it to the engine, record what comes back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import threadpoolctl

from featurestore.assembly import Assembly, partition_manifest
from featurestore.catalog import arrow
from featurestore.context import Context
from featurestore.engines import Engine, Task, dispatch, open_engine
from featurestore.errors import NothingUsable, NotReady
from featurestore.fits import run_fit
from featurestore.ledger import record_file
from featurestore.models import IMAGES, read_arrays
from featurestore.partition import PartitionFile, Row
from featurestore.plan import StagePlan, Work, chunk_list, make_plan, resolve
from featurestore.progress import StageSummary
from featurestore.records import recorded_run
from featurestore.stages import Arrays, ChunkStage, Extract, FitStage, TransformStage
from featurestore.tasks import ImageBlock, WholeChunk, Written, row_blocks

TASK_SECONDS = 0.5  # a task of about this length costs little to hand out, and little to lose
MAX_BLOCK = 64  # images in a task
NAMES = 10_000  # file names that are read at once: opening the catalog takes longer than reading them


@dataclass(frozen=True)
class Options:
    """How to run."""

    stages: tuple[str, ...] = ()  # empty: bring everything up to date
    chunks: frozenset[int] | None = None  # None: all
    workers: int = 1
    retry: tuple[str, ...] = ()  # statuses of rows that are to be made again
    replaced: Mapping[int, frozenset[int]] = field(default_factory=dict)  # images of other files, by chunk
    partial: bool = False
    update: bool = False
    confirm: Callable[[str], bool] = field(default=lambda question: False)


def plan_of(context: Context, options: Options, *, asked: str | None = None) -> dict[str, StagePlan]:
    """Return what every stage has to do, for the chunks that were asked for."""
    with context.catalog.reading() as connection:
        steps = resolve(connection, context.flow)
        plans = make_plan(connection, steps, retry=options.retry, replaced=options.replaced, asked=asked)
    if options.chunks is None:
        return plans
    return {name: _only(plan, options.chunks) for name, plan in plans.items()}


def _only(plan: StagePlan, chunks: Collection[int]) -> StagePlan:
    if isinstance(plan.step.stage, FitStage):
        return plan
    return replace(plan, todo=tuple(work for work in plan.todo if work.chunk_id in chunks))


def run(context: Context, options: Options) -> list[StageSummary]:
    """Bring the stages up to date, and return what was done, stage by stage.

    Raises:
        NotReady: what a stage reads is incomplete.
        NothingUsable: every image failed, or there is nothing to learn from.
    """
    engine = open_engine(options.workers)
    names = options.stages or tuple(stage.name for stage in context.flow)
    try:
        with threadpoolctl.threadpool_limits(1):
            summaries = [run_stage(context, engine, options, name) for name in names]
    except BaseException:
        engine.close()
        context.root.sweep()  # workers may have begun on another file before they were ended
        raise
    engine.close()
    return [summary for summary in summaries if summary is not None]


def run_stage(context: Context, engine: Engine, options: Options, name: str) -> StageSummary | None:
    """Do what is missing of one stage; return None if that is nothing."""
    alone = name if options.stages else None
    plan = plan_of(context, options, asked=alone)[name]
    if isinstance(plan.step.stage, FitStage):
        unready = [work.chunk_id for work in plan.todo if not work.input_ready]
        if options.chunks is not None and unready:  # it learns from every chunk, and only some were asked for
            context.reporter.say(f"{name} waits for {plan.step.stage.reads} of {chunk_list(unready)}")
            return None
        return run_fit(context, engine, plan, partial=options.partial, update=options.update, confirm=options.confirm)
    waits = options.chunks is not None and not alone and plan.step.variant is None
    if waits or not plan.todo:
        return None
    refuse_unready(plan)
    return ChunkRun(context, engine, plan, workers=options.workers).run()


def refuse_unready(plan: StagePlan) -> None:
    """Make sure that a stage can run.

    Raises:
        NotReady: the model that it uses or the partitions that it reads are not there.
    """
    stage = plan.step.stage
    if plan.step.variant is None:
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


class ChunkRun:
    """A run of one chunk stage."""

    def __init__(self, context: Context, engine: Engine, plan: StagePlan, *, workers: int) -> None:
        """Take the plan; nothing is begun yet."""
        assert isinstance(plan.step.stage, ChunkStage)
        self._context, self._engine, self._plan, self._workers = context, engine, plan, workers
        self._stage = plan.step.stage
        self._work = {work.chunk_id: work for work in plan.todo}
        self._open: dict[int, Assembly] = {}
        self._model = self._load_model()
        self._statuses: Counter[str] = Counter()
        self._n_warned = 0
        self._counts: dict[str, Any] = {"n_chunks": 0, "n_images": 0, "n_descriptors": 0, "n_bytes": 0}
        self._started = 0.0

    def run(self) -> StageSummary:
        """Make every missing partition.

        Raises:
            NothingUsable: not one image could be used.
        """
        reporter, summary = self._context.reporter, None
        self._started = time.perf_counter()
        reporter.begin(self._stage.name, sum(_n_images(work) for work in self._plan.todo))
        try:
            with recorded_run(self._context, self._plan.step, workers=self._workers) as record:
                try:
                    for task, rows in dispatch(self._engine, self._tasks()):
                        self._take(task, rows)
                finally:
                    record.update(self._counts)
                    for assembly in self._open.values():
                        assembly.abandon()
                self._refuse_total_failure()
            seconds = time.perf_counter() - self._started
            summary = StageSummary(
                self._stage.name, **self._counts, statuses=self._statuses, n_warned=self._n_warned, seconds=seconds
            )
        finally:
            reporter.end(summary)
        return summary

    def _refuse_total_failure(self) -> None:
        if not isinstance(self._stage, Extract) or self._statuses["ok"] or self._statuses["empty"]:
            return
        query = "SELECT count(*) AS n FROM results WHERE variant = $variant AND status IN ('ok', 'empty')"
        with self._context.catalog.reading() as connection:
            usable = arrow(connection, query, {"variant": self._plan.step.variant})["n"][0].as_py()
        if not usable:
            status, n = self._statuses.most_common(1)[0]
            raise NothingUsable(
                f"not one of {self._statuses.total()} images could be used ({n} are {status}); is "
                f"{self._context.images} the right folder? Correct `images` in featurestore.toml, then run again "
                "with --retry-failed"
            )

    def _load_model(self) -> Arrays | None:
        if self._plan.step.model_id is None:
            return None
        with self._context.catalog.reading() as connection:
            query = "SELECT path FROM models WHERE model_id = $id"
            path = arrow(connection, query, {"id": self._plan.step.model_id})["path"][0].as_py()
        arrays, _ = read_arrays(self._context.root.local(path))
        # It goes to the workers with every task, and which images it learnt from is not their concern.
        return {name: array for name, array in arrays.items() if name != IMAGES}

    def _tasks(self) -> Iterator[Task[Any]]:
        if not isinstance(self._stage, Extract):
            # A worker that writes what it makes hands no rows on; but it takes several chunks to keep all of them busy.
            whole = 0 < 2 * self._engine.workers <= len(self._plan.todo)
            for work in self._plan.todo:
                yield from self._transformations(work, whole=whole)
            return
        todo = list(self._plan.todo)
        while todo:
            several = _take_images(todo)
            names = self._filenames(several)
            for work in several:
                yield from self._image_blocks(work, names)

    def _filenames(self, several: list[Work]) -> dict[int, str]:
        query = "SELECT image_id, filename FROM images WHERE list_contains($chunks, chunk_id)"
        with self._context.catalog.reading() as connection:
            found = arrow(connection, query, {"chunks": [work.chunk_id for work in several]})
        return dict(zip(found["image_id"].to_pylist(), found["filename"].to_pylist(), strict=True))

    def _image_blocks(self, work: Work, names: dict[int, str]) -> Iterator[Task[Row]]:
        assert isinstance(self._stage, Extract)
        members = range(work.first_image_id, work.first_image_id + work.n_images)
        wanted = [(i, names[i]) for i in members if work.redo is None or i in work.redo]
        while wanted:
            size = self._block_size()
            block, wanted = wanted[:size], wanted[size:]
            yield ImageBlock(self._stage, work.chunk_id, str(self._context.images), tuple(block))

    def _block_size(self) -> int:
        done = self._counts["n_images"]
        spent = (time.perf_counter() - self._started) * max(self._workers, 1)
        return max(1, min(MAX_BLOCK, int(TASK_SECONDS * done / spent))) if done else 1

    def _transformations(self, work: Work, *, whole: bool) -> Iterator[Task[Any]]:
        assert isinstance(self._stage, TransformStage)
        assert self._model is not None
        assert work.input_path is not None
        path = self._context.root.local(work.input_path)
        if not whole:
            yield from row_blocks(self._stage, work.chunk_id, self._model, path)
            return
        assembly = self._assembly(work)
        yield WholeChunk(
            self._stage, work.chunk_id, self._model, path, assembly.path, assembly.layout, assembly.manifest
        )

    def _take(self, task: Task[Any], results: list[Any]) -> None:
        work = self._work[task.chunk_id]
        assembly = self._assembly(work)
        match results:
            case [Written() as written]:
                assembly.take_over(written.payload)
                statuses, n_descriptors = written.statuses, written.n_descriptors
            case rows:
                assembly.add(rows)
                statuses = Counter(row.status for row in rows)
                n_descriptors = sum(row.n_descriptors for row in rows)
                if isinstance(self._stage, Extract):
                    self._n_warned += sum(map(self._stage.warned, rows))
        self._statuses.update(statuses)
        self._counts["n_images"] += statuses.total()
        self._counts["n_descriptors"] += n_descriptors
        if assembly.complete:
            del self._open[work.chunk_id]
            values = record_file(self._context.root, self._context.catalog, assembly.publish())
            self._counts["n_chunks"] += 1
            self._counts["n_bytes"] += values["n_bytes"]
        self._context.reporter.advance(statuses.total())

    def _assembly(self, work: Work) -> Assembly:
        if work.chunk_id not in self._open:
            self._open[work.chunk_id] = self._begin(work)
        return self._open[work.chunk_id]

    def _begin(self, work: Work) -> Assembly:
        reads, origin = None, "run"
        if work.input_path is not None:
            with PartitionFile(self._context.root.local(work.input_path)) as file:
                reads = file.layout
        if work.redo is not None and work.old_path is not None:  # the other rows stay what they were
            with PartitionFile(self._context.root.local(work.old_path)) as old:
                origin = old.manifest["origin"]
        manifest = partition_manifest(self._plan.step, work, origin=origin)
        return Assembly(self._context.root, work, layout=self._stage.layout(reads, self._model), manifest=manifest)


def _take_images(todo: list[Work]) -> list[Work]:
    """Take the next chunks from the list: one, or as many as have no more than `NAMES` images."""
    taken, n_images = list[Work](), 0
    while todo and (not taken or n_images + todo[0].n_images <= NAMES):
        n_images += todo[0].n_images
        taken.append(todo.pop(0))
    return taken


def _n_images(work: Work) -> int:
    return work.n_images if work.redo is None else len(work.redo)
