"""The catalog: a DuckDB file that is open for one short transaction at a time.

DuckDB admits one process at a time, so every transaction opens the file, commits and closes it, queued by an exclusive
lock on a file beside it. So ``status`` and ``sql`` work during a ten-hour run. The `Instance` that opens the file is
kept for the next transaction.
"""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from featurestore.catalog import diagnosis, revisions
from featurestore.catalog.connection import Instance, restart, transaction
from featurestore.catalog.lock import exclusive, logged_if_slow
from featurestore.catalog.revisions import columns_of, refuse_newer, revision, upgrade
from featurestore.catalog.version import Version, file_version
from featurestore.errors import CorruptFile, StoreBusy
from featurestore.storage import CATALOG, Root, Writer, living_holder
from featurestore.system import file_size, held_back, is_file, readable, room_on_disk
from featurestore.wording import first_line

LOCK_SECONDS = 120.0
SMALL_BYTES = 32 << 20  # a million images: all of them are listed in 0.2 s
# A process that polls rarely gets the lock last: with filelock's 0.05, three readers in a loop delayed a writer by 5 s.
POLL_SECONDS = 0.005


class Catalog:
    """``catalog.duckdb`` of one store, to be read."""

    threads: int | None = None  # of DuckDB; None is one for every core
    kept: object | None = None  # what readers keep for their next question, until `version` is another

    def __init__(self, root: Root) -> None:
        """Take the root of the store; the file is not opened yet."""
        self._root = root
        self.path = root.local(CATALOG)
        self._turn = threading.RLock()
        self._thread = threading.local()  # whether this thread has the catalog open
        self._opener: Instance | None = None

    @property
    def is_small(self) -> bool:
        """Whether a query that reads all images is over soon enough for others to wait for it."""
        return not is_file(self.path) or file_size(self.path) <= SMALL_BYTES

    def version(self) -> Version | None:
        """Return a key that every commit changes; None if there is none. Raises `StoreBusy`, as `reading` does."""
        with self._once(), self._lock(optional=True), self._turn:
            return file_version(self.path)

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the catalog for reading, for a short while. Another thread may do the same; the thread itself may not.

        Raises:
            StoreBusy: others kept the catalog busy for two minutes.
            CorruptFile: it is missing, damaged or not a DuckDB file.
            UnreadableFile: it can't be opened or read, for a reason outside of the file.
            FormatError: it was made by a newer version.
        """
        if not is_file(self.path):
            raise CorruptFile(f"{self.path} is missing; {diagnosis.remedy(self.path)}")
        with self._once(), self._lock(optional=True):
            with self._noticing_damage(), self._connect(read_only=True) as connection:
                found = revision(connection)
                refuse_newer(found)
                if found is None:
                    raise CorruptFile(f"{self.path} holds no catalog; {diagnosis.remedy(self.path)}")
                if found == revisions.HEAD:
                    yield connection
                    return
            copy = HeldCatalog(self._root)
        # A reader changes nothing: of a catalog of an older format it migrates a copy in memory.
        with copy:
            copy.take_over(self.path)
            with copy.reading() as connection:
                yield connection

    @contextmanager
    def _connect(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        deadline = time.monotonic() + LOCK_SECONDS
        with self._turn:
            while True:
                with held_back(), diagnosis.noticing_interrupts():
                    instance = self._attached(read_only=read_only, last=time.monotonic() > deadline)
                    if instance is not None:
                        with instance.attached() as connection:
                            yield connection
                        return
                time.sleep(POLL_SECONDS * random.uniform(0.5, 2.0))

    def _attached(self, *, read_only: bool, last: bool) -> Instance | None:
        """Return an instance with the file attached; None if it is locked and attempts are left.

        Not every process takes ``catalog.lock``: a reader that may not write it has only DuckDB's own.
        """
        instance = self._opener
        if instance is None or not instance.is_open:
            with readable(self.path):
                instance = self._opener = Instance(threads=self.threads)
        try:
            instance.attach(self.path, read_only=read_only)
        except duckdb.Error as error:
            if not diagnosis.is_locked(error):
                instance.close()
                raise diagnosis.unopenable(self.path, error) from error
            if last:
                raise self._in_use(error) from error
            return None
        return instance

    def _in_use(self, error: duckdb.Error) -> StoreBusy:
        holder = living_holder(self._root)
        by = f"in use by {holder}" if holder else "open in a program that is not featurestore"
        return StoreBusy(
            f"{self.path} is {by}, for {LOCK_SECONDS:.0f} seconds by now ({first_line(error)}); wait for it "
            "to end, or stop it"
        )

    @contextmanager
    def _once(self) -> Iterator[None]:
        """Refuse to open the catalog twice in one thread, which would deadlock.

        Raises:
            RuntimeError: this thread has the catalog open.
        """
        if getattr(self._thread, "inside", False):
            raise RuntimeError(f"this thread has {self.path} open already; end that before the catalog is opened again")
        self._thread.inside = True
        try:
            yield
        finally:
            self._thread.inside = False

    @contextmanager
    def _lock(self, *, optional: bool = False) -> Iterator[None]:
        """Take ``catalog.lock``; if it is ``optional``, a process without write permission goes on without it."""
        if optional and not self._root.writable:
            yield
            return
        with exclusive(self._root, optional=optional, seconds=LOCK_SECONDS, poll=POLL_SECONDS):
            yield

    @contextmanager
    def _noticing_damage(self) -> Iterator[None]:
        """Turn DuckDB's errors about a damaged file, or one of another schema, into one clear error."""
        try:
            yield
        except duckdb.Error as error:
            if (failure := diagnosis.unwritten(self.path, error)) is not None:
                raise failure from error
            if isinstance(error, diagnosis.ANOTHER_SCHEMA):
                lacking = self._lacking()
                if lacking is None:
                    raise
                how = diagnosis.remedy(self.path)
                raise CorruptFile(f"{self.path} is damaged: it has no {lacking}; {how}") from error
            if diagnosis.is_about_the_file(error, self.path):
                raise diagnosis.unopenable(self.path, error) from error
            raise

    def _lacking(self) -> str | None:
        """Return a column that the catalog lacks, None if it has all."""
        with HeldCatalog(self._root) as empty:
            empty.migrate()
            with empty.reading() as connection:
                right = columns_of(connection)
        with self._connect(read_only=True) as connection:
            return min(right - columns_of(connection), default=None) if revision(connection) == revisions.HEAD else None


class WritableCatalog(Catalog, ABC):
    """A catalog that this process may change: of a store that it holds, or a private copy."""

    threads = 1  # the cores are the workers'

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the catalog for writing; commit at the end, roll back on an exception.

        Raises:
            StoreBusy: others kept the catalog busy for two minutes, or another process has taken over the store.
            NotWritable: this user may not write the catalog, or the disk fails.
            NotEnoughSpace: the disk is full. As with a disk that fails, the transaction did not happen; or all of it is
                in DuckDB's log, from which whatever opens the catalog next takes it.
            UnreadableFile: it can't be opened or read, for a reason outside of the file.
        """
        with (
            self._once(),
            self._lock(),
            logged_if_slow(),
            room_on_disk(CATALOG),
            self._noticing_damage(),
            self._connect(read_only=False) as connection,
            transaction(connection),
        ):
            yield connection
            self._check()

    def migrate(self) -> None:
        """Create the schema, or migrate it to the newest revision.

        Raises:
            CorruptFile: the catalog is missing from a store that has files; an empty one would hide them.
            FormatError: the catalog was made by a newer version.
        """
        if self._lost():
            raise CorruptFile(f"{self.path} is missing; {diagnosis.remedy(self.path)}")
        with self.transaction() as connection:
            if (found := revision(connection)) == revisions.HEAD:
                return
            refuse_newer(found)
            if found is None:
                restart(connection)
            upgrade(connection, found)

    @abstractmethod
    def _check(self) -> None:
        """Check that this process still holds the store."""

    @abstractmethod
    def _lost(self) -> bool:
        """Return whether the catalog is missing from a store that has files."""


class StoreCatalog(WritableCatalog):
    """The catalog of a store that this process holds."""

    def __init__(self, writer: Writer) -> None:
        """Take the right to change the store; nothing is opened yet."""
        super().__init__(writer)
        self._writer = writer

    def replace(self, draft: Path) -> None:
        """Replace this catalog by the finished ``draft``, atomically."""
        with self._once(), self._lock():
            self._writer.check()
            # DuckDB would replay the old catalog's write-ahead log into the new one.
            self.path.with_name(f"{self.path.name}.wal").unlink(missing_ok=True)
            self._writer.publish(draft, CATALOG)

    def _check(self) -> None:
        self._writer.check()

    def _lost(self) -> bool:
        return not is_file(self.path) and bool(self._root.files("dataset", ".parquet"))


class HeldCatalog(WritableCatalog):
    """A private catalog, in memory or in a temporary file. It stays open until `close`.

    Its owner may change it without holding the store. Transactions are cheap, since they open no file and take no lock.
    """

    def __init__(self, root: Root, path: Path | None = None, *, memory: str | None = None) -> None:
        """Create an empty catalog in memory, or open the file ``path``; `migrate` brings it up to date.

        Raises:
            CorruptFile: the file is damaged or not a DuckDB file.
            NotEnoughSpace: the disk is full.
            NotWritable: the file can't be written, for another reason.
        """
        super().__init__(root)
        with self._noticing_damage():
            self._instance = Instance(path, threads=1, memory=memory)

    @property
    def is_small(self) -> bool:
        """True: no other process waits for it."""
        return True

    def __enter__(self) -> HeldCatalog:
        """Return the catalog."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the catalog; an in-memory catalog is lost, and the file may lack what `finish` writes."""
        self._instance.close()

    def finish(self) -> None:
        """Write all that was committed into the file, and close it. DuckDB does not say if closing alone fails to.

        Raises:
            NotEnoughSpace: the disk is full; the file lacks a part of it.
            NotWritable: it can't be written, for another reason.
        """
        with self._once(), self._noticing_damage():
            self._instance.execute("CHECKPOINT")
        self.close()

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection."""
        with self._once(), self._lock(), self._connect(read_only=False) as connection:
            yield connection

    def take_over(self, path: Path) -> None:
        """Copy the catalog file ``path`` into this empty one in memory, and bring the copy up to date.

        Raises:
            CorruptFile: the file is damaged or not a DuckDB file.
            FormatError: it was made by a newer version.
        """
        try:
            self._instance.attach(path, "taken", read_only=True)
            self._instance.execute("COPY FROM DATABASE taken TO memory")
            self._instance.execute("DETACH taken")
        except duckdb.Error as error:
            raise diagnosis.unopenable(path, error) from error
        self.migrate()

    def _check(self) -> None:
        """Do nothing: no other process can open it."""

    def _lost(self) -> bool:
        return False

    def _lacking(self) -> str | None:
        return None

    @contextmanager
    def _connect(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._instance.connect() as connection:
            yield connection

    @contextmanager
    def _lock(self, *, optional: bool = False) -> Iterator[None]:
        with self._turn:
            yield
