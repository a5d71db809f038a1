"""The notebook's chunk files become extract partitions, without redoing the extraction.

First only the filenames of every file are read, to learn which of the store's chunks are there as a whole; then the
files are read image by image. The files' borders need not be those of the chunks. Rows that come before their turn wait
in memory, up to a limit; beyond it, chunks are put off to another pass over the files.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.catalog import UNKNOWN as UNKNOWN_VERSION
from featurestore.catalog import (
    Context,
    FoundMembers,
    Step,
    Work,
    WritableContext,
    make_plan,
    match_filenames,
    partition_manifest,
    recorded_run,
    resolve,
)
from featurestore.errors import ConfigError, DatasetError, LossyDescriptors
from featurestore.exchange.importers.notebook_file import NotebookFile
from featurestore.exchange.importers.report import EXAMPLES, ImportReport, make_report
from featurestore.exchange.importers.rows_in_order import RowsInOrder
from featurestore.progress import StageSummary
from featurestore.rows import Row, Status
from featurestore.stages import Extract, Sift
from featurestore.storage import Origin
from featurestore.system import command_line, is_folder, is_text, readable, shown

VERB = "import-npz"
VERSION = re.compile(r"\d+(\.\d+){1,3}[\w.+-]{0,40}")
UNKNOWN = "the notebook kept no descriptors: missing, unreadable or without keypoints"
HELD_BYTES = 2 << 30  # bytes of descriptors held in memory
MOST_OPEN = 64  # chunks assembled at a time


def import_npz(context: WritableContext, folder: Path, *, opencv: str | None = None) -> ImportReport:
    """Import extract partitions from the files in ``folder``; a chunk is published when all its images were found.

    An image that has left the dataset need not be found; then its row has no descriptors.
    ``opencv`` is the version that computed the descriptors, for the manifests; None: it is not known.

    Raises:
        ConfigError: the recipe's descriptors are not those of the notebook, or ``opencv`` is no version.
        DatasetError: there are no files, or they hold something else.
        CorruptFile: a file is damaged, or holds more than arrays. Chunks that were published stay.
        LossyDescriptors: a value is not a whole number from 0 to 255.
        NotEnoughSpace: the disk is full.
    """
    if opencv is not None and not VERSION.fullmatch(opencv):
        raise ConfigError(f"--opencv takes a version like 4.10.0, as cv2.__version__ says it, and not {opencv!r}")
    files = notebook_files(folder)
    with context.catalog.reading() as connection:
        steps = resolve(connection, context.flow)
        plan = make_plan(connection, steps)["extract"]
    assert isinstance(plan.step.stage, Extract)
    _refuse_other_recipe(plan.step.stage, context.root.path)
    found = match(context, files)
    missing = {work.chunk_id: work for work in plan.todo if work.redo is None}
    whole = {chunk.chunk_id for chunk in found.chunks if not chunk.n_missing}
    work = {chunk_id: work for chunk_id, work in missing.items() if chunk_id in whole}
    statuses: Counter[str] = Counter()
    if work:
        statuses = Import(context, plan.step, work, found, opencv=opencv or UNKNOWN_VERSION).run()
    return make_report(
        found.chunks,
        missing,
        n_chunks=plan.n_chunks,
        n_files=len(files),
        statuses=statuses,
        unmatched=found.unmatched,
        n_repeated=found.n_repeated,
    )


def notebook_files(folder: Path) -> list[NotebookFile]:
    """Return the npz files of a folder in numeric order: ``sift_chunk_1000_...`` before ``sift_chunk_10000_...``.

    Raises:
        DatasetError: the folder is not there or has none, or one of them holds something else.
        CorruptFile: one of them is damaged.
        UnreadableFile: the folder or one of them can't be read.
    """
    if not is_folder(folder):
        raise DatasetError(f"{folder} is not a folder; name the one with the notebook's sift_chunk_*.npz")
    with readable(folder):
        paths = [path for path in folder.iterdir() if path.suffix == ".npz" and not path.name.startswith(".")]
    if not paths:
        raise DatasetError(f"{folder} has no .npz files; name the folder with the notebook's sift_chunk_*.npz")
    return [NotebookFile(path) for path in sorted(paths, key=lambda path: _numeric(path.name))]


def _numeric(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _refuse_other_recipe(stage: Extract, store: Path) -> None:
    if stage.extractor != Sift():
        raise ConfigError(
            "the notebook's files hold SIFT with OpenCV's defaults, and featurestore.toml asks for other descriptors: "
            '[extract] is not as init wrote it. Put back extractor = "sift" and the defaults of [extract.sift], or '
            f"extract the images with: {command_line('run', store, 'extract')}"
        )


@dataclass(frozen=True)
class Members:
    """One file, and the ``image_id`` of each of its arrays: -1 for those to skip."""

    file: NotebookFile
    image_ids: NDArray[np.int64]
    chunk_ids: NDArray[np.int32]


@dataclass(frozen=True)
class Match:
    """The matches of the filenames in the files."""

    members: tuple[Members, ...]
    chunks: tuple[FoundMembers, ...]  # every chunk with an image that was found, complete or not
    unmatched: tuple[str, ...]
    n_repeated: int


def match(context: Context, files: list[NotebookFile]) -> Match:
    """Match the files' names with images."""
    names = [file.filenames() for file in files]
    sizes = [len(found) for found in names]
    flat = [name for found in names for name in found]
    table = pa.table(
        {
            "file": pa.array(np.repeat(np.arange(len(files), dtype=np.int32), sizes)),
            "position": pa.array(np.arange(len(flat))),
            # As ingest wrote them; a name that is not UTF-8 is no name of the dataset.
            "filename": pa.array([posixpath.normpath(name) if is_text(name) else None for name in flat], pa.string()),
        }
    )
    with context.catalog.reading() as connection:
        matched, chunks = match_filenames(connection, table, examples=EXAMPLES)
    known, first = matched["image_id"].is_valid().to_numpy(), matched["first"].to_numpy()
    image_ids = np.where(first, matched["image_id"].fill_null(-1).to_numpy(), -1)
    chunk_ids = matched["chunk_id"].fill_null(-1).to_numpy()
    ends = np.cumsum(sizes)[:-1]
    origins = matched["file"].to_numpy()
    unmatched = [f"{shown(flat[i])} in {files[origins[i]].path.name}" for i in np.flatnonzero(~known)]
    return Match(
        members=tuple(map(Members, files, np.split(image_ids, ends), np.split(chunk_ids, ends))),
        chunks=tuple(chunks),
        unmatched=tuple(unmatched),
        n_repeated=int(np.count_nonzero(known & ~first)),
    )


class Import:
    """The import in progress: reads the files, and publishes partitions."""

    def __init__(
        self, context: WritableContext, step: Step, work: dict[int, Work], found: Match, *, opencv: str
    ) -> None:
        """Take the missing chunks whose images were all found, or have left the dataset."""
        assert isinstance(step.stage, Extract)
        self._context, self._step, self._work, self._members = context, step, work, found.members
        self._removed = {chunk.chunk_id: chunk.removed for chunk in found.chunks}
        self._opencv = opencv
        self._layout = step.stage.layout()
        self._open: dict[int, RowsInOrder] = {}
        self._complete: dict[int, RowsInOrder] = {}
        self._statuses: Counter[str] = Counter()
        self._counts: dict[str, Any] = {"n_chunks": 0, "n_images": 0, "n_descriptors": 0, "n_bytes": 0}

    def run(self) -> Counter[str]:
        """Publish every chunk, and return the images by status."""
        started, summary, reporter = time.perf_counter(), None, self._context.reporter
        reporter.begin(VERB, sum(work.n_images for work in self._work.values()))
        try:
            with recorded_run(self._context, self._step, workers=1, verb=VERB) as record:
                try:
                    for chunk_id, work in self._work.items():
                        if len(self._removed[chunk_id]) == work.n_images:  # the files have none of it
                            self._begin(chunk_id)
                    pending = set(self._work) - self._publish()
                    while pending:  # every pass publishes at least the first of its chunks
                        pending -= self._pass(pending)
                finally:
                    record.update(self._counts)
                    for assembly in [*self._open.values(), *self._complete.values()]:
                        assembly.abandon()
            seconds = time.perf_counter() - started
            summary = StageSummary(VERB, **self._counts, statuses=self._statuses, seconds=seconds)
        finally:
            reporter.end(summary)
        return self._statuses

    def _pass(self, pending: Collection[int]) -> set[int]:
        active, published = set(pending), set[int]()
        for members in self._members:
            if np.isin(members.chunk_ids[members.image_ids >= 0], list(active)).any():
                self._read(members, active)
                published |= self._publish()
        return published

    def _read(self, members: Members, active: set[int]) -> None:
        names = members.file.filenames()
        found = members.file.descriptors(names)
        # To the very end, even if the last images are skipped: the file's checksum is compared only there.
        for name, image_id, chunk_id, descriptors in zip(
            names, members.image_ids.tolist(), members.chunk_ids.tolist(), found, strict=True
        ):
            if image_id < 0 or chunk_id not in active:
                continue
            if chunk_id not in self._open and len(self._open) >= MOST_OPEN:
                active.discard(chunk_id)  # for another pass
                continue
            self._take(chunk_id, _row(image_id, name, descriptors, members.file), active)

    def _take(self, chunk_id: int, row: Row, active: set[int]) -> None:
        if chunk_id not in self._open:
            self._begin(chunk_id)
        assembly = self._open[chunk_id]
        assembly.add(row)
        if assembly.complete:
            self._finish(chunk_id)
        elif assembly.held_bytes:
            self._make_room(active)

    def _begin(self, chunk_id: int) -> None:
        work = self._work[chunk_id]
        manifest = partition_manifest(self._step, work, origin=Origin.NPZ, opencv=self._opencv)
        assembly = RowsInOrder(self._context.root, work, layout=self._layout, manifest=manifest)
        self._open[chunk_id] = assembly
        assembly.add_removed(self._removed[chunk_id])
        if assembly.complete:
            self._finish(chunk_id)

    def _finish(self, chunk_id: int) -> None:
        self._open[chunk_id].finish()
        self._complete[chunk_id] = self._open.pop(chunk_id)

    def _make_room(self, active: set[int]) -> None:
        """Defer the chunk that holds the most memory, never the first, while too much is held."""
        held = {chunk_id: assembly.held_bytes for chunk_id, assembly in self._open.items()}
        total, first = sum(held.values()), min(held)
        for chunk_id in sorted(held, key=lambda c: (-held[c], -c)):
            if total > HELD_BYTES and held[chunk_id] and chunk_id != first:
                self._open.pop(chunk_id).abandon()
                active.discard(chunk_id)
                total -= held[chunk_id]

    def _publish(self) -> set[int]:
        """Publish complete chunks. Call it after a file was read to its end, and so is known to be undamaged."""
        done = set(self._complete)
        for chunk_id in sorted(done):
            self._statuses += self._complete[chunk_id].statuses
            row = self._complete[chunk_id].publish(self._context.catalog)
            del self._complete[chunk_id]
            self._counts["n_chunks"] += 1
            for name in ("n_images", "n_descriptors", "n_bytes"):
                self._counts[name] += getattr(row, name)
            self._context.reporter.advance(row.n_images)
        return done


def _row(image_id: int, name: str, descriptors: NDArray[Any] | None, file: NotebookFile) -> Row:
    filename = posixpath.normpath(name)
    if descriptors is None:
        return Row(image_id, filename, Status.UNKNOWN, UNKNOWN)
    if not len(descriptors):
        return Row(image_id, filename, Status.EMPTY, "no keypoints found")
    with np.errstate(invalid="ignore"):
        whole = descriptors.astype(np.uint8)
    if not np.array_equal(whole, descriptors):
        worst = descriptors.flat[int(np.argmax(whole != descriptors))]
        raise LossyDescriptors(
            f"{file.path.name}: the descriptors of {filename} have the value {worst}, which uint8 can't hold without "
            "loss, so they are not SIFT as OpenCV computes it; move the file to another folder, and let run extract "
            "its images"
        )
    return Row(image_id, filename, Status.OK, None, whole)
