"""The run of a fit stage: a learner learns chunk after chunk, with a checkpoint after each of the first ones.

``state.npz`` is the checkpoint. It is replaced atomically, after many chunks every few seconds, and lists the chunks
and images learnt so far, so that a killed fit resumes and no chunk is learnt twice.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from featurestore.catalog import (
    Context,
    Mask,
    ModelRow,
    StagePlan,
    Step,
    Work,
    WritableContext,
    downstream_partitions,
    find_model,
    record_model,
    recorded_run,
    resolve,
    versions,
)
from featurestore.engines import Engine, dispatch_in_order
from featurestore.errors import ConfirmationNeeded, CorruptFile, NothingUsable
from featurestore.formatting import counted
from featurestore.pipeline.fit_inputs import (
    ready_chunks,
    refuse_most_lost,
    selected_images,
    unseen_images,
    wanted_chunks,
)
from featurestore.pipeline.tasks import FitChunk
from featurestore.progress import StageSummary
from featurestore.rows import Row
from featurestore.stages import Arrays, FitStage, JoinableLearner, Learner, TransformStage
from featurestore.storage import (
    IMAGES,
    from_bitmap,
    model_id,
    model_name,
    read_arrays,
    read_state,
    to_bitmap,
    write_arrays,
)
from featurestore.system import is_file, ready_thread

LOG = logging.getLogger("featurestore.pipeline")
EACH_OF = 100  # chunks after each of which there is a checkpoint; it grows with the number of chunks and images
CHECKPOINT_SECONDS = 10.0  # from then on between two of them
HELD_BYTES = 256 << 20  # of what was learnt of chunks that wait for an earlier one
Confirm = Callable[[str], bool]
T = TypeVar("T")


@dataclass
class _Fold:
    """A fit in progress: the learner, and the chunks and images that it has learnt."""

    learner: Learner
    chunks: dict[int, str]  # chunk -> digest of what was learnt of it, see `FitRun._source`
    images: NDArray[np.bool_]  # by image_id
    resumed: tuple[int, ...] = ()  # chunks that an earlier run has learnt

    def add(self, image_ids: list[int]) -> None:
        if image_ids and max(image_ids) >= len(self.images):
            self.images = np.pad(self.images, (0, max(image_ids) + 1 - len(self.images)))
        self.images[image_ids] = True

    def bitmap(self) -> NDArray[np.uint8]:
        return to_bitmap(np.flatnonzero(self.images))


def run_fit(
    context: WritableContext, engine: Engine, plan: StagePlan, *, partial: bool, update: bool, confirm: Confirm
) -> StageSummary | None:
    """Fit the model if there is none, or with ``update`` a child of the current one; return None if there is no work.

    Raises:
        NotReady: not every chunk is there, or most images failed, and ``partial`` was not given.
        ConfirmationNeeded: the caller did not agree that an update makes partitions stale.
        NothingUsable: there is too little to learn from.
    """
    if plan.step.current_model is not None and not update:
        return None
    wanted = wanted_chunks(context, plan)
    ready = ready_chunks(context, plan.step, wanted, partial=partial)
    if plan.step.current_model is not None and not ready:
        context.reporter.say(f"{plan.step.stage.name}: the model has seen every image; there is nothing to update")
        return None
    selected = selected_images(context, plan.step) if partial else refuse_most_lost(context, plan.step)
    if plan.step.current_model is not None:
        _ask(context, plan.step, sum(unseen_images(context, plan.step).values()), confirm)
    return FitRun(context, engine, plan.step, ready, selected, partial=len(ready) < len(wanted)).run()


def _ask(context: Context, step: Step, unseen: int, confirm: Confirm) -> None:
    with context.catalog.reading() as connection:
        stale = downstream_partitions(connection, step)
    question = (
        f"{step.stage.name} will go on with {counted(unseen, 'image')} that its model has not seen. A new model is a "
        f"new variant: {counted(stale, 'partition')} downstream will be recomputed"
    )
    if not confirm(question):
        raise ConfirmationNeeded(f"{question}; agree with --yes")


class FitRun:
    """A run of one fit stage."""

    def __init__(
        self, context: WritableContext, engine: Engine, step: Step, todo: list[Work], selected: Mask, *, partial: bool
    ) -> None:
        """Take the chunks and the training images; no chunk is read yet."""
        assert isinstance(step.stage, FitStage)
        assert step.variant is not None
        self._context, self._engine, self._step, self._todo, self._partial = context, engine, step, todo, partial
        self._stage, self._variant, self._parent = step.stage, step.variant, step.current_model
        self._state = f"models/{self._stage.name}/{self._variant}/state.npz"
        self._selected = selected.copy()
        self._parent_arrays = read_arrays(context.root.local(self._parent.path))[0] if self._parent else None
        self._n_ahead = 0  # images of the current chunk that are reported as done
        if self._parent_arrays is not None:
            seen = from_bitmap(self._parent_arrays[IMAGES])
            self._selected[seen[seen < len(self._selected)]] = False

    def run(self) -> StageSummary:
        """Learn every remaining chunk, and publish the model.

        Raises:
            NothingUsable: there is too little to learn from.
        """
        started, summary, reporter = time.perf_counter(), None, self._context.reporter
        fold = self._resume()
        todo = [work for work in self._todo if work.chunk_id not in fold.chunks]
        workers, n_images, n_chunks = self._n_workers(), 0, 0
        reporter.begin(self._stage.name, sum(work.n_images for work in todo))
        try:
            with recorded_run(self._context, self._step, workers=workers) as record:
                for learnt in self._learn(fold, todo):
                    n_images, n_chunks = n_images + learnt, n_chunks + 1
                    workers = max(workers, self._n_workers())  # of a cluster, some come late
                    record.update(n_images=n_images, n_chunks=n_chunks, workers=workers)
                model = self._publish(fold)
            summary = StageSummary(
                self._stage.name,
                n_chunks=n_chunks,
                n_images=n_images,
                n_descriptors=model.summary.get("n_descriptors", 0),
                note=model_note(model),
                seconds=time.perf_counter() - started,
            )
        finally:
            reporter.end(summary)
        return summary

    def _n_workers(self) -> int:
        return self._engine.workers if self._stage.joins() else 1

    def _resume(self) -> _Fold:
        if is_file(self._context.root.local(self._state)):
            try:
                fold, why = self._saved()
            except (CorruptFile, LookupError, TypeError, ValueError, AttributeError) as error:
                fold, why = None, f"{self._state} is damaged ({' '.join(str(error).split()) or type(error).__name__})"
            if fold is not None:
                LOG.info(
                    "%s continues after %s, from its checkpoint", self._stage.name, counted(len(fold.chunks), "chunk")
                )
                return fold
            if why is not None:
                self._context.reporter.say(f"{self._stage.name} begins again: {why}")
        if self._parent_arrays is None:
            return _Fold(self._stage.learner(None), {}, np.zeros(0, bool))
        return self._fold(self._parent_arrays, {})

    def _saved(self) -> tuple[_Fold | None, str | None]:
        """Return the checkpoint, or why it can't be resumed; None and None if it belongs to another fit.

        Raises:
            CorruptFile, LookupError, TypeError, ValueError, AttributeError: it is damaged, or parts of it are missing.
        """
        arrays, manifest = read_state(self._context.root.local(self._state))
        if manifest["parent_id"] != (self._parent.model_id if self._parent else None):
            return None, None
        learnt = manifest["chunks"]
        chunks = {work.chunk_id: self._source(work) for work in self._todo if str(work.chunk_id) in learnt}
        if {str(chunk): source for chunk, source in chunks.items()} != learnt:
            return None, "images or the split have changed since it was interrupted"
        fold = self._fold(arrays, chunks)
        if fold.learner.state().keys() != arrays.keys() - {IMAGES}:
            raise CorruptFile("it lacks arrays")
        return fold, None

    def _fold(self, arrays: dict[str, NDArray[Any]], chunks: dict[int, str]) -> _Fold:
        fold = _Fold(self._stage.learner(arrays), chunks, np.zeros(0, bool), tuple(chunks))
        fold.add(from_bitmap(arrays[IMAGES]).tolist())
        return fold

    def _wanted(self, work: Work) -> NDArray[np.int64]:
        """Return the training images of a chunk, usable or not."""
        members = self._selected[work.first_image_id : work.first_image_id + work.n_images]
        return np.flatnonzero(members) + work.first_image_id

    def _source(self, work: Work) -> str:
        """Return a digest of a chunk's rows and training images."""
        return hashlib.sha256(f"{work.input_payload} {self._wanted(work).tolist()}".encode()).hexdigest()[:16]

    def _learn(self, fold: _Fold, todo: list[Work]) -> Iterator[int]:
        """Learn chunk after chunk, with checkpoints; yield the number of images of each."""
        saved = time.monotonic()
        for work, image_ids in (self._side_by_side if self._stage.joins() else self._in_turn)(fold, todo):
            fold.add(image_ids)
            fold.chunks[work.chunk_id] = self._source(work)
            if len(fold.chunks) <= EACH_OF or time.monotonic() - saved >= CHECKPOINT_SECONDS:
                self._checkpoint(fold)
                saved = time.monotonic()
            self._context.reporter.advance(work.n_images - self._n_ahead)
            self._n_ahead = 0
            yield len(image_ids)

    def _in_turn(self, fold: _Fold, todo: list[Work]) -> Iterator[tuple[Work, list[int]]]:
        """Learn image after image, while a thread reads ahead; report all row groups of a chunk but its last."""
        learnt, n_rows = list[int](), 0
        with closing(read_ahead(self._blocks(todo))) as blocks:
            for work, rows in blocks:
                if rows and n_rows:
                    self._context.reporter.advance(n_rows)
                    self._n_ahead += n_rows
                n_rows = len(rows or ())
                for row in rows or ():
                    fold.learner.learn(row)
                    learnt.append(row.image_id)
                if rows is None:
                    yield work, learnt
                    learnt = []

    def _blocks(self, todo: list[Work]) -> Iterator[tuple[Work, list[Row] | None]]:
        """Yield the rows of every chunk, a row group at a time, and None after the last of each chunk."""
        for work in todo:
            for rows in self._task(work).blocks():
                yield work, rows
            yield work, None

    def _side_by_side(self, fold: _Fold, todo: list[Work]) -> Iterator[tuple[Work, list[int]]]:
        """Let every worker learn single chunks, and merge the learners in chunk order.

        Sums of whole numbers are the same in any order; those of RootSIFT's fractions are not.
        """
        tasks = map(self._task, todo)
        found = dispatch_in_order(self._engine, tasks, most=HELD_BYTES, size=lambda learnt: learnt[0].n_bytes)
        for work, (_, (learnt,)) in zip(todo, found, strict=True):
            cast(JoinableLearner, fold.learner).join(learnt.state)
            yield work, learnt.image_ids

    def _task(self, work: Work) -> FitChunk:
        assert work.input_path is not None
        path = self._context.root.at(work.input_path)
        return FitChunk(self._stage, work.chunk_id, path, frozenset(self._wanted(work).tolist()))

    def _checkpoint(self, fold: _Fold) -> None:
        arrays = {**fold.learner.state(), IMAGES: fold.bitmap()}
        manifest = {**self._manifest(), "chunks": fold.chunks, "arrays": model_id(self._variant, arrays)}
        manifest["resumed"] = fold.resumed
        with self._context.root.publishing(self._state) as temporary:
            write_arrays(temporary, arrays, manifest)
        LOG.debug("%s: checkpoint after %s", self._stage.name, counted(len(fold.chunks), "chunk"))

    def _publish(self, fold: _Fold) -> ModelRow:
        try:
            arrays = dict(self._stage.complete(fold.learner.finish(), self._input_model()))
        except NothingUsable:
            # A later fit with more images must not resume from this state.
            self._context.root.remove(self._state)
            raise
        manifest = {**self._manifest(), "summary": self._stage.summary(arrays)}
        arrays = {**arrays, IMAGES: fold.bitmap()}
        name = model_name(self._stage.name, self._variant, model_id(self._variant, arrays))
        if not is_file(self._context.root.local(name)):
            with self._context.root.publishing(name) as temporary:
                write_arrays(temporary, arrays, manifest)
        model = record_model(self._context.root, self._context.catalog, name)
        self._context.root.remove(self._state)
        return model

    def _input_model(self) -> Arrays:
        """Return what its input is decoded with, for a stage that needs it."""
        if not self._stage.needs_input_model:
            return {}
        with self._context.catalog.reading() as connection:
            steps = resolve(connection, self._context.flow)
            input_step = next(step for step in steps if step.stage.name == self._stage.reads)
            model = find_model(connection, input_step.model_id)
        arrays = {} if model is None else read_arrays(self._context.root.local(model.path))[0]
        return input_step.stage.decoding(arrays) if isinstance(input_step.stage, TransformStage) else arrays

    def _manifest(self) -> dict[str, Any]:
        return {
            "stage": self._stage.name,
            "version": self._stage.version,
            "parameters": self._stage.parameters(),
            "variant": self._variant,
            "reads_variant": self._step.reads_variant,
            "parent_id": self._parent.model_id if self._parent else None,
            "generation": self._parent.generation + 1 if self._parent else 0,
            "partial": self._partial,
            "versions": versions(),
        }


def read_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield the items; a thread prepares the next one while the caller uses the last."""
    with ready_thread() as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def model_note(model: ModelRow) -> str:
    """Return a short description of a model."""
    summary = model.summary
    parts = [f"model {model.model_id} of {counted(model.n_images, 'image')}"]
    if "explained_variance_ratio" in summary:
        parts.append(f"{summary['explained_variance_ratio']:.1%} of the variance explained")
    if model.partial:
        parts.append("fitted before all chunks were finished")
    return ", ".join(parts)
