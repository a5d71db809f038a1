"""The run of extract: workers write blocks of images, and join the blocks of a finished chunk to its partition.

A finished block is a file that survives the end of the run; the next run uses it. See `block_file`.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from featurestore.catalog import (
    UNKNOWN,
    Context,
    StagePlan,
    Work,
    WritableContext,
    attempt_of,
    count_usable,
    discard_blocks,
    filenames_of,
    filenames_of_chunks,
    files_read_before,
    imported_versions,
    opencv_of,
    partition_manifest,
    versions,
)
from featurestore.engines import WINDOW, Engine, Task
from featurestore.errors import NothingUsable
from featurestore.formatting import counted
from featurestore.images import RunImages, Streak, open_images
from featurestore.pipeline.chunk_run import ChunkRun
from featurestore.pipeline.chunk_writer import ChunkWriter
from featurestore.pipeline.image_block import Image, ImageBlock, Large
from featurestore.pipeline.large_images import LargeImage, LargeImages
from featurestore.pipeline.tasks import JoinBlocks, Written
from featurestore.progress import StageSummary
from featurestore.rows import USABLE
from featurestore.stages import Extract
from featurestore.storage import Attempt, Block, Draft, Origin, PartitionFile

LOG = logging.getLogger("featurestore.pipeline")

# A block is what a kill costs each worker: long enough that its file costs nothing beside it, and that many workers do
# not keep the coordinator busy; short enough that the progress is seen.
BLOCK_SECONDS = 5.0
MOST_BLOCKS = 40  # finished blocks a second: with many workers blocks are longer
LONGEST = 25.0  # seconds of a block, however many workers there are
FIRST_SECONDS = 0.5  # the first blocks of a run are short, so that progress shows at once
OVERTIME = 2  # a block ends early once it takes this many times the planned seconds
MAX_BLOCK = 512  # images in a block
NAMES = 10_000  # file names read at once: opening the catalog takes longer than reading them

Images = list[Image]


@dataclass
class _Chunk:
    """A chunk of which images are extracted."""

    work: Work
    attempt: Attempt
    blocks: list[Block]
    n_left: int  # images not in a block yet
    n_new: int = 0  # images in blocks of this run


class ExtractRun(ChunkRun):
    """A run of extract."""

    def __init__(
        self, context: WritableContext, engine: Engine, plan: StagePlan, *, max_bytes: int | None = None
    ) -> None:
        """Take the plan; no work starts yet. ``max_bytes`` of memory are for all workers, see `LargeImages`."""
        super().__init__(context, engine, plan)
        assert isinstance(plan.step.stage, Extract)
        self._stage = plan.step.stage
        self._todo = list(plan.todo)
        self._chunks: dict[int, _Chunk] = {}
        self._waiting: deque[tuple[int, Images]] = deque()  # consecutive images of a chunk, for one block or more
        self._complete: deque[_Chunk] = deque()
        self._streak = Streak[tuple[_Chunk, Draft]]()
        self._folder: RunImages | None = None
        self._large = LargeImages(max_bytes, workers=engine.workers)
        self._n_at_work = 0  # images in blocks that are not finished
        self._n_published = 0  # images that this run has extracted, in partitions
        self._n_waiting = sum(work.n_left for work in plan.todo)  # images without a task
        self._begun, self._spent = time.monotonic(), 0.0

    def run(self) -> StageSummary:
        """Compute every missing partition; report if other partitions were made by another version of OpenCV."""
        with self._context.catalog.reading() as connection:
            found = imported_versions(connection, self._plan.step.variant)
        imported, ours = sorted(set(map(opencv_of, found))), opencv_of(versions())
        if set(imported) - {ours}:
            self._context.reporter.say(
                f"extract adds to descriptors that were imported, made by OpenCV {', '.join(imported)}; this is OpenCV "
                f"{ours}, and other versions give other descriptors: SELECT versions, origin FROM partitions"
            )
        return super().run()

    def _tasks(self) -> Iterator[Task[Any] | None]:
        while self._todo or self._chunks:
            if self._complete:
                yield self._join(self._complete.popleft())
            elif (large := self._large.pop(idle=not self._n_at_work)) is not None:
                yield self._block(large.chunk_id, [large.image], BLOCK_SECONDS, max_bytes=None)
            elif self._large.stop_others:
                yield None
            elif self._waiting:
                yield self._next_block(*self._waiting.popleft())
            elif self._todo:
                self._begin(_take_images(self._todo))
            elif self._all_is_held():
                self._keep(self._streak.rest())
            else:
                yield None

    def _all_is_held(self) -> bool:
        """Whether only blocks that are held back are left."""
        n_held = sum(len(draft.block.image_ids) for _, draft in self._streak.held)
        return 0 < n_held == sum(chunk.n_left for chunk in self._chunks.values())

    def _begin(self, several: list[Work]) -> None:
        names = self._filenames(several)
        for work in several:
            chunk = _Chunk(work, attempt_of(self._plan.step, work), list(work.finished), work.n_left)
            self._chunks[work.chunk_id] = chunk
            if not chunk.n_left:
                self._complete.append(chunk)
            done = {image_id for block in work.finished for image_id in block.image_ids}
            for images in _without_gaps(work, done):
                self._waiting.append((work.chunk_id, [(image_id, names[image_id]) for image_id in images]))

    def _filenames(self, several: list[Work]) -> dict[int, str]:
        with self._context.catalog.reading() as connection:
            return filenames_of_chunks(connection, [work.chunk_id for work in several])

    def _next_block(self, chunk_id: int, images: Images) -> ImageBlock:
        seconds = block_seconds(self._engine.workers, since=time.monotonic() - self._begun)
        size = self._size(seconds)
        if images[size:]:
            self._waiting.appendleft((chunk_id, images[size:]))
        self._n_waiting -= len(images[:size])
        return self._block(chunk_id, images[:size], OVERTIME * seconds, max_bytes=self._large.share)

    def _block(self, chunk_id: int, images: Images, seconds: float, *, max_bytes: int | None) -> ImageBlock:
        self._n_at_work += len(images)
        attempt = self._chunks[chunk_id].attempt
        if self._folder is None:
            self._folder = image_folder(self._context, self._plan)
        root = self._context.root
        return ImageBlock(self._stage, chunk_id, self._folder, tuple(images), root, attempt, seconds, max_bytes)

    def _size(self, seconds: float) -> int:
        """Return how many images take that long; towards the end, a share for every worker."""
        done = self._counts["n_images"]
        share = math.ceil(self._n_waiting / (WINDOW * max(self._engine.workers, 1)))
        return max(1, min(MAX_BLOCK, share, int(seconds * done / self._spent))) if done else 1

    def _join(self, chunk: _Chunk) -> JoinBlocks:
        work, origin, old, opencv = chunk.work, str(Origin.RUN), None, UNKNOWN
        if work.redo is not None and work.old_path is not None:  # the other rows are copied from the old partition
            old = self._context.root.at(work.old_path)
            with PartitionFile(old) as file:
                origin, opencv = file.manifest["origin"], opencv_of(file.manifest["versions"])
        if work.chunk_id not in self._open:
            manifest = partition_manifest(self._plan.step, work, origin=origin, opencv=opencv)
            layout = self._stage.layout()
            self._open[work.chunk_id] = ChunkWriter(self._context.root, layout=layout, manifest=manifest)
        target = self._open[work.chunk_id].target
        return JoinBlocks(work.chunk_id, self._context.root, tuple(chunk.blocks), target, old)

    def _take(self, task: Task[Any], results: list[Any]) -> None:
        chunk = self._chunks[task.chunk_id]
        if isinstance(task, ImageBlock):
            self._n_at_work -= len(task.images)
            self._large.finish(task.images[0][0])
        match results:
            case [Draft() as draft]:
                assert isinstance(task, ImageBlock)
                self._put_back(chunk, list(task.images[len(draft.block.image_ids) :]))  # the block ended early
                self._keep(self._streak.cleared((chunk, draft), draft.troubles))
            case [Large() as large]:
                assert isinstance(task, ImageBlock)
                self._large.add(LargeImage(task.chunk_id, task.images[0], large.n_bytes))
                self._put_back(chunk, list(task.images[1:]))
            case [Block() as damaged]:
                self._again(chunk, damaged)
            case [Written() as written]:
                self._n_published += chunk.n_new
                self._publish(task.chunk_id, written, n_done=self._n_published)
                self._n_before += max(0, chunk.work.n_images - chunk.n_new)
                discard_blocks(self._context.root, chunk.attempt)
                del self._chunks[task.chunk_id]

    def _keep(self, cleared: Iterable[tuple[_Chunk, Draft]]) -> None:
        """Publish blocks that need not be held back any longer."""
        for chunk, draft in cleared:
            self._context.root.publish(draft.temporary, draft.block.name)
            LOG.debug("%s: %s in %.1f s", draft.block.name, dict(draft.statuses), draft.seconds)
            chunk.blocks.append(draft.block)
            chunk.n_left -= len(draft.block.image_ids)
            chunk.n_new += len(draft.block.image_ids)
            self._spent += draft.seconds
            self._n_warned += draft.n_warned
            if not chunk.n_left:
                self._complete.append(chunk)
            self._count(draft.statuses, draft.n_descriptors)

    def _again(self, chunk: _Chunk, damaged: Block) -> None:
        """Queue the images of a damaged block to be extracted again."""
        LOG.warning("%s is damaged: extracting %s again", damaged.name, counted(len(damaged.image_ids), "image"))
        self._context.root.remove(damaged.name)
        chunk.blocks.remove(damaged)
        chunk.n_left += len(damaged.image_ids)
        names = self._filenames([chunk.work])
        self._put_back(chunk, [(image_id, names[image_id]) for image_id in damaged.image_ids])

    def _put_back(self, chunk: _Chunk, images: Images) -> None:
        if images:
            self._waiting.appendleft((chunk.work.chunk_id, images))
            self._n_waiting += len(images)

    def _check(self) -> None:
        """Check that at least one image is usable.

        Raises:
            NothingUsable: not one could.
        """
        if any(self._statuses[status] for status in USABLE) or not self._statuses:
            return
        with self._context.catalog.reading() as connection:
            usable = count_usable(connection, self._plan.step.variant)
        if not usable:
            status, n = self._statuses.most_common(1)[0]
            raise NothingUsable(
                f"not one of {counted(self._statuses.total(), 'image')} could be used ({n:,} {status}; SELECT * FROM "
                f"failures says why); is {self._context.images} the right place? Correct the images, or `images` in "
                "featurestore.toml, then run again with --retry-failed"
            )


def block_seconds(workers: int, *, since: float) -> float:
    """Return the seconds that a block is to take, ``since`` seconds after the begin of the run."""
    planned = min(LONGEST, max(BLOCK_SECONDS, workers / MOST_BLOCKS))
    return min(planned, max(FIRST_SECONDS, since))


def _without_gaps(work: Work, done: set[int]) -> Iterator[list[int]]:
    """Yield runs of consecutive images that are not done yet."""
    images: list[int] = []
    for image_id in work.wanted:
        if image_id not in done:
            images.append(image_id)
        elif images:
            yield images
            images = []
    if images:
        yield images


def _take_images(todo: list[Work]) -> list[Work]:
    """Pop the next chunks: one, or several with at most `NAMES` images together."""
    taken, n_images = list[Work](), 0
    while todo and (not taken or n_images + todo[0].n_images <= NAMES):
        n_images += todo[0].n_images
        taken.append(todo.pop(0))
    return taken


SAMPLE = 1000  # of the images to read, to check the folder with


def image_folder(context: Context, plan: StagePlan) -> RunImages:
    """Open the images at the start of a run of extract.

    Raises:
        ImagesGone: it holds neither images that were read from it before nor those that will be read.
    """
    works = plan.todo[:: len(plan.todo) // SAMPLE + 1]
    wanted = [i for work in works for i in work.wanted[:: len(work.wanted) * len(works) // SAMPLE + 1]]
    with context.catalog.reading() as connection:
        read, names = files_read_before(connection), filenames_of(connection, wanted)
    return open_images(context.source, read=read.values(), wanted=[names[i] for i in wanted if i in names])
