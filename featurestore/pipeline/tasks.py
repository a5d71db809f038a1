"""Tasks: extract a block of images, join blocks to a partition, transform a chunk, learn a chunk.

Tasks are frozen and picklable, and self-contained: workers open neither the catalog nor the recipe.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from heapq import merge
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

from featurestore.engines import Task
from featurestore.errors import CorruptFile, EngineLost
from featurestore.images import ImageFolder
from featurestore.pipeline.image_row import blamed, crashed, make_rows
from featurestore.rows import Layout, Row, Status
from featurestore.stages import Arrays, Extract, FitStage, TransformStage
from featurestore.storage import (
    Attempt,
    Block,
    DamagedBlock,
    Draft,
    FileState,
    PartitionFile,
    PartitionWriter,
    Root,
    file_state,
    partition_name,
    rows_of,
    write_block,
)
from featurestore.system import room_on_disk


@dataclass(frozen=True)
class ImageBlock:
    """Image files to be extracted by the worker that writes their rows to a block.

    A block ends early after ``seconds``, so that little is lost with it whatever the images: the rest is another block.
    """

    stage: Extract
    chunk_id: int
    folder: ImageFolder
    images: tuple[tuple[int, str], ...]  # (image_id, filename)
    root: Root
    attempt: Attempt
    seconds: float

    def run(self) -> list[Draft]:
        """Write the block.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        return self._write(self._rows())

    def split(self) -> list[Task[Draft]]:
        """Return one task an image."""
        return [replace(self, images=(image,)) for image in self.images]

    def crashed(self, reason: str) -> list[Draft]:
        """Write a block of rows that say why they failed."""
        return self._write((self._state(name), blamed(self.stage, i, name, reason)) for i, name in self.images)

    def _rows(self) -> Iterator[tuple[FileState, Row]]:
        begun = time.monotonic()
        size = self.stage.extractor.batch_size
        for start in range(0, len(self.images), size):
            batch = self.images[start : start + size]
            states = [self._state(name) for _, name in batch]  # before it is read: what changes meanwhile is noticed
            yield from zip(states, make_rows(self.stage, batch, self.folder), strict=True)
            if time.monotonic() - begun > self.seconds:
                return

    def _write(self, rows: Iterable[tuple[FileState, Row]]) -> list[Draft]:
        return [write_block(self.root, self.attempt, self.stage.layout(), rows, warned=self.stage.warned)]

    def _state(self, name: str) -> FileState:
        return file_state(Path(self.folder.file(name)))


@dataclass(frozen=True)
class RowBlock:
    """Rows of a partition, ``start`` to ``stop`` of one row group, to be transformed."""

    stage: TransformStage
    chunk_id: int
    model: Arrays
    path: Path
    row_group: int
    start: int
    stop: int

    def run(self) -> list[Row]:
        """Return the transformed rows, in order."""
        with PartitionFile(self.path) as file:
            rows = islice(file.rows([self.row_group]), self.start, self.stop)
            return [self.stage.transform(row, self.model) for row in rows]

    def split(self) -> list[Task[Row]]:
        """Return one task a row."""
        return [replace(self, start=i, stop=i + 1) for i in range(self.start, self.stop)]

    def crashed(self, reason: str) -> list[Row]:
        """Return a row of status ``crashed``."""
        with PartitionFile(self.path) as file:
            rows = islice(file.rows([self.row_group], without=["descriptors"]), self.start, self.stop)
            return [crashed(row.image_id, row.filename, reason) for row in rows]


@dataclass(frozen=True)
class Written:
    """A worker's report of a partition that it has written."""

    payload: str
    checksum: str  # SHA-256 of the file
    statuses: Counter[str]  # of its rows
    n_descriptors: int


@dataclass(frozen=True)
class Target:
    """A partition to be written by a worker: into a temporary file that another process publishes or removes."""

    path: Path
    layout: Layout
    manifest: Mapping[str, Any]

    def write(self, rows: Iterable[Row]) -> Written:
        """Write the partition.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        statuses, n_descriptors = Counter[str](), 0
        name = partition_name(self.manifest["stage"], self.manifest["variant"], self.manifest["chunk_id"], "*")
        with room_on_disk(name):
            writer = PartitionWriter(self.path, layout=self.layout, manifest=self.manifest)
            try:
                for row in rows:
                    writer.write(row)
                    statuses[row.status] += 1
                    n_descriptors += row.n_descriptors
                writer.close()
            except BaseException:
                writer.abandon()
                raise
        return Written(writer.payload, writer.checksum, statuses, n_descriptors)


@dataclass(frozen=True)
class JoinBlocks:
    """A partition of extract to be written from blocks, in the order of the images.

    Where only some images were made again, the rows of the others come from the partition at ``old``.
    """

    chunk_id: int
    root: Root
    blocks: tuple[Block, ...]
    target: Target
    old: Path | None

    def run(self) -> list[Written | Block]:
        """Write the partition; of a block that turns out to be damaged, return that.

        Raises:
            CorruptFile: the old partition is damaged.
            NotEnoughSpace: the disk is full.
        """
        try:
            return [self.target.write(self._in_order())]
        except DamagedBlock as error:
            return [error.block]

    def _in_order(self) -> Iterator[Row]:
        first, n_images = self.target.manifest["first_image_id"], self.target.manifest["n_images"]
        with ExitStack() as stack:
            rows = rows_of(self.root, self.blocks, input_payload=self.target.manifest["input_payload"])
            if self.old is not None:
                file = stack.enter_context(PartitionFile(self.old))
                made = {image_id for block in self.blocks for image_id in block.image_ids}
                kept = (row for row in file.rows() if row.image_id not in made)
                rows = merge(rows, kept, key=attrgetter("image_id"))
            expected = iter(range(first, first + n_images))
            for row in rows:  # to the very end, where the last block's rows are compared with what it promises
                if row.image_id != next(expected, None):
                    raise CorruptFile(f"{self.old} does not have one row for each image of its chunk, in order")
                yield row
            if next(expected, None) is not None:
                raise CorruptFile(f"{self.old} does not have a row for every image of its chunk")

    def split(self) -> list[Task[Any]]:
        """Return the task itself: the images have been extracted."""
        return [self]

    def crashed(self, reason: str) -> list[Any]:
        """Refuse to blame an image.

        Raises:
            EngineLost: always.
        """
        raise EngineLost(
            f"the worker process died while it wrote the partition of chunk {self.chunk_id} ({reason}). Its images are "
            "kept; run the same command again with fewer --workers, or with --workers 0"
        )


@dataclass(frozen=True)
class WholeChunk:
    """A partition to be transformed by the worker that writes the result: no rows go from process to process."""

    stage: TransformStage
    chunk_id: int
    model: Arrays
    path: Path
    target: Target

    def run(self) -> list[Written]:
        """Write the partition.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        with PartitionFile(self.path) as file:
            return [self.target.write(self.stage.transform(row, self.model) for row in file.rows())]

    def split(self) -> list[Task[Any]]:
        """Return one task a row group, whose rows come back; of a single row group, one a row."""
        blocks = self._blocks()
        return list(blocks) if len(blocks) > 1 else blocks[0].split()

    def crashed(self, reason: str) -> list[Any]:
        """Return a row of status ``crashed``."""
        return [row for block in self._blocks() for row in block.crashed(reason)]

    def _blocks(self) -> list[RowBlock]:
        return row_blocks(self.stage, self.chunk_id, self.model, self.path)


def row_blocks(stage: TransformStage, chunk_id: int, model: Arrays, path: Path) -> list[RowBlock]:
    """Return the rows of a partition as one task a row group."""
    with PartitionFile(path) as file:
        sizes = file.row_group_sizes()
    return [RowBlock(stage, chunk_id, model, path, group, 0, size) for group, size in enumerate(sizes)]


@dataclass(frozen=True)
class Learnt:
    """The result of learning one chunk: the state of a new learner, and the images it has learnt."""

    state: Arrays
    image_ids: list[int]

    @property
    def n_bytes(self) -> int:
        """The bytes that it takes in memory."""
        return sum(array.nbytes for array in self.state.values()) + 40 * len(self.image_ids)


@dataclass(frozen=True)
class FitChunk:
    """A chunk that a fit stage learns from; ``image_ids`` are those that it is to learn, where they are usable."""

    stage: FitStage
    chunk_id: int
    path: Path
    image_ids: frozenset[int]

    def blocks(self) -> Iterator[list[Row]]:
        """Yield the sample of each training row, in order, a row group at a time."""
        with PartitionFile(self.path) as file:
            for group in range(file.n_row_groups):
                rows = file.rows([group], without=self.stage.without)
                wanted = (row for row in rows if row.status == Status.OK and row.image_id in self.image_ids)
                yield [self.stage.sample(row) for row in wanted]

    def run(self) -> list[Learnt]:
        """Return what is learnt from the chunk alone."""
        learner, learnt = self.stage.learner(None), []
        for row in chain.from_iterable(self.blocks()):
            learner.learn(row)
            learnt.append(row.image_id)
        return [Learnt(learner.state(), learnt)]

    def split(self) -> list[Task[Learnt]]:
        """Return the task itself: no image can be left out of what is learnt."""
        return [self]

    def crashed(self, reason: str) -> list[Learnt]:
        """Refuse to go on without the chunk.

        Raises:
            EngineLost: always.
        """
        raise EngineLost(
            f"{self.stage.name} needs chunk {self.chunk_id}, and the worker process died on it ({reason}). What was "
            "learnt is kept; run the same command again with fewer --workers, or with --workers 0"
        )
