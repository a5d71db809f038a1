"""Runs of chunk stages: the common base class, and the run of a transform stage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from featurestore.catalog import (
    StagePlan,
    Work,
    WritableContext,
    find_model,
    partition_manifest,
    recorded_run,
)
from featurestore.engines import Engine, Task, dispatch_tasks
from featurestore.pipeline.chunk_writer import ChunkWriter
from featurestore.pipeline.tasks import WholeChunk, Written, row_blocks
from featurestore.progress import StageSummary
from featurestore.stages import Arrays, ChunkStage, TransformStage, fit_of
from featurestore.storage import IMAGES, Origin, PartitionFile, read_arrays

HELD_BYTES = 256 << 20  # of descriptors that wait for those of an earlier image


class ChunkRun:
    """A run of one chunk stage. Subclasses define its tasks, and take their results."""

    def __init__(self, context: WritableContext, engine: Engine, plan: StagePlan, *, workers: int) -> None:
        """Take the plan; nothing is begun yet."""
        assert isinstance(plan.step.stage, ChunkStage)
        self._context, self._engine, self._plan, self._workers = context, engine, plan, workers
        self._work = {work.chunk_id: work for work in plan.todo}
        self._open: dict[int, ChunkWriter] = {}
        self._statuses: Counter[str] = Counter()
        self._n_warned = 0
        self._counts: dict[str, Any] = {"n_chunks": 0, "n_images": 0, "n_descriptors": 0, "n_bytes": 0}

    def run(self) -> StageSummary:
        """Make every missing partition.

        Raises:
            NothingUsable: not one image could be used.
        """
        reporter, summary, started = self._context.reporter, None, time.perf_counter()
        name = self._plan.step.stage.name
        reporter.begin(name, sum(work.n_left for work in self._plan.todo))
        try:
            with recorded_run(self._context, self._plan.step, workers=self._workers) as record:
                try:
                    for task, results in dispatch_tasks(self._engine, self._tasks()):
                        self._take(task, results)
                finally:
                    record.update(self._counts)
                    for assembly in self._open.values():
                        assembly.abandon()
                self._check()
            seconds = time.perf_counter() - started
            summary = StageSummary(
                name, **self._counts, statuses=self._statuses, n_warned=self._n_warned, seconds=seconds
            )
        finally:
            reporter.end(summary)
        return summary

    def _tasks(self) -> Iterator[Task[Any] | None]:
        """Yield the tasks; see `dispatch_tasks`."""
        raise NotImplementedError(f"{type(self).__name__}._tasks")

    def _take(self, task: Task[Any], results: list[Any]) -> None:
        """Take the results of a task."""
        raise NotImplementedError(f"{type(self).__name__}._take")

    def _check(self) -> None:
        """Check the result of the run."""

    def _count(self, statuses: Counter[str], n_descriptors: int) -> None:
        """Count images that are done."""
        self._statuses.update(statuses)
        self._counts["n_images"] += statuses.total()
        self._counts["n_descriptors"] += n_descriptors
        self._context.reporter.advance(statuses.total())

    def _publish(self, chunk_id: int) -> None:
        """Publish and record the partition of a chunk."""
        row = self._open.pop(chunk_id).publish(self._context.catalog)
        self._counts["n_chunks"] += 1
        self._counts["n_bytes"] += row.n_bytes


class TransformRun(ChunkRun):
    """A run of a stage that transforms partitions, image by image."""

    def __init__(self, context: WritableContext, engine: Engine, plan: StagePlan, *, workers: int) -> None:
        """Read the model that the stage uses."""
        super().__init__(context, engine, plan, workers=workers)
        assert isinstance(plan.step.stage, TransformStage)
        self._stage = plan.step.stage
        self._model = self._load_model()

    def _load_model(self) -> Arrays:
        if self._stage.model is None:
            return {}
        with self._context.catalog.reading() as connection:
            model = find_model(connection, self._plan.step.model_id)
        assert model is not None
        arrays, _ = read_arrays(self._context.root.local(model.path))
        # The model is sent to the workers with every task; they do not need the list of its training images.
        return {name: array for name, array in arrays.items() if name != IMAGES}

    def _tasks(self) -> Iterator[Task[Any] | None]:
        # Workers that write whole partitions avoid sending rows back, but this needs several chunks per worker.
        whole = 0 < 2 * self._engine.workers <= len(self._plan.todo)
        for work in self._plan.todo:
            assert work.input_path is not None
            path = self._context.root.local(work.input_path)
            if whole:
                target = self._assembly(work).target
                yield WholeChunk(self._stage, work.chunk_id, self._model, path, target)
            else:
                for task in row_blocks(self._stage, work.chunk_id, self._model, path):
                    while sum(assembly.held_bytes for assembly in self._open.values()) > HELD_BYTES:
                        yield None
                    yield task

    def _take(self, task: Task[Any], results: list[Any]) -> None:
        assembly = self._assembly(self._work[task.chunk_id])
        match results:
            case [Written() as written]:
                assembly.take_over(written)
                statuses, n_descriptors = written.statuses, written.n_descriptors
            case rows:
                assembly.add(rows)
                statuses = Counter(row.status for row in rows)
                n_descriptors = sum(row.n_descriptors for row in rows)
        if assembly.complete:
            self._publish(task.chunk_id)
        self._count(statuses, n_descriptors)

    def _assembly(self, work: Work) -> ChunkWriter:
        if work.chunk_id not in self._open:
            assert work.input_path is not None
            with PartitionFile(self._context.root.local(work.input_path)) as file:
                layout = self._stage.layout(file.layout, fit_of(self._context.flow, self._stage))
            manifest = partition_manifest(self._plan.step, work, origin=Origin.RUN)
            self._open[work.chunk_id] = ChunkWriter(self._context.root, work, layout=layout, manifest=manifest)
        return self._open[work.chunk_id]
