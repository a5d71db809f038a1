"""Whether the store is what it says: every file against the catalog, and the catalog against the files.

A file is compared by the SHA-256 of its bytes before anything in it is believed. What is wrong is a `Problem`, with
what to do about it; ``repair`` drops what is bad, so that a run makes just that anew.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featurestore.catalog import (
    LITTLE,
    REFIT,
    Catalog,
    Context,
    Fingerprint,
    HeldCatalog,
    ModelRow,
    PartitionRow,
    TrainingSet,
    check_partition,
    describe_model,
    describe_partition,
    filenames_of_chunk,
    fingerprint,
    held_copy,
    query_arrow,
    remedy,
    replay,
    resolve,
)
from featurestore.errors import CorruptFile, FormatError, UnreadableFile
from featurestore.formatting import counted
from featurestore.maintenance.image_changes import Source, change_of, reason_to_pass_over, recorded_sources
from featurestore.maintenance.sandbox import run_child
from featurestore.maintenance.stray_files import stray_files
from featurestore.stages import FLOW, FitStage
from featurestore.storage import CATALOG, PartitionFile, read_state
from featurestore.system import command_line, file_digest, file_size, is_file, scratch_folder

COPY = "put back a copy of it"
READ = "nothing is known to be wrong with it, and --repair leaves it alone: make it readable, and verify again"


@dataclass(frozen=True)
class Problem:
    """Something that is not what the store says."""

    # catalog, dataset, partition, record, model, model record, state, orphan, image, leakage, variant; unreadable: of
    # any of these, a file or folder that could not be looked at
    kind: str
    name: str  # of a file, an image or a model
    what: str
    remedy: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.kind}: {self.name}: {self.what}; {self.remedy}"


@dataclass
class VerifyReport:
    """What was looked at, and what is wrong."""

    n_files: int = 0
    n_bytes: int = 0
    n_images: int = 0  # image files
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, or everything that was wrong is repaired."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {"ok": self.ok, **dataclasses.asdict(self)}


def verify_store(context: Context, *, deep: bool) -> VerifyReport:
    """Compare every file with the catalog and the other way round.

    Args:
        context: of the store. Nobody else may be changing it.
        deep: decode every value too, and read the image files rather than ask for their size.
    """
    report = VerifyReport()
    if isinstance(context.catalog, HeldCatalog):  # of an untrusted store, whose images are somebody else's
        report.notes.append("the image files were not checked: the store is untrusted")
        _Checks(context, deep=deep, report=report).run(images=False)
        return report
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(_copied(context))
        except CorruptFile as error:
            how = remedy(context.catalog.path)
            report.problems.append(Problem("catalog", CATALOG, str(error).removesuffix(f"; {how}"), how))
            return report
        except UnreadableFile as error:
            report.problems.append(_unreadable(CATALOG, error))
            return report
        _Checks(dataclasses.replace(context, catalog=copy), deep=deep, report=report).run(images=True)
    return report


@contextmanager
def _copied(context: Context) -> Iterator[HeldCatalog]:
    """Yield a copy of the catalog, after a process that may crash has read the original. Both take bounded memory."""
    path = context.catalog.path
    if not is_file(path):
        raise CorruptFile(f"{CATALOG} is missing")
    with scratch_folder() as folder:
        run_child("salvage", path, folder / "runs.parquet")
        with held_copy(context.root, path, folder / CATALOG) as copy:
            yield copy


class _Checks:
    """The checks of one store, on a copy of its catalog."""

    def __init__(self, context: Context, *, deep: bool, report: VerifyReport) -> None:
        self._context, self._root, self._deep, self._report = context, context.root, deep, report
        self._run = f"with --repair it is dropped, and {command_line('run', context.root.path)} makes it anew"
        self._rebuild = remedy(context.catalog.path)

    def run(self, *, images: bool) -> None:
        """Make all checks."""
        for problems in (self.dataset(), self.partitions(), self.models(), self.orphans()):
            self._report.problems.extend(problems)
        if images:
            self._report.problems.extend(self.images())

    def _rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        with self._context.catalog.reading() as connection:
            found: list[dict[str, Any]] = query_arrow(connection, query, parameters).to_pylist()
        return found

    def _compare_bytes(self, row: dict[str, Any]) -> str | None:
        """Return what is wrong with the bytes of a recorded file."""
        path = self._root.local(row["path"])
        if not is_file(path):
            return "the file is missing"
        size = file_size(path)
        self._report.n_files += 1
        self._report.n_bytes += size
        if "n_bytes" in row and size != row["n_bytes"]:
            return f"the file has {size} bytes, and had {row['n_bytes']}"
        if file_digest(path) != row["checksum"]:
            return "the file is damaged: its SHA-256 is not what was recorded"
        return None

    def dataset(self) -> Iterator[Problem]:
        """Yield dataset files that are not what was ingested, and images or chunks that do not follow from them."""
        bad = False
        ingests = self._rows("SELECT path, checksum FROM ingests ORDER BY ingest_id")
        for row in ingests:
            for problem in _unless_unreadable(row["path"], self._recorded(row, "dataset", COPY)):
                bad = True
                yield problem
        if not ingests:
            yield Problem("catalog", "ingests", "it lists no dataset file", self._rebuild)
        elif not bad:
            yield from self._replayed([row["path"] for row in ingests])

    def _recorded(self, row: dict[str, Any], kind: str, remedy: str) -> Iterator[Problem]:
        wrong = self._compare_bytes(row)
        if wrong:
            yield Problem(kind, row["path"], wrong, remedy)

    def _replayed(self, names: list[str]) -> Iterator[Problem]:
        with scratch_folder() as folder, HeldCatalog(self._root, folder / CATALOG, memory=LITTLE) as replayed:
            replayed.migrate()
            for name in names:
                try:
                    replay(self._root, replayed, name)
                except (CorruptFile, FormatError) as error:
                    yield Problem("dataset", name, str(error), COPY)
                    return
                except UnreadableFile as error:
                    yield _unreadable(name, error)
                    return
            for table in ("images", "chunks", "dataset_columns"):
                if _fingerprint(replayed, table) != _fingerprint(self._context.catalog, table):
                    yield Problem("catalog", table, "the table is not what the dataset files give", self._rebuild)

    def partitions(self) -> Iterator[Problem]:
        """Yield partitions that are not what was recorded, down to their rows."""
        rows = self._rows("SELECT * FROM partitions ORDER BY stage, variant, chunk_id")
        self._context.reporter.begin("verify", sum(row["n_images"] for row in rows))
        for row in rows:
            yield from _unless_unreadable(row["path"], self._partition(row))
            self._context.reporter.advance(row["n_images"])
        self._context.reporter.end(None)

    def _partition(self, row: dict[str, Any]) -> Iterator[Problem]:
        name, wrong = row["path"], self._compare_bytes(row)
        if wrong:
            yield Problem("partition", name, wrong, self._run)
            return
        try:
            if self._deep:
                described = check_partition(self._root, name)
            else:
                described = describe_partition(self._root, name, checksum=row["checksum"])
            with PartitionFile(self._root.local(name)) as file:
                names = file.columns(["filename"])["filename"].to_pylist()
        except (CorruptFile, FormatError) as error:
            yield Problem("partition", name, str(error), self._run)
            return
        with self._context.catalog.reading() as connection:
            expected = filenames_of_chunk(connection, row["chunk_id"])
        if names != expected:
            yield Problem("partition", name, "its rows are not the images of the chunk", self._run)
            return
        results = self._rows(
            "SELECT image_id, status, error, n_descriptors, pixels FROM results "
            "WHERE stage = $stage AND variant = $variant AND chunk_id = $chunk_id ORDER BY image_id",
            **{key: row[key] for key in ("stage", "variant", "chunk_id")},
        )
        variant = self._rows("SELECT * FROM variants WHERE variant = $variant", variant=row["variant"])
        recorded = PartitionRow(**{**row, "versions": json.loads(row["versions"])})
        right = recorded == described.row and results == described.results.to_pylist()
        if not right or not _is_variant(variant, described.manifest):
            yield Problem("record", name, "the catalog says something else of it than the file", self._run)

    def models(self) -> Iterator[Problem]:
        """Yield models that are not what was recorded, or were fitted on what is there no more."""
        for row in self._rows("SELECT * FROM models ORDER BY path"):
            yield from _unless_unreadable(row["path"], self._model(row))
        for name in self._root.listing("models", "state.npz")[0]:
            yield from _unless_unreadable(name, self._state(name))
        yield from self._leakage()

    def _state(self, name: str) -> Iterator[Problem]:
        try:
            read_state(self._root.local(name))
        except (CorruptFile, FormatError) as error:
            yield Problem("state", name, str(error), self._run)

    def _model(self, row: dict[str, Any]) -> Iterator[Problem]:
        wrong = self._compare_bytes(row)
        if wrong:
            yield Problem("model", row["path"], wrong, self._run)
            return
        try:
            described = describe_model(self._root, row["path"])
        except (CorruptFile, FormatError) as error:
            yield Problem("model", row["path"], str(error), self._run)
            return
        query = "SELECT image_id FROM training_images WHERE model_id = $id ORDER BY image_id"
        with self._context.catalog.reading() as connection:
            learnt = query_arrow(connection, query, {"id": row["model_id"]})["image_id"].to_numpy()
        recorded = ModelRow(**{**row, "summary": json.loads(row["summary"])})
        variant = self._rows("SELECT * FROM variants WHERE variant = $variant", variant=row["variant"])
        right = recorded == described.row and np.array_equal(learnt, described.images)
        if not right or not _is_variant(variant, {**described.manifest, "model_id": None}):
            yield Problem("model record", row["path"], "the catalog says something else of it than the file", self._run)
        reads = described.manifest["reads_variant"]
        if not self._rows("SELECT 1 FROM partitions WHERE variant = $v LIMIT 1", v=reads):
            stage = next((stage.reads for stage in FLOW if stage.name == row["stage"]), "the stage")
            what = f"it was fitted on variant {reads} of {stage}, of which there is nothing any more"
            how = f"{command_line('prune', self._root.path)} removes it if nothing uses it"
            yield Problem("variant", row["path"], what, how)

    def _leakage(self) -> Iterator[Problem]:
        with self._context.catalog.reading() as connection:
            for step in resolve(connection, self._context.flow):
                if not isinstance(step.stage, FitStage) or step.current_model is None:
                    continue
                leaked = TrainingSet(connection, step).leaked
                if n := int(leaked.sum()):
                    what = f"it learnt from {counted(n, 'image')} held out today, image {int(leaked.argmax())} first"
                    yield Problem("leakage", step.current_model.path, what, REFIT)

    def orphans(self) -> Iterator[Problem]:
        """Yield files of which the catalog knows nothing, and folders that may hold such files."""
        known = {
            row["path"] for t in ("ingests", "partitions", "models") for row in self._rows(f"SELECT path FROM {t}")
        }
        names, failed = stray_files(self._root)
        for error in failed:
            yield _unreadable(str(error).partition(" can't be read")[0].removeprefix(f"{self._root.path}/"), error)
        for name in names:
            if name not in known:
                yield Problem(
                    "orphan",
                    name,
                    "the catalog knows nothing of this file",
                    "--repair or the next run records it if it is whole, and deletes it if not",
                )

    def images(self) -> Iterator[Problem]:
        """Yield image files that are not those that were extracted."""
        try:
            reason = reason_to_pass_over(self._context)
        except UnreadableFile as error:
            yield _unreadable(str(self._context.images), error)
            return
        if reason is not None:
            self._report.notes.append(f"the image files were not checked: {reason}")
            return
        try:
            for source in recorded_sources(self._context):
                self._report.n_images += source.n_bytes is not None
                yield from _unless_unreadable(source.filename, self._image(source))
        except (CorruptFile, UnreadableFile):
            self._report.notes.append("not every image file was looked at: a partition of extract can't be read")

    def _image(self, source: Source) -> Iterator[Problem]:
        change = change_of(self._context, source, deep=self._deep)
        if change is not None:
            yield Problem("image", source.filename, change.what, command_line("run", self._root.path, "--check-images"))


def _unless_unreadable(name: str, problems: Iterator[Problem]) -> Iterator[Problem]:
    """Yield the problems of a file, or the one that it can't be read."""
    try:
        yield from problems
    except UnreadableFile as error:
        yield _unreadable(name, error)


def _unreadable(name: str, error: UnreadableFile) -> Problem:
    return Problem("unreadable", name, f"it can't be read: {error.reason}" if error.reason else str(error), READ)


def _is_variant(rows: list[dict[str, Any]], manifest: dict[str, Any]) -> bool:
    names = ("variant", "stage", "version", "reads_variant", "model_id")
    return (
        len(rows) == 1
        and all(rows[0][name] == manifest[name] for name in names)
        and json.loads(rows[0]["parameters"]) == manifest["parameters"]
    )


def _fingerprint(catalog: Catalog, table: str) -> Fingerprint:
    with catalog.reading() as connection:
        return fingerprint(connection, table)
