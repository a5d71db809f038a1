"""The temporary file of one chunk's partition, which workers write, and how it is published and recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from featurestore.catalog import PartitionRow, WritableCatalog, check_partition, record_file, record_written
from featurestore.errors import CorruptFile
from featurestore.pipeline.tasks import Target
from featurestore.rows import Layout
from featurestore.storage import Writer, partition_name
from featurestore.system import room_on_disk


class ChunkWriter:
    """A partition in progress, in a temporary file."""

    def __init__(self, root: Writer, *, layout: Layout, manifest: Mapping[str, Any]) -> None:
        """Name the temporary file."""
        self._root, self._manifest, self._stack = root, manifest, ExitStack()
        name = partition_name(manifest["stage"], manifest["variant"], manifest["chunk_id"], "new")
        path = self._stack.enter_context(root.temporary(name))
        self.target = Target(path, layout, manifest, None if root.partitions.is_local else root.partitions)

    def publish(
        self,
        catalog: WritableCatalog,
        payload: str,
        checksum: str,
        facts: pa.Table,
        *,
        published: bool = False,
        n_done: int | None = None,
    ) -> PartitionRow:
        """Give the file its final name, and record it. A file of that name with the same rows is left as it is.

        Args:
            catalog: of the store.
            payload: the digest of its rows.
            checksum: the SHA-256 of its bytes.
            facts: its columns of `Layout.facts`.
            published: the worker has given it its name.
            n_done: images that the run has done, to be recorded with it; None if that is not recorded.
        """
        name = self.target.name(payload)
        with self._stack, room_on_disk(self.target.what):
            new = published or not self._is_there(name)
            if new and not published:
                self._root.publish(self.target.path, name)
        if not new:  # the file that is left may be encoded in another way
            return record_file(self._root, catalog, name, n_done=n_done)
        text = json.dumps({**self._manifest, "payload": payload}, sort_keys=True)  # as the file holds it
        manifest = json.loads(text)
        dim = self.target.layout.dim
        return record_written(self._root, catalog, name, manifest, facts, dim=dim, checksum=checksum, n_done=n_done)

    def _is_there(self, name: str) -> bool:
        if self._root.state(name) is None:
            return False
        try:
            check_partition(self._root, name)
        except CorruptFile:
            if not self._root.partitions.is_local:  # an object is never replaced
                self._root.remove(name)
            return False
        return True

    def abandon(self) -> None:
        """Remove the temporary file."""
        self._stack.close()
