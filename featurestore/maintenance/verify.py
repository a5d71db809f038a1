"""Verification of a store: every file against the catalog, and the catalog against the files.

A file's SHA-256 is compared before its content is used. A fault is a `Problem`, with a remedy; ``repair`` drops damaged
files and wrong records, so that a run recomputes only these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, TypeVar

import numpy as np
from duckdb import DuckDBPyConnection

from featurestore.catalog import (
    LITTLE,
    REFIT,
    Catalog,
    Context,
    DatasetLogFile,
    DatasetMasks,
    Fingerprint,
    HeldCatalog,
    ModelRow,
    PartitionRow,
    TrainingSet,
    VariantRow,
    all_models,
    all_partitions,
    all_variants,
    dataset_log_files,
    describe_model,
    filenames_of_chunk,
    find_variant,
    fingerprint,
    has_partitions,
    held_copy,
    learnt_images,
    recorded_files,
    remedy,
    replay,
    resolve,
    results_of_partition,
)
from featurestore.engines import EngineChoice
from featurestore.errors import CorruptFile, DatasetError, FormatError, UnreadableFile
from featurestore.formatting import counted
from featurestore.images import Source as ImageSource
from featurestore.maintenance.check_files import DAMAGED, Checked, check_files, checkers_of, checks_of
from featurestore.maintenance.image_changes import Recorded, change_of, reason_to_pass_over, recorded_sources
from featurestore.maintenance.problems import NO_FILE, Kind, Problem, VerifyReport
from featurestore.maintenance.sandbox import run_child
from featurestore.maintenance.stray_files import stray_files
from featurestore.stages import FitStage
from featurestore.storage import CATALOG, HEADER, INDEX, PAIRS, Root, check_index_files, read_pairs_file, read_state
from featurestore.system import command_line, file_digest, file_size, is_file, scratch_folder

T = TypeVar("T")
COPY = "put back a copy of it"
READ = "nothing is known to be wrong with it, and --repair leaves it alone: make it readable, and verify again"


def verify_store(context: Context, *, deep: bool, choice: EngineChoice) -> VerifyReport:
    """Compare every file with the catalog, and the catalog with the files.

    Args:
        context: of the store; no other process may be changing it.
        deep: decode every value too, and read the image files rather than ask for their size.
        choice: of the workers that read files.
    """
    report = VerifyReport()
    if isinstance(context.catalog, HeldCatalog):  # an untrusted store
        report.notes.append("the image files were not checked: the store is untrusted")
        _Checks(context, deep=deep, choice=choice, report=report).run(trusted=False)
        return report
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(_copied(context))
        except CorruptFile as error:
            how = remedy(context.catalog.path)
            report.problems.append(Problem(Kind.CATALOG, CATALOG, error.fault or str(error), how))
            return report
        except UnreadableFile as error:
            report.problems.append(_unreadable(CATALOG, error))
            return report
        _Checks(dataclasses.replace(context, catalog=copy), deep=deep, choice=choice, report=report).run(trusted=True)
    return report


@contextmanager
def _copied(context: Context) -> Iterator[HeldCatalog]:
    """Yield a copy of the catalog, after a sandbox process has read the original. Both take bounded memory."""
    path = context.catalog.path
    if not is_file(path):
        raise CorruptFile(f"{CATALOG} is missing")
    with scratch_folder() as folder:
        run_child("salvage", path, folder / "runs.parquet")
        with held_copy(context.root, path, folder / CATALOG) as copy:
            yield copy


class _Checks:
    """The checks of one store, on a copy of its catalog."""

    def __init__(self, context: Context, *, deep: bool, choice: EngineChoice, report: VerifyReport) -> None:
        self._context, self._root, self._deep, self._report = context, context.root, deep, report
        self._choice = choice
        self._run = f"with --repair it is dropped, and {command_line('run', context.root.path)} recomputes it"
        self._rebuild = remedy(context.catalog.path)

    def run(self, *, trusted: bool) -> None:
        """Run all checks. An untrusted store comes without its images, and its search files are never used."""
        for problems in (self.dataset(), self.partitions(), self.models(), self.orphans()):
            self._report.problems.extend(problems)
        if trusted:
            self._report.problems.extend(self.search_files())
            self._report.problems.extend(self.images())

    def _asked(self, question: Callable[[DuckDBPyConnection], T]) -> T:
        """Return the result of one query to the catalog, opened for that query only."""
        with self._context.catalog.reading() as connection:
            return question(connection)

    def _compare_bytes(self, name: str, *, checksum: str, n_bytes: int | None = None) -> str | None:
        """Return the fault of a recorded file's bytes, or None."""
        path = self._root.local(name)
        if not is_file(path):
            return "the file is missing"
        size = file_size(path)
        self._report.n_files += 1
        self._report.n_bytes += size
        if n_bytes is not None and size != n_bytes:
            return f"the file has {size} bytes, and had {n_bytes}"
        if file_digest(path) != checksum:
            return DAMAGED
        return None

    def dataset(self) -> Iterator[Problem]:
        """Yield faults of dataset files, and of images or chunks that do not follow from them."""
        bad = False
        ingests = self._asked(dataset_log_files)
        for row in ingests:
            for problem in _unless_unreadable(row.path, self._dataset_file(row)):
                bad = True
                yield problem
        if not ingests:
            yield Problem(Kind.CATALOG, "ingests", "it lists no dataset file", self._rebuild)
        elif not bad:
            yield from self._replayed([row.path for row in ingests])

    def _dataset_file(self, row: DatasetLogFile) -> Iterator[Problem]:
        wrong = self._compare_bytes(row.path, checksum=row.checksum)
        if wrong:
            yield Problem(Kind.DATASET, row.path, wrong, COPY)

    def _replayed(self, names: list[str]) -> Iterator[Problem]:
        with scratch_folder() as folder, HeldCatalog(self._root, folder / CATALOG, memory=LITTLE) as replayed:
            replayed.migrate()
            for name in names:
                try:
                    replay(self._root, replayed, name)
                except (CorruptFile, FormatError) as error:
                    yield Problem(Kind.DATASET, name, str(error), COPY)
                    return
                except UnreadableFile as error:
                    yield _unreadable(name, error)
                    return
            for table in ("images", "chunks", "dataset_columns"):
                if _fingerprint(replayed, table) != _fingerprint(self._context.catalog, table):
                    yield Problem(Kind.CATALOG, table, "the table is not what the dataset files give", self._rebuild)

    def partitions(self) -> Iterator[Problem]:
        """Yield partitions that differ from their record, down to their rows."""
        rows = self._asked(all_partitions)
        self._context.reporter.begin("verify", sum(row.n_images for row in rows))
        tasks = checks_of(self._root, rows, deep=self._deep)
        n_bytes = sum(row.n_bytes for row in rows)
        checkers = checkers_of(self._context, self._choice)
        checks = check_files(tasks, checkers=checkers, n_bytes=n_bytes, deep=self._deep)
        variants = self._asked(all_variants)
        with closing(checks) as found:
            for row, (_, checked) in zip(rows, found, strict=True):
                yield from self._partition(row, checked, variants.get(row.variant))
                self._context.reporter.advance(row.n_images)
        self._context.reporter.end(None)

    def _partition(self, row: PartitionRow, checked: Checked, variant: VariantRow | None) -> Iterator[Problem]:
        name, described, error = row.path, checked.described, checked.error
        self._report.n_files += checked.n_bytes is not None
        self._report.n_bytes += checked.n_bytes or 0
        if isinstance(error, UnreadableFile):
            yield _unreadable(name, error)
            return
        if described is None:
            yield Problem(Kind.PARTITION, name, str(error), self._run)
            return
        with self._context.catalog.reading() as connection:
            expected, results = filenames_of_chunk(connection, row.chunk_id), results_of_partition(connection, row)
        if list(checked.filenames) != expected:
            yield Problem(Kind.PARTITION, name, "its rows are not the images of the chunk", self._run)
            return
        right = row == described.row and results == described.results.to_pylist()
        if not right or not _is_variant(variant, described.manifest):
            yield Problem(Kind.RECORD, name, "the catalog says something else of it than the file", self._run)

    def models(self) -> Iterator[Problem]:
        """Yield models that do not match their record, or whose training partitions no longer exist."""
        for row in self._asked(all_models):
            yield from _unless_unreadable(row.path, self._model(row))
        for name in self._root.listing("models", "state.npz")[0]:
            yield from _unless_unreadable(name, self._state(name))
        yield from self._leakage()

    def _state(self, name: str) -> Iterator[Problem]:
        try:
            read_state(self._root.local(name))
        except (CorruptFile, FormatError) as error:
            yield Problem(Kind.STATE, name, str(error), self._run)

    def _model(self, row: ModelRow) -> Iterator[Problem]:
        wrong = self._compare_bytes(row.path, checksum=row.checksum, n_bytes=row.n_bytes)
        if wrong:
            yield Problem(Kind.MODEL, row.path, wrong, self._run)
            return
        try:
            described = describe_model(self._root, row.path)
        except (CorruptFile, FormatError) as error:
            yield Problem(Kind.MODEL, row.path, str(error), self._run)
            return
        reads = described.manifest["reads_variant"]
        with self._context.catalog.reading() as connection:
            learnt, variant = learnt_images(connection, row.model_id), find_variant(connection, row.variant)
            readable = has_partitions(connection, reads)
        right = row == described.row and np.array_equal(learnt, described.images)
        if not right or not _is_variant(variant, {**described.manifest, "model_id": None}):
            yield Problem(Kind.MODEL_RECORD, row.path, "the catalog says something else of it than the file", self._run)
        if not readable:
            stage = next((stage.reads for stage in self._context.flow if stage.name == row.stage), "the stage")
            what = f"it was fitted on variant {reads} of {stage}, of which there is nothing any more"
            how = f"{command_line('prune', self._root.path)} removes it if nothing uses it"
            yield Problem(Kind.VARIANT, row.path, what, how)

    def search_files(self) -> Iterator[Problem]:
        """Yield damaged files of the index and of found pairs."""
        pairs, index = ("pairs", self._root.path, "OUT.csv"), ("index", self._root.path)
        for folder, suffix, check, verb in (
            (PAIRS, "", read_pairs_file, pairs),
            (INDEX, HEADER, check_index_files, index),
        ):
            for name in self._root.listing(folder, suffix)[0]:
                yield from _unless_unreadable(name, self._search_file(name, check, command_line(*verb)))

    def _search_file(self, name: str, check: Callable[[Root, str], Any], again: str) -> Iterator[Problem]:
        try:
            check(self._root, name)
        except CorruptFile as error:
            yield Problem(Kind.SEARCH, name, str(error), f"with --repair it is dropped, and {again} makes it again")

    def _leakage(self) -> Iterator[Problem]:
        with self._context.catalog.reading() as connection:
            dataset = DatasetMasks(connection)
            for step in resolve(connection, self._context.flow):
                if not isinstance(step.stage, FitStage) or step.current_model is None:
                    continue
                leaked = TrainingSet(connection, step, dataset).leaked
                if n := int(leaked.sum()):
                    first = int(leaked.argmax())
                    what = f"it learnt from {counted(n, 'image')} that the current split holds out, image {first} first"
                    yield Problem(Kind.LEAKAGE, step.current_model.path, what, REFIT)

    def orphans(self) -> Iterator[Problem]:
        """Yield files without a record, and unreadable folders that may hold such files."""
        known = self._asked(recorded_files).every
        names, failed = stray_files(self._root)
        for error in failed:
            yield _unreadable(self._root.name_of(error.path), error)
        for name in names:
            if name not in known:
                yield self._orphan(name)

    def _orphan(self, name: str) -> Problem:
        try:
            if self._root.state(name) is None:
                return Problem(Kind.ORPHAN, name, f"it is {NO_FILE}", "remove it")
        except UnreadableFile as error:
            return _unreadable(name, error)
        adopted = "--repair or the next run records it if it is whole, and deletes it if not"
        return Problem(Kind.ORPHAN, name, "the catalog knows nothing of this file", adopted)

    def images(self) -> Iterator[Problem]:
        """Yield image files that have changed since extraction."""
        try:
            yield from self._changed_images()
        except DatasetError as error:  # a damaged archive; what else was found is reported all the same
            what = f"not every image was checked: {error}"
            yield Problem(Kind.IMAGE, self._context.images, what, "then verify again")

    def _changed_images(self) -> Iterator[Problem]:
        try:
            reason = reason_to_pass_over(self._context)
        except UnreadableFile as error:
            yield _unreadable(error.path, error)
            return
        if reason is not None:
            self._report.notes.append(f"the image files were not checked: {reason}")
            return
        images = self._context.source.listed()
        try:
            for source in recorded_sources(self._context):
                self._report.n_images += source.n_bytes is not None
                yield from _unless_unreadable(source.filename, self._image(images, source))
        except (CorruptFile, UnreadableFile):
            self._report.notes.append("not every image file was looked at: a partition of extract can't be read")

    def _image(self, images: ImageSource, source: Recorded) -> Iterator[Problem]:
        change = change_of(images, source, deep=self._deep)
        if change is not None:
            store = self._root.path
            remedy = command_line("run", store, "--check-images")
            if change.kind in ("gone", "broken"):  # nothing can be extracted again
                remedy = f"put it back, or remove its row from the dataset and run: {command_line('ingest', store)}"
            yield Problem(Kind.IMAGE, source.filename, change.what, remedy)


def _unless_unreadable(name: str, problems: Iterator[Problem]) -> Iterator[Problem]:
    """Yield the problems of a file, or a single problem if it can't be read."""
    try:
        yield from problems
    except UnreadableFile as error:
        yield _unreadable(name, error)


def _unreadable(name: str, error: UnreadableFile) -> Problem:
    return Problem(Kind.UNREADABLE, name, f"it can't be read: {error.reason}" if error.reason else str(error), READ)


def _is_variant(row: VariantRow | None, manifest: dict[str, Any]) -> bool:
    names = ("variant", "stage", "version", "parameters", "reads_variant", "model_id")
    return row is not None and all(getattr(row, name) == manifest[name] for name in names)


def _fingerprint(catalog: Catalog, table: str) -> Fingerprint:
    with catalog.reading() as connection:
        return fingerprint(connection, table)
