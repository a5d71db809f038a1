"""Checks of partition files on all cores. Each file is read once, by a worker; the caller compares what it found.

The same reading can copy it, for `merge`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from featurestore.catalog import (
    Context,
    Described,
    PartitionRow,
    check_partition,
    describe_partition,
    terms_for_reading,
)
from featurestore.engines import Engine, EngineChoice, RemoteEngine, Task, Terms, all_cores, dispatch_in_order
from featurestore.errors import CorruptFile, FormatError, UnreadableFile
from featurestore.maintenance.sandbox import CRASHES
from featurestore.storage import PartitionFile, Root, State
from featurestore.system import flush, room_on_disk, unreadable

LOG = logging.getLogger("featurestore.maintenance")
# Bytes of files from which workers save more time than it takes to start them.
WORTH_WORKERS = 6 << 30
WORTH_WORKERS_DEEP = 1 << 30
COPIED_AT_ONCE = 1 << 20  # bytes
MOST_KEPT = 1000  # results that wait for an earlier file: a chunk of a thousand images has 100 kB of them
DAMAGED = "the file is damaged: its SHA-256 is not what was recorded"


@dataclass(frozen=True)
class Checked:
    """The result of a check: the record of the file, or the error."""

    n_bytes: int | None  # of the file; None if it is missing, or its size can't be read
    described: Described | None = None
    filenames: tuple[str, ...] = ()  # of its rows, where they were asked for
    error: CorruptFile | FormatError | UnreadableFile | None = None


@dataclass(frozen=True)
class CheckFile:
    """A partition to check, against its record in the catalog if there is one."""

    chunk_id: int
    root: Root
    name: str
    recorded: PartitionRow | None = None
    deep: bool = True
    filenames: bool = False
    listed: bool = False  # a list of all partitions has told the state
    state: State | None = None  # that it told
    copy: Path | None = None  # a temporary file to write the bytes to while they are read, where every value is

    def run(self) -> list[Checked]:
        """Return the result of the check; errors about the file are part of it.

        Raises:
            NotEnoughSpace: the disk has no room for the copy.
        """
        n_bytes = None
        try:
            state = self.state if self.listed else self.root.state(self.name)
            n_bytes = None if state is None else state.size
            return [self._checked(n_bytes)]
        except (CorruptFile, FormatError, UnreadableFile) as error:
            return [Checked(n_bytes, error=error)]

    def split(self) -> list[Task[Checked]]:
        """Return the task itself: a file is checked as a whole."""
        return [self]

    def crashed(self, reason: str) -> list[Checked]:
        """Blame the file if reading it can end a process in this way; one that was killed from outside says nothing."""
        if any(number.name in reason for number in CRASHES):
            return [Checked(None, error=CorruptFile(f"{self.name} crashes the process that reads it ({reason})"))]
        died = f"the process that reads it died ({reason})"
        return [Checked(None, error=unreadable(self.root.at(self.name), died))]

    def _checked(self, n_bytes: int | None) -> Checked:
        checksum = self.recorded.checksum if self.recorded is not None else None
        if n_bytes is None:
            raise CorruptFile("the file is missing")
        if self.recorded is not None and n_bytes != self.recorded.n_bytes:
            raise CorruptFile(f"the file has {n_bytes} bytes, and had {self.recorded.n_bytes}")
        if self.deep:
            described = self._decoded(checksum)
        elif not self._is_listed_as_recorded() and self.root.partitions.checksum(self.name) != checksum:
            raise CorruptFile(DAMAGED)
        else:
            described = describe_partition(self.root, self.name, checksum=checksum)
        if not self.filenames:
            return Checked(n_bytes, described)
        with PartitionFile(self.root.at(self.name)) as file:
            return Checked(n_bytes, described, tuple(file.columns(["filename"])["filename"].to_pylist()))

    def _is_listed_as_recorded(self) -> bool:
        """Return whether the list tells the ETag of the record: then the object is the one that was put."""
        etag = self.recorded.etag if self.recorded is not None else None
        return etag is not None and self.state is not None and self.state.version == etag

    def _decoded(self, checksum: str | None) -> Described:
        """Read every value, and return the record. A wrong checksum is reported before what follows from it."""
        try:
            described = self._read()
        except CorruptFile as error:
            if checksum is not None and self.root.partitions.digest(self.name) != checksum:
                raise CorruptFile(DAMAGED) from error
            raise
        if checksum is not None and described.row.checksum != checksum:
            raise CorruptFile(DAMAGED)
        return described

    def _read(self) -> Described:
        if self.copy is None:
            return check_partition(self.root, self.name)
        with room_on_disk(self.name), self.copy.open("wb", buffering=COPIED_AT_ONCE) as copy:
            described = check_partition(self.root, self.name, copy=copy)
        flush(self.copy)  # by each worker: the caller would flush one after the other
        return described


def checks_of(root: Root, rows: Sequence[PartitionRow], *, deep: bool) -> Iterator[CheckFile]:
    """Yield a check of each recorded partition and the filenames in it.

    Where one list tells all states, it is asked first: if it fails, all would.

    Raises:
        UnreadableFile: the list failed.
    """
    elsewhere = not root.partitions.is_local
    states, failed = root.partitions.list("partitions", ".parquet") if elsewhere else ({}, [])
    if failed:
        raise failed[0]
    for row in rows:
        state = states.get(row.path)
        yield CheckFile(row.chunk_id, root, row.path, row, deep=deep, filenames=True, listed=elsewhere, state=state)


@dataclass(frozen=True)
class Checkers:
    """The workers that check files, where the caller of a verb wants them."""

    choice: EngineChoice
    terms: Terms | None = None  # for those on other machines
    say: Callable[[str], None] = LOG.info  # reports a line to the user

    def open(self, n_bytes: int, *, deep: bool) -> Engine:
        """Return their engine, with `default_workers` if the caller left it open."""
        engine = self.choice.open(default_workers(n_bytes, deep=deep))
        if not isinstance(engine, RemoteEngine):
            LOG.debug("checking %d bytes of partitions with %d workers", n_bytes, engine.workers)
        elif self.terms is not None:
            engine.agree(self.terms, say=self.say)
        return engine


def checkers_of(context: Context, choice: EngineChoice, *, read: Root | None = None) -> Checkers:
    """Return the workers of a verb on a store, which reads its files or those of another one, ``read``."""
    terms = terms_for_reading(context.root, read or context.root) if choice.is_remote else None
    return Checkers(choice, terms, context.reporter.say)


def default_workers(n_bytes: int, *, deep: bool) -> int:
    """Return the number of workers that check files of ``n_bytes``: one for every core, or 0 if there is little to do.

    Decoding (``deep``) takes six times as long as the SHA-256 alone, and pays for workers with fewer bytes.
    """
    return all_cores() if n_bytes >= (WORTH_WORKERS_DEEP if deep else WORTH_WORKERS) else 0


def check_files(
    tasks: Iterable[CheckFile], *, checkers: Checkers, n_bytes: int, deep: bool = True
) -> Generator[tuple[CheckFile, Checked], None, None]:
    """Check files, and yield the results in the order of the tasks.

    Args:
        tasks: the files.
        checkers: the workers.
        n_bytes: of all files.
        deep: whether the tasks decode every value.
    """
    with closing(checkers.open(n_bytes, deep=deep)) as engine:
        for task, (checked,) in dispatch_in_order(engine, tasks, most=MOST_KEPT):
            assert isinstance(task, CheckFile)
            yield task, checked
