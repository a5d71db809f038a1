"""The writer of one chunk's partition: rows arrive in any order and are written in image order.

Alternatively a worker writes the whole partition into the temporary file.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from featurestore.catalog import PartitionRow, Work, WritableCatalog, check_partition, record_file
from featurestore.errors import CorruptFile
from featurestore.pipeline.tasks import Target, Written
from featurestore.rows import Layout, Row
from featurestore.storage import PartitionWriter, Writer, partition_name
from featurestore.system import is_file, room_on_disk


class ChunkWriter:
    """A partition in progress, in a temporary file."""

    def __init__(self, root: Writer, work: Work, *, layout: Layout, manifest: Mapping[str, Any]) -> None:
        """Name the temporary file."""
        self._root, self._work, self._layout, self._manifest = root, work, layout, manifest
        self._ready: dict[int, Row] = {}
        self._position = 0
        self.held_bytes = 0  # of descriptors whose turn has not come
        self._stack = ExitStack()
        self._path = self._stack.enter_context(root.temporary(self._name("new")))
        self._writer: PartitionWriter | None = None
        self._payload = ""
        self._checksum: str | None = None

    def _name(self, payload: str) -> str:
        return partition_name(self._manifest["stage"], self._manifest["variant"], self._work.chunk_id, payload)

    @property
    def target(self) -> Target:
        """The target for a worker that writes the partition; `take_over` its result afterwards."""
        return Target(self._path, self._layout, self._manifest)

    @property
    def complete(self) -> bool:
        """Whether every image of the chunk is written."""
        return self._position == self._work.n_images

    def add(self, rows: list[Row]) -> None:
        """Take in rows, and write those whose turn has come.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        self._ready.update((row.image_id, row) for row in rows)
        with room_on_disk(self._name("*")):
            if self._writer is None:
                self._writer = PartitionWriter(self._path, layout=self._layout, manifest=self._manifest)
                self._stack.callback(self._writer.abandon)
            while (row := self._ready.pop(self._work.first_image_id + self._position, None)) is not None:
                self._writer.write(row)
                self._position += 1
        self.held_bytes = sum(_n_bytes(row) for row in self._ready.values())

    def take_over(self, written: Written) -> None:
        """Take what a worker has written to its `target`."""
        self._position, self._payload, self._checksum = self._work.n_images, written.payload, written.checksum

    def finish(self) -> None:
        """Write the end of the file, once it is `complete`. What is left to do is to `publish` it.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        with room_on_disk(self._name("*")):
            if self._writer is not None and not self._payload:
                self._writer.close()
                self._payload, self._checksum = self._writer.payload, self._writer.checksum

    def publish(self, catalog: WritableCatalog) -> PartitionRow:
        """Give the file its final name, and record it. A file of that name with the same rows is left as it is."""
        with self._stack, room_on_disk(self._name("*")):
            self.finish()
            name, checksum = self._name(self._payload), self._checksum
            if self._is_there(name):
                checksum = None  # it may be written in another way
            else:
                self._root.publish(self._path, name)
        return record_file(self._root, catalog, name, checksum=checksum)

    def _is_there(self, name: str) -> bool:
        if not is_file(self._root.local(name)):
            return False
        try:
            check_partition(self._root, name)
        except CorruptFile:
            return False
        return True

    def abandon(self) -> None:
        """Remove the temporary file."""
        self._stack.close()


def _n_bytes(row: Row) -> int:
    return 0 if row.descriptors is None else row.descriptors.nbytes
