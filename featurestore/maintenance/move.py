"""Moving the partitions of a store to another place: copied, compared, and only then deleted where they were.

The recipe names the new place once every partition is there. A move that was interrupted goes on where it was.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.catalog import PartitionRow, WritableContext, all_partitions, record_etags
from featurestore.errors import CorruptFile, NotEnoughSpace
from featurestore.formatting import counted, human_bytes
from featurestore.notebook import Tabular
from featurestore.storage import CONFIG, Partitions, Root, State, disown_partitions, open_hashed, own_partitions
from featurestore.system import command_line, flush, readable

AT_ONCE = 4  # partitions that are copied side by side: a service gives each connection a share
COPIED_AT_ONCE = 1 << 20  # bytes


@dataclass(frozen=True)
class MoveReport(Tabular):
    """The report of a move."""

    where: str  # the folder or the address
    n_partitions: int  # copied
    n_bytes: int
    n_there: int  # partitions that were there already
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return dataclasses.asdict(self)


def move_partitions(context: WritableContext, target: Partitions | None) -> MoveReport:
    """Move a store's partitions to another place; None is the store's folder.

    Raises:
        ConfigError: the place belongs to another store, or has partitions of one.
        CorruptFile: a partition is damaged. Those that were copied are kept for the next attempt.
        NotEnoughSpace: the disk has no room for them.
        UnreadableFile: a service does not answer, or a file can't be read.
        NotWritable: the service denies to put objects there.
    """
    move = _Move(context, Root(context.root.path, target))
    move.rows = _recorded(context)
    if move.source == move.target:
        return move.finish()
    own_partitions(move.there, empty=True)
    missing = move.missing()
    move.refuse_full(missing)
    move.copy(missing)
    _name_in_recipe(context, "" if target is None else target.where)
    move.record_etags()
    notes = move.remove()
    n_bytes = sum(row.n_bytes for row in missing)
    return MoveReport(move.target.where, len(missing), n_bytes, len(move.rows) - len(missing), notes)


def _recorded(context: WritableContext) -> list[PartitionRow]:
    with context.catalog.reading() as connection:
        return all_partitions(connection)


class _Move:
    """One move, from the place that the recipe names to ``there``."""

    def __init__(self, context: WritableContext, there: Root) -> None:
        self.context, self.root, self.there = context, context.root, there
        self.source, self.target = context.root.partitions, there.partitions
        self.rows: Sequence[PartitionRow] = ()

    def missing(self) -> list[PartitionRow]:
        """Return the partitions that are not there yet, to the byte."""
        there, failed = self.target.list("partitions", ".parquet")
        if failed:
            raise failed[0]
        return [row for row in self.rows if not self._is_there(row, there)]

    def _is_there(self, row: PartitionRow, there: Mapping[str, State]) -> bool:
        same = row.path in there and there[row.path].size == row.n_bytes
        return same and self.target.checksum(row.path) == row.checksum

    def refuse_full(self, missing: Sequence[PartitionRow]) -> None:
        """Check that the disk has room for all that comes into the folder, or passes through it."""
        sizes = sorted(row.n_bytes for row in missing)
        needed = sum(sizes if self.target.is_local else [] if self.source.is_local else sizes[-AT_ONCE:])
        free = self.root.free_bytes()
        if needed > free:
            raise NotEnoughSpace(
                f"{human_bytes(needed)} would be copied into {self.root.path}, which has {human_bytes(free)} free; "
                "make room, then move again"
            )

    def copy(self, missing: Sequence[PartitionRow]) -> None:
        """Copy partitions, some at a time, each compared with its record."""
        reporter = self.context.reporter
        reporter.begin("move", sum(row.n_images for row in missing))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for row, _ in zip(missing, pool.map(self._copy, missing), strict=True):
                    reporter.advance(row.n_images)
            finally:
                pool.shutdown(cancel_futures=True)
                reporter.end(None)

    def _copy(self, row: PartitionRow) -> None:
        self.root.check()
        name = row.path
        try:
            self.target.remove(name)  # it is damaged, or half of it
            if not self.target.copy(self.source, name):
                with self.root.temporary(name) as draft:
                    self._compare(row, self._read(name, draft))
                    if self.target.is_local:
                        flush(draft)
                    self.target.put(draft, name)
            elif self.target.checksum(name) != row.checksum:
                self.target.remove(name)
                self._compare(row, None)
        except FileNotFoundError as error:
            raise self._damaged(row, "it is missing") from error

    def _read(self, name: str, draft: Path) -> str:
        """Copy a partition to a local file, and return its SHA-256."""
        place = self.root.at(name)
        with readable(place), open_hashed(place) as file, draft.open("wb") as copy:
            shutil.copyfileobj(file, copy, COPIED_AT_ONCE)
            return file.hexdigest()

    def _compare(self, row: PartitionRow, checksum: str | None) -> None:
        if checksum != row.checksum:
            raise self._damaged(row, "its SHA-256 is not what was recorded")

    def _damaged(self, row: PartitionRow, why: str) -> CorruptFile:
        mend = command_line("verify", self.root.path, "--repair")
        return CorruptFile(
            f"{row.path} can't be moved: {why}; the store is where it was, and what was copied is kept. Repair it: "
            f"{mend}, then move again"
        )

    def record_etags(self) -> None:
        """Record the ETags that the partitions have there; without them `verify` asks for the SHA-256 of each."""
        states = {} if self.target.is_local else self.target.list("partitions", ".parquet")[0]
        etags = {row.path: states[row.path].version if row.path in states else None for row in self.rows}
        with self.context.catalog.transaction() as connection:
            record_etags(connection, etags)

    def remove(self) -> tuple[str, ...]:
        """Delete the partitions where they were, and return what is left there."""
        for row in self.rows:
            self.root.check()
            self.source.remove(row.path)
        left, failed = self.source.names("partitions", "")
        notes = [f"left at {self.source.where}: {counted(len(left), 'file')} without a record"] if left else []
        if not left and not failed:
            disown_partitions(self.root)
        self.root.remove_empty_folders()
        return (*notes, *map(str, failed))

    def finish(self) -> MoveReport:
        """Delete what an interrupted move into an object store has left in the folder."""
        folder, notes = Root(self.root.path), list[str]()
        if not self.target.is_local:
            there, failed = self.target.list("partitions", ".parquet")
            if failed:
                raise failed[0]
            whole = [r.path for r in self.rows if r.path in there and there[r.path].size == r.n_bytes]
            old = [name for name in whole if folder.state(name) is not None]
            for name in old:
                self.root.check()
                folder.partitions.remove(name)
            self.root.remove_empty_folders()
            notes += [f"{counted(len(old), 'partition')} deleted that an interrupted move had left"] if old else []
        return MoveReport(self.target.where, 0, 0, len(self.rows), tuple(notes))


def _name_in_recipe(context: WritableContext, where: str) -> None:
    """Write the place into the recipe; its comments and all other lines stay."""
    import tomlkit

    path = context.root.local(CONFIG)
    document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    document.setdefault("store", tomlkit.table())["partitions"] = where
    with context.root.publishing(CONFIG) as draft:
        draft.write_text(tomlkit.dumps(document), encoding="utf-8")
        shutil.copymode(path, draft)
