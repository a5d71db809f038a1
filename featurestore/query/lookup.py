"""Looking up one image by name: a cached copy of the catalog's small tables, until the catalog changes."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featurestore.arrow_arrays import arrow_column, numpy_array
from featurestore.catalog import Context, chunk_states, image_table, resolve, why_missing
from featurestore.errors import CorruptFile, NothingUsable, NotReady, QueryError, UnreadableFile
from featurestore.query.encode import Decoder, Encoder, decoder_of, make_encoder
from featurestore.query.index_coverage import Coverage, coverage_of
from featurestore.query.names import checked_name, no_such_image
from featurestore.query.selection import (
    Selection,
    check_stage,
    older_steps,
    open_partition,
    partition_of,
    select_images,
    with_columns,
)
from featurestore.query.store_index import StoreIndex, open_index
from featurestore.rows import KEYPOINT_COLUMNS, USABLE, Layout, Row, Status
from featurestore.stages import codes_of
from featurestore.storage import CATALOG, CONFIG, INDEX, PartitionFile, Place, Places
from featurestore.system import command_line

FEW_VALUES = 2_000_000  # of the dataset's columns, which are kept in memory; those of more are asked for
OPEN_FILES = 64  # the most partitions to keep open
SMALL = ("image_id", "filename", "status", "error", "n_descriptors")  # columns of every partition
TOO_MANY = tuple(map(os.strerror, (errno.EMFILE, errno.ENFILE)))

Signature = tuple[tuple[int, int, int] | None, ...]


def signature(store: Path) -> Signature:
    """Return a key that changes with the catalog, the recipe and the index: their files' times, sizes and inodes."""
    # commits of a killed process are still in the write-ahead log
    return tuple(_file_signature(store / name) for name in (CATALOG, f"{CATALOG}.wal", CONFIG, INDEX))


def _file_signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def most_open() -> int:
    """Return the number of partitions to keep open: a small share of the process's file limit."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_FILES if limit == resource.RLIM_INFINITY else max(1, min(OPEN_FILES, limit // 8))


@dataclass(frozen=True)
class Image:
    """An image of the dataset: its numbers and its name."""

    image_id: int
    chunk_id: int
    filename: str


@dataclass
class _Variant:
    """The partitions of one variant: of every chunk its first image and its partition, or why there is none."""

    name: str
    chunks: dict[int, tuple[int, Place | None, str]]


@dataclass
class _Open:
    """An open partition, and the first row of each of its row groups."""

    file: PartitionFile
    borders: NDArray[np.int64]
    small: dict[int, pa.Table] = field(default_factory=dict)  # the columns `SMALL` of the row groups that were read
    places: dict[int, Places] = field(default_factory=dict)  # of their keypoints

    def small_columns(self, row_group: int) -> pa.Table:
        """Return the columns `SMALL` of a row group."""
        if row_group not in self.small:
            self.small[row_group] = self.file.table(row_group, SMALL)
        return self.small[row_group]

    def all_at_once(self, row_group: int, columns: Sequence[str]) -> pa.Table:
        """Return the columns `SMALL` and others of a row group, by as few reads as there can be."""
        known = self.small.get(row_group)
        found = self.file.table(row_group, [*(SMALL if known is None else ()), *columns])
        if known is None:
            self.small[row_group] = found.select(SMALL)
            return found
        for name in SMALL:
            found = found.append_column(name, known[name])
        return found

    def keypoints(self, row_group: int, row: int, columns: Collection[str]) -> NDArray[Any] | None:
        """Return some columns of the keypoints of a row; None if they have to be read with those of the others."""
        if row_group not in self.places:
            counts = numpy_array(self.small_columns(row_group)["n_descriptors"])
            self.places[row_group] = Places(counts.astype(np.int64))
        return self.file.keypoints(row_group, row, self.places[row_group], columns)


def _with_all_of_keypoints(columns: Sequence[str]) -> list[str]:
    """Return columns, and if some of them are of keypoints, all of these, since Arrow's are read together."""
    some = any(name in KEYPOINT_COLUMNS for name in columns)
    return [*(name for name in columns if name not in KEYPOINT_COLUMNS), *(KEYPOINT_COLUMNS if some else ())]


def _counted(row: Row, n_descriptors: int, columns: Sequence[str], file: PartitionFile) -> Row:
    """Return a row, whose descriptors are as many as the partition says."""
    if "descriptors" in columns and row.n_descriptors != n_descriptors:
        raise CorruptFile(
            f"{file.path.name} has images with another number of descriptors than it says; put back a copy of it"
        )
    return row


@dataclass
class Lookup:
    """A snapshot of the catalog's small tables, and a cache of open partitions. Thread-safe."""

    context: Context
    signature: Signature
    _images: pa.Table | None = None
    _encoder: Encoder | None = None
    _variants: dict[tuple[str, str | None], _Variant] = field(default_factory=dict)
    _decoders: dict[str | None, Decoder] = field(default_factory=dict)
    _open: OrderedDict[Place, _Open] = field(default_factory=OrderedDict)
    _most: int = field(default_factory=most_open)
    _coverage: list[Coverage | None] = field(default_factory=list)  # one, once it was asked for
    _index: StoreIndex | None = None
    _whole: Selection | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def images(self) -> pa.Table:
        """``image_id``, ``chunk_id``, ``filename`` and ``removed_by`` of every image."""
        with self._lock:
            if self._images is None:
                with self.context.catalog.reading() as connection:
                    self._images = image_table(connection)
            return self._images

    def position(self, filename: str) -> int:
        """Return the row of an image in ``images``, also of one that has left the dataset; -1 if there is none."""
        try:
            (name,) = arrow_column([filename], pa.string())  # made by pc.index, it would import pandas
            return int(pc.index(self.images["filename"], name).as_py())
        except UnicodeEncodeError:  # the name of a file in another encoding, and names in a dataset are UTF-8
            return -1

    def find(self, filename: str) -> tuple[int, int]:
        """Return the ``image_id`` and ``chunk_id`` of an image in the dataset.

        Raises:
            QueryError: there is no such image, and the message has the most similar name; or it has left the dataset.
        """
        position = self.position(checked_name(filename))
        if position < 0:
            raise no_such_image(self.context, self.images, filename)
        image = {name: self.images[name][position].as_py() for name in ("image_id", "chunk_id", "removed_by")}
        if image["removed_by"] is not None:
            raise QueryError(
                f"{filename!r} was removed from the dataset by ingest {image['removed_by']}; its results are "
                "kept, and it comes back with its row"
            )
        return image["image_id"], image["chunk_id"]

    def row(
        self, filename: str, *, stage: str | None, variant: str | None, columns: Sequence[str], where_kept: bool = False
    ) -> tuple[Row, Layout]:
        """Return columns of an image's row at a stage, and the partition's layout.

        Arguments and other errors are those of `row_of`.

        Raises:
            QueryError: there is no such image.
        """
        image_id, chunk_id = self.find(filename)
        image = Image(image_id, chunk_id, filename)
        return self.row_of(image, stage=stage, variant=variant, columns=columns, where_kept=where_kept)

    def row_of(
        self,
        image: Image,
        *,
        stage: str | None,
        variant: str | None,
        columns: Sequence[str],
        where_kept: bool = False,
    ) -> tuple[Row, Layout]:
        """Return columns of an image's row at a stage, and the partition's layout. Threads may do so at once.

        Args:
            image: of the dataset.
            stage: None is the one that makes the codes.
            variant: of the stage; None is the current one.
            columns: of the partition. Columns of keypoints that are not among them are 0 in the row, if any are.
            where_kept: leave columns of keypoints out where the partition has none.

        Raises:
            QueryError: there is no such stage or variant.
            NotReady: the stage has not been run on it, or it keeps no keypoints.
            StoreBusy: a run has just replaced the partition.
            NothingUsable: the image file could not be used.
        """
        stage = stage or codes_of(self.context.flow).name
        check_stage(self.context, stage)
        image_id, filename = image.image_id, image.filename
        with self._lock:
            found = self._variant(stage, variant)
            first, path, why = found.chunks[image.chunk_id]
            if path is None:
                raise NotReady(
                    f"{stage} has not been computed for {filename!r}: {why}; compute it with: "
                    f"{command_line('run', self.context.root.path, stage)}"
                )
            opened = self._opened(path)
            if "x" in columns and not opened.file.layout.keypoints:
                columns = [name for name in columns if name not in KEYPOINT_COLUMNS]
                if not where_kept:
                    raise NotReady(
                        f"variant {found.name} of {stage} keeps no keypoints; ask for those of another stage"
                    )
            group = int(np.searchsorted(opened.borders, image_id - first, side="right")) - 1
            position = image_id - first - int(opened.borders[group])
            row = self._read(opened, group, position, columns)
        if row.image_id != image_id:
            raise CorruptFile(f"{path.name} does not hold the images that the catalog says; put back a copy of it")
        if row.status not in USABLE:
            raise NothingUsable(f"{filename!r} has no descriptors: {row.error or 'nothing is known'} ({row.status})")
        return row, opened.file.layout

    def _read(self, opened: _Open, group: int, position: int, columns: Sequence[str]) -> Row:
        if not opened.file.is_local:
            table = opened.all_at_once(group, _with_all_of_keypoints(columns)).slice(position, 1)
            return _counted(next(opened.file.rows_of(table)), table["n_descriptors"][0].as_py(), columns, opened.file)
        others = [name for name in columns if name != "descriptors"]
        only_keypoints = bool(others) and set(others) <= set(KEYPOINT_COLUMNS)
        keypoints = opened.keypoints(group, position, others) if only_keypoints else None
        others = [] if keypoints is not None else _with_all_of_keypoints(others)
        table = opened.file.table(group, [*SMALL, *others]) if others else opened.small_columns(group)
        row = next(opened.file.rows_of(table.slice(position, 1)))
        row = row if keypoints is None or row.status != Status.OK else replace(row, keypoints=keypoints)
        if "descriptors" not in columns:
            return row
        row = replace(row, descriptors=opened.file.descriptors(group, position))
        return _counted(row, table["n_descriptors"][position].as_py(), columns, opened.file)

    @property
    def whole(self) -> Selection:
        """The selection of all images and their codes; if they have few values, with all columns of the dataset.

        Raises:
            NotReady: no codes have been computed yet.
        """
        with self._lock:
            if self._whole is None:
                found = select_images(self.context, allow_missing=True)
                few = len(found.images) * len(found.dataset_columns) <= FEW_VALUES
                self._whole = with_columns(self.context, found, found.dataset_columns) if few else found
            return self._whole

    @property
    def encoder(self) -> Encoder:
        """The encoder of new images."""
        with self._lock:
            if self._encoder is None:
                self._encoder = make_encoder(self.context)
            return self._encoder

    def decoder(self, variant: str | None) -> Decoder:
        """Return the decoder of a variant's codes."""
        with self._lock:
            if variant not in self._decoders:
                self._decoders[variant] = decoder_of(self.context, variant)
            return self._decoders[variant]

    @property
    def coverage(self) -> Coverage | None:
        """The coverage of the store by its index; None if it has none."""
        with self._lock:
            if not self._coverage:
                self._coverage.append(coverage_of(self.context))
            return self._coverage[0]

    @property
    def index(self) -> StoreIndex:
        """The index of a store that has one: its file, and in memory what the file lacks."""
        coverage = self.coverage
        assert coverage is not None
        with self._lock:
            if self._index is None:
                self._index = open_index(self.context, coverage)
            return self._index

    def _variant(self, stage: str, variant: str | None) -> _Variant:
        key = (stage, variant)
        if key not in self._variants:
            context = self.context
            with context.catalog.reading() as connection:
                steps = (
                    resolve(connection, context.flow)
                    if variant is None
                    else older_steps(connection, context, stage, variant)
                )
                step = next(step for step in steps if step.stage.name == stage)
                states = [state for state in chunk_states(connection, steps) if state.stage == stage]
                never = why_missing(connection, step) if variant is None else "never run"
            chunks = {s.chunk_id: (s.first_image_id, *partition_of(context, s, never)) for s in states}
            self._variants[key] = _Variant(step.variant or "", chunks)
        return self._variants[key]

    def _opened(self, path: Place) -> _Open:
        if path not in self._open:
            self._open[path] = self._open_with_room(path)
            while len(self._open) > self._most:
                self._open.popitem(last=False)  # it stays open for a thread that still reads it
        self._open.move_to_end(path)
        return self._open[path]

    def _open_with_room(self, path: Place) -> _Open:
        """Open a partition; at the limit of open files, close others, and keep fewer from then on."""
        while True:
            try:
                file = open_partition(path)
                return _Open(file, np.cumsum([0, *file.row_group_sizes()], dtype=np.int64))
            except UnreadableFile as error:
                if error.reason not in TOO_MANY or not self._open:
                    raise
                self._most = max(1, len(self._open) - 1)
                self._open.popitem(last=False)
