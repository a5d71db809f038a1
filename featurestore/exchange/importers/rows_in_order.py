"""A chunk whose rows arrive in any order and are written in the order of the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from featurestore.catalog import PartitionRow, Work, WritableCatalog
from featurestore.pipeline import ChunkWriter
from featurestore.rows import Layout, Row, Status
from featurestore.storage import PartitionWriter, Writer
from featurestore.system import room_on_disk

REMOVED = "the image had left the dataset when the others were imported"


class RowsInOrder:
    """A partition in progress, written by this process."""

    def __init__(self, root: Writer, work: Work, *, layout: Layout, manifest: Mapping[str, Any]) -> None:
        """Open its temporary file."""
        self._work = work
        self._chunk = ChunkWriter(root, layout=layout, manifest=manifest)
        self._writer = PartitionWriter(self._chunk.target.path, layout=layout, manifest=manifest)
        self._ready: dict[int, Row] = {}
        self._position = 0
        self.held_bytes = 0  # of descriptors whose turn has not come
        self.statuses: Counter[str] = Counter()  # images by status

    @property
    def complete(self) -> bool:
        """Whether every image of the chunk is written."""
        return self._position == self._work.n_images

    def add(self, row: Row) -> None:
        """Take in a row, and write those whose turn has come.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        self._ready[row.image_id] = row
        self.statuses[row.status] += 1
        self.held_bytes += _n_bytes(row)
        with room_on_disk(self._chunk.target.what):
            while (due := self._ready.pop(self._work.first_image_id + self._position, None)) is not None:
                self._writer.write(due)
                self._position += 1
                self.held_bytes -= _n_bytes(due)

    def add_removed(self, filenames: Mapping[int, str]) -> None:
        """Take in rows without descriptors for images that have left the dataset: a chunk has a row for each image.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        for image_id, filename in filenames.items():
            self.add(Row(image_id, filename, Status.UNKNOWN, REMOVED))

    def finish(self) -> None:
        """Write the end of the file, once it is `complete`. What is left to do is to `publish` it.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        with room_on_disk(self._chunk.target.what):
            self._writer.close()

    def publish(self, catalog: WritableCatalog) -> PartitionRow:
        """Publish and record what is finished."""
        writer = self._writer
        return self._chunk.publish(catalog, writer.payload, writer.checksum, writer.facts)

    def abandon(self) -> None:
        """Remove the temporary file."""
        self._writer.abandon()
        self._chunk.abandon()


def _n_bytes(row: Row) -> int:
    return 0 if row.descriptors is None else row.descriptors.nbytes
