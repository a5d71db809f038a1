"""Tasks: transform rows, join what was written of a partition, learn a chunk.

Tasks are frozen and picklable, and self-contained: workers open neither the catalog nor the recipe.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from heapq import merge
from itertools import accumulate, chain, islice, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.engines import Task
from featurestore.errors import CorruptFile, EngineLost
from featurestore.pipeline.image_row import crashed
from featurestore.rows import Layout, Row, Status
from featurestore.stages import Arrays, FitStage, TransformStage
from featurestore.storage import (
    Block,
    DamagedBlock,
    PartitionFile,
    Partitions,
    PartitionWriter,
    Place,
    Root,
    partition_name,
    rows_of,
)
from featurestore.system import flush, room_on_disk


@dataclass(frozen=True)
class Written:
    """A worker's report of the file that it has written: a partition, or a piece of one."""

    path: Path
    payload: str
    checksum: str  # SHA-256 of the file
    statuses: Counter[str]  # of its rows
    n_descriptors: int
    facts: pa.Table  # the columns that the catalog keeps; see `Layout.facts`
    published: bool = False  # it is no longer at ``path``, but has its final name


@dataclass(frozen=True)
class Target:
    """A temporary file to be written by a worker. Another process publishes it as a partition, or removes it.

    Where partitions are elsewhere, the worker publishes it: its payload is in its name, so this changes no other file,
    and the bytes of all workers do not go through one process.
    """

    path: Path
    layout: Layout
    manifest: Mapping[str, Any]  # of the partition
    elsewhere: Partitions | None = None

    @property
    def what(self) -> str:
        """The name of the partition in an error: its payload is not known yet."""
        return self.name("*")

    def name(self, payload: str) -> str:
        """Return the name of the partition that has this payload."""
        return partition_name(self.manifest["stage"], self.manifest["variant"], self.manifest["chunk_id"], payload)

    def write(self, rows: Iterable[Row]) -> Written:
        """Write all rows of the partition, and flush them to disk; or publish them, where partitions are elsewhere.

        Raises:
            NotEnoughSpace: the disk is full.
            UnreadableFile: the service that keeps partitions does not answer.
        """
        written = self._write(self.path, rows, self.layout)
        if self.elsewhere is None:
            flush(self.path)  # in the worker: the coordinator need not wait
            return written
        try:
            self.elsewhere.put(self.path, self.name(written.payload))
        except CorruptFile:  # another file has this name, which the coordinator looks at
            return written
        return replace(written, published=True)

    def write_piece(self, rows: Iterable[Row], positions: range) -> Written:
        """Write the rows at some positions of the partition: to a file of their own, unless these are all.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        if len(positions) == self.manifest["n_images"]:
            return self.write(rows)
        path = self.path.with_name(f"{self.path.name}.{positions.start}-{positions.stop}")
        return self._write(path, rows, replace(self.layout, compression="none"))  # it is read once, and soon

    def _write(self, path: Path, rows: Iterable[Row], layout: Layout) -> Written:
        """Write a file that is at ``path`` once it is whole: another attempt may be writing at the same time."""
        own = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
        with room_on_disk(self.what):
            writer = PartitionWriter(own, layout=layout, manifest=self.manifest)
            try:
                for row in rows:
                    writer.write(row)
                writer.close()
                own.replace(path)
            except BaseException:
                writer.abandon()
                own.unlink(missing_ok=True)
                raise
        return Written(path, writer.payload, writer.checksum, writer.statuses, writer.n_descriptors, writer.facts)


class _Join:
    """A partition to be joined from what workers have written of it."""

    chunk_id: int

    def split(self) -> list[Task[Any]]:
        """Return the task itself: the work on the images is done."""
        return [self]  # type: ignore[list-item]

    def crashed(self, reason: str) -> list[Any]:
        """Refuse to blame an image.

        Raises:
            EngineLost: always.
        """
        raise EngineLost(
            f"the worker process died while it wrote the partition of chunk {self.chunk_id} ({reason}). Finished work "
            "is kept; run the same command again with fewer --workers, or with --workers 0"
        )


@dataclass(frozen=True)
class JoinBlocks(_Join):
    """A partition of extract to be written from blocks, in the order of the images.

    Where only some images were made again, the rows of the others come from the partition at ``old``.
    """

    chunk_id: int
    root: Root
    blocks: tuple[Block, ...]
    target: Target
    old: Place | None

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


@dataclass(frozen=True)
class TransformRows:
    """Consecutive rows of a partition, to be transformed by the worker that writes the result."""

    stage: TransformStage
    chunk_id: int
    model: Arrays
    path: Place
    positions: range  # of the rows in the partition
    target: Target

    def run(self) -> list[Written]:
        """Write the rows: a whole partition, or a piece.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        with PartitionFile(self.path) as file:
            rows = (self.stage.transform(row, self.model) for row in _rows_at(file, self.positions))
            return [self.target.write_piece(rows, self.positions)]

    def split(self) -> list[Task[Written]]:
        """Return one task a row group; of a single row group, one a row."""
        with PartitionFile(self.path) as file:
            groups = row_groups(file)
        within = [group for group in groups if self.positions.start <= group.start < self.positions.stop]
        if len(within) <= 1:
            within = [range(i, i + 1) for i in self.positions]
        return [replace(self, positions=positions) for positions in within]

    def crashed(self, reason: str) -> list[Written]:
        """Write rows of status ``crashed``."""
        with PartitionFile(self.path) as file:
            rows = _rows_at(file, self.positions, without=["descriptors"])
            blamed_rows = (crashed(row.image_id, row.filename, reason) for row in rows)
            return [self.target.write_piece(blamed_rows, self.positions)]


def row_groups(file: PartitionFile) -> list[range]:
    """Return the positions of the rows of each row group."""
    stops = list(accumulate(file.row_group_sizes()))
    return [range(start, stop) for start, stop in pairwise([0, *stops])]


def _rows_at(file: PartitionFile, positions: range, *, without: Sequence[str] = ()) -> Iterator[Row]:
    for number, group in enumerate(row_groups(file)):
        if group.start < positions.stop and positions.start < group.stop:
            rows = file.rows([number], without=without)
            yield from islice(rows, max(positions.start - group.start, 0), positions.stop - group.start)


@dataclass(frozen=True)
class JoinPieces(_Join):
    """A partition to be written from pieces that hold all of its rows, in order."""

    chunk_id: int
    pieces: tuple[Path, ...]
    target: Target

    def run(self) -> list[Written]:
        """Write the partition.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        return [self.target.write(chain.from_iterable(map(_rows_in, self.pieces)))]


def _rows_in(path: Path) -> Iterator[Row]:
    with PartitionFile(path) as file:
        yield from file.rows()


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
    path: Place
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
