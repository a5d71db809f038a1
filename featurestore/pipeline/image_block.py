"""The task of extract: a block of images, whose rows the worker writes to a file.

It is frozen and picklable, and self-contained: workers open neither the catalog nor the recipe.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile

from featurestore.engines import Task
from featurestore.images import RunImages, n_pixels, state_of_image
from featurestore.pipeline.image_row import blamed, make_rows
from featurestore.rows import Row
from featurestore.stages import Extract
from featurestore.storage import Attempt, Draft, FileState, Root, write_block
from featurestore.system import limited

Image = tuple[int, str]  # image_id, filename


@dataclass(frozen=True)
class Large:
    """The result of a block whose first image needs more memory than the block may take; nothing is extracted."""

    n_bytes: int  # that the image needs


@dataclass(frozen=True)
class ImageBlock:
    """Image files to be extracted by the worker that writes their rows to a block.

    A block ends early after ``seconds``, so that little is lost with it whatever the images, and before an image that
    needs more than ``max_bytes`` of memory: the rest is another block.
    """

    stage: Extract
    chunk_id: int
    folder: RunImages
    images: tuple[Image, ...]
    root: Root
    attempt: Attempt
    seconds: float
    max_bytes: int | None  # None sets no limit

    def run(self) -> list[Draft | Large]:
        """Write the block.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        if not self._is_small(self.images[0]):
            return [Large(self._n_bytes(self.images[0]))]
        return self._write(self._rows())

    def split(self) -> list[Task[Draft | Large]]:
        """Return one task an image."""
        return [replace(self, images=(image,)) for image in self.images]

    def crashed(self, reason: str) -> list[Draft | Large]:
        """Write a block of rows that say why they failed."""
        return self._write((self._state(name), blamed(self.stage, i, name, reason)) for i, name in self.images)

    def _rows(self) -> Iterator[tuple[FileState, Row]]:
        begun = time.monotonic()
        size = self.stage.extractor.batch_size
        for start in range(0, len(self.images), size):
            whole = self.images[start : start + size]
            batch = tuple(takewhile(self._is_small, whole))
            states = [self._state(name) for _, name in batch]  # before it is read: what changes meanwhile is noticed
            yield from zip(states, make_rows(self.stage, batch, self.folder), strict=True)
            if len(batch) < len(whole) or time.monotonic() - begun > self.seconds:
                return

    def _is_small(self, image: Image) -> bool:
        return self.max_bytes is None or self._n_bytes(image) <= self.max_bytes

    def _n_bytes(self, image: Image) -> int:
        """Return the memory that an image needs; 0 if its size is unknown, or over the limit on pixels."""
        with limited(self.stage.max_seconds):
            pixels = n_pixels(self.folder.file(image[1]), max_pixels=self.stage.max_pixels)
        return pixels * self.stage.extractor.bytes_per_pixel if pixels <= self.stage.max_pixels else 0

    def _write(self, rows: Iterable[tuple[FileState, Row]]) -> list[Draft | Large]:
        return [write_block(self.root, self.attempt, self.stage.layout(), rows, warned=self.stage.warned)]

    def _state(self, name: str) -> FileState:
        return state_of_image(self.folder.file(name))
