"""Runs of chunk stages: the common base class, and the run of a transform stage."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from featurestore.catalog import (
    StagePlan,
    Work,
    WritableContext,
    partition_manifest,
    recorded_run,
)
from featurestore.engines import WINDOW, Engine, Task, dispatch_tasks
from featurestore.pipeline.chunk_writer import ChunkWriter
from featurestore.pipeline.tasks import JoinPieces, TransformRows, Written, row_groups
from featurestore.progress import StageSummary
from featurestore.stages import Arrays, ChunkStage, TransformStage, fit_of
from featurestore.storage import IMAGES, Origin, PartitionFile, read_arrays

MOST_PIECES = 8  # for each worker, of the chunks that all of them share: each is a task of the coordinator


class ChunkRun:
    """A run of one chunk stage. Subclasses define its tasks, and take their results."""

    def __init__(self, context: WritableContext, engine: Engine, plan: StagePlan) -> None:
        """Take the plan; nothing is begun yet."""
        assert isinstance(plan.step.stage, ChunkStage)
        self._context, self._engine, self._plan = context, engine, plan
        self._work = {work.chunk_id: work for work in plan.todo}
        self._open: dict[int, ChunkWriter] = {}
        self._statuses: Counter[str] = Counter()
        self._n_warned, self._n_before = 0, 0
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
            with recorded_run(self._context, self._plan.step, workers=self._engine.workers) as record:
                most = self._engine.workers
                try:
                    for task, results in dispatch_tasks(self._engine, self._tasks()):
                        most = max(most, self._engine.workers)  # of a cluster, some come late
                        self._take(task, results)
                finally:
                    record.update(self._counts, workers=most)
                    for chunk in self._open.values():
                        chunk.abandon()
                self._check()
            seconds = time.perf_counter() - started
            summary = StageSummary(
                name,
                **self._counts,
                n_before=self._n_before,
                statuses=self._statuses,
                n_warned=self._n_warned,
                seconds=seconds,
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

    def _publish(self, chunk_id: int, written: Written, *, n_done: int | None = None) -> None:
        """Publish and record the partition of a chunk; ``n_done`` is as of `record_file`."""
        chunk = self._open.pop(chunk_id)
        made = written.payload, written.checksum, written.facts
        row = chunk.publish(self._context.catalog, *made, published=written.published, n_done=n_done)
        self._counts["n_chunks"] += 1
        self._counts["n_bytes"] += row.n_bytes


class TransformRun(ChunkRun):
    """A run of a stage that transforms partitions, image by image."""

    def __init__(self, context: WritableContext, engine: Engine, plan: StagePlan) -> None:
        """Read the model that the stage uses."""
        super().__init__(context, engine, plan)
        assert isinstance(plan.step.stage, TransformStage)
        self._stage = plan.step.stage
        self._model = self._load_model()
        # The last chunks, too few to give every worker one, are shared by all workers.
        self._n_shared = len(plan.todo) % engine.workers if engine.workers > 1 else 0
        self._pieces: dict[int, dict[range, Path]] = {}  # chunk -> positions of rows -> file
        self._complete: deque[int] = deque()  # chunks of which all rows are in pieces

    def _load_model(self) -> Arrays:
        if self._stage.model is None:
            return {}
        model = self._plan.step.model
        assert model is not None
        arrays, _ = read_arrays(self._context.root.local(model.path))
        # The model is sent to the workers with every task; they do not need the list of its training images.
        return {name: array for name, array in arrays.items() if name != IMAGES}

    def _tasks(self) -> Iterator[Task[Any] | None]:
        todo = deque(self._plan.todo)
        while todo or self._open:
            if self._complete:
                yield self._join(self._complete.popleft())
            elif todo:
                yield from self._begin(todo.popleft(), shared=len(todo) < self._n_shared)
            else:
                yield None

    def _begin(self, work: Work, *, shared: bool) -> Iterator[TransformRows]:
        """Open a chunk, and yield its tasks: one that writes the partition, or several that write pieces of it."""
        assert work.input_path is not None
        path = self._context.root.at(work.input_path)
        with PartitionFile(path) as file:
            layout = self._stage.layout(file.layout, fit_of(self._context.flow, self._stage))
            groups = row_groups(file)
        manifest = partition_manifest(self._plan.step, work, origin=Origin.RUN)
        chunk = self._open[work.chunk_id] = ChunkWriter(self._context.root, layout=layout, manifest=manifest)
        n = count_pieces(max(self._engine.workers, 1), self._n_shared, len(groups)) if shared else 1
        starts = [groups[len(groups) * i // n].start for i in range(n)]
        for start, stop in pairwise([*starts, work.n_images]):
            yield TransformRows(self._stage, work.chunk_id, self._model, path, range(start, stop), chunk.target)

    def _join(self, chunk_id: int) -> JoinPieces:
        pieces = self._pieces[chunk_id]
        in_order = sorted(pieces, key=lambda positions: positions.start)
        return JoinPieces(chunk_id, tuple(pieces[positions] for positions in in_order), self._open[chunk_id].target)

    def _take(self, task: Task[Any], results: list[Written]) -> None:
        (written,) = results
        if isinstance(task, TransformRows):
            self._count(written.statuses, written.n_descriptors)
        if written.path == self._open[task.chunk_id].target.path:
            self._publish(task.chunk_id, written)
            for piece in self._pieces.pop(task.chunk_id, {}).values():
                self._context.root.remove_draft(piece)
        else:
            assert isinstance(task, TransformRows)
            pieces = self._pieces.setdefault(task.chunk_id, {})
            pieces[task.positions] = written.path
            if sum(map(len, pieces)) == self._work[task.chunk_id].n_images:
                self._complete.append(task.chunk_id)


def count_pieces(workers: int, n_shared: int, n_groups: int) -> int:
    """Return into how many pieces each of the chunks is cut that all workers share.

    Args:
        workers: two pieces of a chunk for each.
        n_shared: the chunks; of many, each has fewer pieces.
        n_groups: row groups of the chunk, which are not cut.
    """
    return max(1, min(WINDOW * workers, -(-MOST_PIECES * workers // n_shared), n_groups))
