"""The units of work: a block of images that a worker turns into rows, or a chunk that it transforms or learns from.

Tasks are frozen and picklable, and carry all they need: workers open neither the catalog nor the recipe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from featurestore.engines.engine import Task
from featurestore.errors import EngineLost
from featurestore.partition import Layout, PartitionFile, Row, partition_name
from featurestore.partition_writer import PartitionWriter
from featurestore.stages import Arrays, Extract, FitStage, TransformStage
from featurestore.storage import room_on_disk


@dataclass(frozen=True)
class ImageBlock:
    """Image files to be extracted."""

    stage: Extract
    chunk_id: int
    folder: str
    images: tuple[tuple[int, str], ...]  # (image_id, filename)

    def run(self) -> list[Row]:
        """Return the rows of the block's images, in order."""
        return [self.stage.extract(i, name, str(Path(self.folder, name))) for i, name in self.images]

    def split(self) -> list[Task[Row]]:
        """Return one task an image."""
        return [replace(self, images=(image,)) for image in self.images]

    def crashed(self, reason: str) -> list[Row]:
        """Return a row of status ``crashed``."""
        return [_crashed(image_id, filename, reason) for image_id, filename in self.images]


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
            return [_crashed(row.image_id, row.filename, reason) for row in rows]


@dataclass(frozen=True)
class Written:
    """What a worker tells of a partition that it has written."""

    payload: str
    statuses: Counter[str]  # of its rows
    n_descriptors: int


@dataclass(frozen=True)
class WholeChunk:
    """A partition to be transformed by the worker that writes the result, so that no rows go from process to process.

    ``target`` is a temporary file; whoever handed out the task publishes or removes it.
    """

    stage: TransformStage
    chunk_id: int
    model: Arrays
    path: Path
    target: Path
    layout: Layout
    manifest: Mapping[str, Any]

    def run(self) -> list[Written]:
        """Write the partition.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        statuses, n_descriptors = Counter[str](), 0
        name = partition_name(self.stage.name, self.manifest["variant"], self.chunk_id, "*")
        with room_on_disk(name), PartitionFile(self.path) as file:
            writer = PartitionWriter(self.target, layout=self.layout, manifest=self.manifest)
            try:
                for row in file.rows():
                    made = self.stage.transform(row, self.model)
                    writer.write(made)
                    statuses[made.status] += 1
                    n_descriptors += made.n_descriptors
                writer.close()
            except BaseException:
                writer.abandon()
                raise
        return [Written(writer.payload, statuses, n_descriptors)]

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
    """What was learnt from one chunk: the state of a learner that began anew, and which images it has seen."""

    state: Arrays
    image_ids: list[int]


@dataclass(frozen=True)
class FitChunk:
    """A chunk that a fit stage learns from; ``image_ids`` are those that it is to learn, where they are usable."""

    stage: FitStage
    chunk_id: int
    path: Path
    image_ids: frozenset[int]

    def blocks(self) -> Iterator[list[Row]]:
        """Yield what is to be learnt of each row, in order, a row group at a time."""
        with PartitionFile(self.path) as file:
            for group in range(file.n_row_groups):
                rows = file.rows([group], without=self.stage.without)
                wanted = (row for row in rows if row.status == "ok" and row.image_id in self.image_ids)
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


def _crashed(image_id: int, filename: str, reason: str) -> Row:
    return Row(image_id, filename, "crashed", f"the worker process died on this image ({reason})")
