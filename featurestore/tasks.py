"""The unit of work: a block of images that a worker turns into rows.

Tasks are frozen and picklable, and carry all they need: workers open neither the catalog nor the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from featurestore.engines.engine import Task
from featurestore.partition import PartitionFile, Row
from featurestore.stages import Arrays, Extract, TransformStage


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

    def split(self) -> list[Task]:
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

    def split(self) -> list[Task]:
        """Return one task a row."""
        return [replace(self, start=i, stop=i + 1) for i in range(self.start, self.stop)]

    def crashed(self, reason: str) -> list[Row]:
        """Return a row of status ``crashed``."""
        with PartitionFile(self.path) as file:
            rows = islice(file.rows([self.row_group], without=["descriptors"]), self.start, self.stop)
            return [_crashed(row.image_id, row.filename, reason) for row in rows]


def _crashed(image_id: int, filename: str, reason: str) -> Row:
    return Row(image_id, filename, "crashed", f"the worker process died on this image ({reason})")
