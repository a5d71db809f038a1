"""Rebuilding the catalog from the store's files: all of it but ``runs`` follows from them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from featurestore.catalog import (
    Described,
    HeldCatalog,
    WritableContext,
    catalog_counts,
    chunk_digests,
    record_model,
    record_new,
    record_rebuilt_run,
    replay,
    restore_runs,
    runs_of_manifests,
)
from featurestore.engines import EngineChoice
from featurestore.errors import CorruptFile, FormatError, UnreadableFile
from featurestore.maintenance.check_files import Checkers, CheckFile, check_files, checkers_of
from featurestore.maintenance.problems import NO_FILE
from featurestore.maintenance.sandbox import run_child
from featurestore.notebook import Tabular
from featurestore.rows import USABLE
from featurestore.stages import FLOW
from featurestore.storage import CATALOG, Root, is_index
from featurestore.system import advice_for, is_file, lacking

COPY = "put back a copy of it"
AT_ONCE = 50  # partitions that are recorded in one transaction; each alone would take 5 ms
Watch = Callable[[str], None]
Key = tuple[str, str, int]  # stage, variant, chunk
PARTITION_FILE = re.compile(r"partitions/[^/]+/[^/]+/(?:chunk|index)-(\d+)[-.].*parquet")


@dataclass(frozen=True)
class RebuildReport(Tabular):
    """The report of rebuild: the counts of the new catalog."""

    n_images: int
    n_partitions: int
    n_models: int
    n_runs: int
    notes: tuple[str, ...]  # files left out, choices made, and facts that are lost


@dataclass
class Findings:
    """Notes on the files of a store, for the report."""

    notes: list[str] = field(default_factory=list)  # files left out, and choices made
    unreadable: list[UnreadableFile] = field(default_factory=list)  # of files and folders


def rebuild_catalog(context: WritableContext, *, choice: EngineChoice) -> RebuildReport:
    """Build a new catalog beside the old one, and replace the old one atomically.

    Args:
        context: of the store.
        choice: of the workers that read files.

    Raises:
        CorruptFile: a dataset file is gone or damaged; nothing else says which images there are.
        UnreadableFile: files or folders could not be read; the message lists them. The old catalog is left as it was.
        NotEnoughSpace: the disk has no room for a second catalog. The old one is left as it was.
    """
    root = context.root
    root.sweep()
    with ExitStack() as stack:
        draft = stack.enter_context(root.temporary(CATALOG))
        # DuckDB leaves its log where the file can't be written.
        stack.callback(draft.with_name(f"{draft.name}.wal").unlink, missing_ok=True)
        salvaged = stack.enter_context(root.temporary("runs.parquet"))
        with HeldCatalog(root, draft) as catalog:
            found = fill(root, catalog, watch=lambda name: None, checkers=checkers_of(context, choice))
            try:
                found.notes += _restore_runs(root, catalog, salvaged)
            except UnreadableFile as error:
                found.unreadable.append(error)
            _refuse_unreadable(root, found.unreadable)
            with catalog.reading() as connection:
                counts = catalog_counts(connection)
            catalog.finish()
        context.catalog.replace(draft)
    return RebuildReport(**counts._asdict(), notes=tuple(found.notes))


def _refuse_unreadable(root: Root, found: list[UnreadableFile]) -> None:
    if found:
        listed = "; ".join(f"{root.name_of(error.path)} can't be read: {error.reason}" for error in found)
        short = [reason for error in found if (reason := lacking(error)) is not None]
        steps = sorted(set(map(advice_for, short)))
        if len(short) < len(found):
            steps.append("make it readable, or move what you do not need out of the store")
        advice = "; ".join(steps)
        raise UnreadableFile(
            f"the catalog is left as it was, since a new one would lack what can't be read of {root.path}: {listed}. "
            f"{advice[0].upper()}{advice[1:]}, then rebuild again"
        )


def fill(root: Root, catalog: HeldCatalog, *, watch: Watch, checkers: Checkers) -> Findings:
    """Record every file of the store in an empty catalog; return notes for the report.

    Args:
        root: of the store.
        catalog: to be filled.
        watch: called with the name of each file before it is read.
        checkers: the workers that read files.

    Raises:
        CorruptFile: a dataset file is gone or damaged.
        UnreadableFile: a dataset file can't be read.
    """
    catalog.migrate()
    if not root.files("dataset", ".parquet"):
        raise CorruptFile(
            f"{root.local('dataset')} holds no file, and nothing else says which images there are; {COPY}"
        )
    for number, name in enumerate(root.files("dataset", ".parquet"), start=1):
        watch(name)
        if PurePosixPath(name).name != f"{number:06d}.parquet":
            raise CorruptFile(f"dataset/{number:06d}.parquet is missing, and {name} builds on it; {COPY}")
        if root.state(name) is None:
            raise CorruptFile(f"{name} is {NO_FILE}; {COPY}")
        replay(root, catalog, name)
    found = Findings()
    _record_models(root, catalog, watch, found)
    with catalog.reading() as connection:
        known = chunk_digests(connection)
    payloads = {("", chunk): digest for chunk, digest in known.items()}  # by variant; images have none
    current: list[Described] = []
    for key, names, whole in _checked(root, _listed(root, "partitions", ".parquet", found), watch, checkers, found):
        if whole and key[2] in known:
            current.append(_current(root, whole, payloads, found))
        elif whole:
            found.notes.append(f"left out: {names[0]} is of a chunk that is not in the dataset")
        if len(current) == AT_ONCE:
            record_new(catalog, current)
            current = []
    if current:
        record_new(catalog, current)
    return found


def _listed(root: Root, folder: str, suffix: str, found: Findings) -> list[str]:
    names, failed = root.listing(folder, suffix)
    found.unreadable += failed
    return names


def _record_models(root: Root, catalog: HeldCatalog, watch: Watch, found: Findings) -> None:
    for name in _listed(root, "models", ".npz", found):
        if PurePosixPath(name).name == "state.npz":
            continue
        watch(name)
        try:
            if root.state(name) is None:
                raise CorruptFile(f"{name} is {NO_FILE}")
            record_model(root, catalog, name)
        except (CorruptFile, FormatError) as error:
            found.notes.append(f"left out: {error}")
        except UnreadableFile as error:
            found.unreadable.append(error)


def _in_order(names: list[str]) -> Iterator[tuple[Key, list[str]]]:
    """Yield the files of each chunk at each stage and variant, upstream first, so that each one's input is known."""
    order = {stage.name: place for place, stage in enumerate(FLOW)}
    found: dict[Key, list[str]] = defaultdict(list)
    for name in names:
        match = PARTITION_FILE.fullmatch(name)
        parts = PurePosixPath(name).parts
        found[parts[1], parts[2] if len(parts) > 2 else "", int(match[1]) if match else -1].append(name)
    yield from sorted(found.items(), key=lambda item: (order.get(item[0][0], len(order)), item[0]))


def _checked(
    root: Root, names: list[str], watch: Watch, checkers: Checkers, found: Findings
) -> Iterator[tuple[Key, list[str], list[Described]]]:
    """Yield the partitions of each chunk that pass all checks, in the order of `_in_order`."""
    groups = list(_in_order(names))

    def tasks() -> Iterator[CheckFile]:
        for (_, _, chunk_id), names in groups:
            for name in names:
                watch(name)
                yield CheckFile(chunk_id, root, name)

    n_bytes = _n_bytes(root) if checkers.choice == EngineChoice() else 0
    with closing(check_files(tasks(), checkers=checkers, n_bytes=n_bytes)) as results:
        for key, names in groups:
            whole = []
            for task, checked in islice(results, len(names)):
                if checked.described is not None:
                    whole.append(checked.described)
                elif isinstance(checked.error, UnreadableFile):
                    found.unreadable.append(checked.error)
                else:
                    said = str(checked.error)
                    named = PurePosixPath(task.name).name in said
                    found.notes.append(f"left out: {said if named else f'{task.name}: {said}'}")
            yield key, names, whole


def _n_bytes(root: Root) -> int:
    """Return the bytes of all partitions; of those that can't be read, the check reports that."""
    return sum(state.size for state in root.partitions.list("partitions", ".parquet")[0].values())


def _current(root: Root, whole: list[Described], payloads: dict[tuple[str, int], str], found: Findings) -> Described:
    """Return the current partition of a chunk."""
    best = whole[0] if len(whole) == 1 else max(whole, key=lambda described: _rank(root, described, payloads))
    row = best.row
    payloads[row.variant, row.chunk_id] = row.payload
    others = [described.row.path for described in whole if described is not best]
    found.notes += [f"chosen: {row.path} rather than {other}" for other in others]
    return best


def _rank(root: Root, described: Described, payloads: Mapping[tuple[str, int], str]) -> tuple[Any, ...]:
    """Return the sort key that chooses the current partition of a chunk.

    First the one made from the current input; then a whole one before an index, the one with the most usable images (a
    retry adds some), and the newest.
    """
    manifest, row = described.manifest, described.row
    upstream = manifest["reads_variant"], manifest["chunk_id"]
    usable = sum(status in USABLE for status in described.results["status"].to_pylist())
    state = root.state(row.path)
    modified = 0 if state is None else state.modified_ns
    return payloads.get(upstream) == row.input_payload, not is_index(row.path), usable, modified


def _restore_runs(root: Root, catalog: HeldCatalog, salvaged: Path) -> list[str]:
    """Restore the runs from the old catalog, read in a sandbox process; if that fails, from the manifests."""
    if is_file(root.local(CATALOG)):
        try:
            run_child("salvage", root.local(CATALOG), salvaged)
            runs = pq.read_table(salvaged)
            with catalog.transaction() as connection:
                restore_runs(connection, runs)
            return []
        except CorruptFile as error:
            reason = str(error)
        except FileNotFoundError:
            reason = "the old catalog holds no runs"
    else:
        reason = "there is no old catalog"
    written, _ = root.partitions.list("partitions", ".parquet")
    with catalog.transaction() as connection:
        for number, run in enumerate(runs_of_manifests(connection)):
            times = [state.modified_ns / 1e9 for path in run.paths if (state := written.get(path)) is not None]
            begun, ended = (datetime.fromtimestamp(t, UTC).replace(tzinfo=None) for t in (min(times), max(times)))
            record_rebuilt_run(connection, number, run, begun=begun, ended=ended)
    return [f"runs are as far as the manifests tell, without hosts and durations: {reason}"]
