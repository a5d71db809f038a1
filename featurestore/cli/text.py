"""Reports as text: the tables and lines that the command line prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.cli.table import PLAIN, Screen, Table
from featurestore.formatting import cell_text, chunk_list, counted, human_bytes, human_seconds
from featurestore.system import command_line

if TYPE_CHECKING:
    from featurestore.api import FeatureStore
    from featurestore.exchange import ImportReport
    from featurestore.maintenance import MergeReport, MoveReport, PruneReport, RebuildReport, VerifyReport
    from featurestore.pipeline import ClusterReport, Estimate, IngestReport
    from featurestore.query import ImageInfo, ImageStage, Status

MOST_WAITING = 5  # chunks that are listed with their missing images


def status_text(status: Status, screen: Screen = PLAIN) -> str:
    """Return a store's status: a table of stages, then the missing work and notes."""
    from featurestore.query import STATUS_HEADER, headline, status_notes, status_rows

    numbers = (False, *[True] * 6, False)
    optional = ("variant", "on disk", "empty")
    table = Table(STATUS_HEADER, status_rows(status), numbers, ids=("variant",), optional=optional)
    fitted, _ = table.fitted(screen.width)
    rows = [
        [_painted(name, cell, screen) for name, cell in zip(fitted.header, row, strict=True)] for row in fitted.rows
    ]
    notes = screen.wrapped(status_notes(status))
    lines = [*screen.wrapped([headline(status)]), "", replace(fitted, rows=rows).text()]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _painted(column: str, cell: str, screen: Screen) -> str:
    """Return a cell of the status: green for a stage that is done, red for failures."""
    if column == "chunks":
        n_done, _, n_chunks = cell.partition("/")
        return screen.painted(cell, "green" if n_done == n_chunks else "yellow")
    return screen.painted(cell, "red") if column.startswith("fail") and cell not in ("", "0") else cell


def last_word(store: FeatureStore, *, done: bool) -> str:
    """Return the last line of a run: whether it did anything, and how many images failed."""
    counts = failed_counts(store)
    what = "done" if done else "everything is up to date"
    if not counts:
        return what if done else f"{what}; there is nothing to do"
    failed = ", ".join(f"{n:,} {status}" for status, n in counts.items())
    return f"{what}; {failed}: see the view failures (run --retry-failed tries them again)"


def failed_counts(store: FeatureStore) -> dict[str, int]:
    """Return the number of failed images by status, the most frequent first."""
    return dict(store.sql("SELECT status, count(*) FROM failures GROUP BY 1 ORDER BY 2 DESC, 1").fetchall())


def plan_text(estimates: Sequence[Estimate], screen: Screen = PLAIN) -> str:
    """Return the plan of a run as a table; where it is too wide, the reasons are below it."""
    from featurestore.pipeline import PLAN_HEADER, plan_lines, plan_rows

    numbers, rows = (False, *[True] * 4, False), plan_rows(estimates)
    table, _ = Table(PLAN_HEADER, rows, numbers, optional=("why",)).fitted(screen.width)
    reasons = [f"{row[0]}: {row[-1]}" for row in rows] if "why" not in table.header else []
    below = [*reasons, *([""] if reasons else []), *plan_lines(estimates)]
    return "\n".join([table.text(), "", *screen.wrapped(below)])


def proposal_text(estimates: Sequence[Estimate]) -> str:
    """Return the line in which ``init`` says what a run would take."""
    n_images, n_bytes = max((e.n_images for e in estimates), default=0), sum(e.n_bytes for e in estimates)
    seconds = [e.seconds for e in estimates if e.seconds is not None]
    took = f", and extract take about {human_seconds(sum(seconds))}" if seconds else ""
    return f"a run of {counted(n_images, 'image')} would write about {human_bytes(n_bytes)}{took}"


def cluster_text(report: ClusterReport) -> str:
    """Return the report of a check of a cluster: two lines, and one more if extract has work."""
    memory = f" with {human_bytes(report.memory)} of memory together" if report.memory else ""
    workers = counted(report.n_workers, "worker")
    lines = [
        f"{workers}{memory}: each has the versions, the store and the images of this process",
        f"{counted(report.n_sampled, 'image')} at {report.images_per_second:.3g} images/s",
    ]
    if report.n_images:
        took = human_seconds(report.seconds)
        lines.append(f"extract would take about {took} for {counted(report.n_images, 'image')}")
    return "\n".join(lines)


def ingest_text(report: IngestReport) -> str:
    """Return the report of an ingest: one line, and one more for each changed column."""
    subsets = ", ".join(f"{n:,} {subset}" for subset, n in report.subsets.items())
    if report.ingest_id is None:
        done = "nothing is new or changed"
    else:
        back = f" ({report.n_returned:,} of them came back)" if report.n_returned else ""
        gone = f", {report.n_removed:,} removed (see the view removed_images)" if report.n_removed else ""
        done = f"{counted(report.n_new, 'image')} new, {report.n_changed:,} changed{back}{gone}"
    line = f"{done}; {counted(report.n_images, 'image')} ({subsets}) in {counted(report.n_chunks, 'chunk')}"
    return "\n".join([line, *report.columns])


def import_text(report: ImportReport) -> str:
    """Return the report of an import: a line for each kind of result."""
    lines = [f"{counted(report.n_files, 'file')}: {counted(report.n_matched, 'image')} of this store"]
    if report.published:
        statuses = ", ".join(f"{n:,} {status}" for status, n in report.statuses.items())
        lines.append(f"published {chunk_list(report.published)}: {statuses}")
    if report.left_alone:
        whose = "they have their" if len(report.left_alone) > 1 else "it has its"
        lines.append(f"left alone {chunk_list(report.left_alone)}: {whose} descriptors already")
    for chunk in report.waiting[:MOST_WAITING]:
        lacking = ", ".join(chunk.examples) + (", ..." if chunk.n_missing > len(chunk.examples) else "")
        images = counted(chunk.n_found + chunk.n_missing, "image")
        lines.append(f"chunk {chunk.chunk_id} waits for {chunk.n_missing:,} of {images} that no file holds: {lacking}")
    if len(report.waiting) > MOST_WAITING:
        rest = [chunk.chunk_id for chunk in report.waiting[MOST_WAITING:]]
        lines.append(f"so do {counted(len(rest), 'more chunk')}: {chunk_list(rest)}")
    if report.waiting:
        lines.append(
            "to import without an image, remove its row from the dataset, run featurestore ingest, and import again"
        )
    if report.n_absent:
        lines.append(f"{counted(report.n_absent, 'chunk')} without an image in these files")
    if report.n_repeated:
        lines.append(f"{counted(report.n_repeated, 'name')} occurred in an earlier file already, which was used")
    if report.n_unmatched:
        more = ", ..." if report.n_unmatched > len(report.unmatched) else ""
        lines.append(f"{counted(report.n_unmatched, 'name')} not in this store: {', '.join(report.unmatched)}{more}")
    return "\n".join(lines)


def table_text(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    n_rows: int | None = None,
    numbers: Sequence[bool] = (),
    screen: Screen = PLAIN,
    others: str = "use --json for all",
) -> str:
    """Return a query's result as a table.

    Args:
        columns: their names.
        rows: the values, or DuckDB's text of them.
        n_rows: the number of all rows, if these are not all.
        numbers: for each column, whether it has numbers; by default the values decide.
        screen: where it is shown; long texts are cut to its width, and columns without room left out.
        others: how to see columns that were left out.
    """
    text = [[cell_text(value) for value in row] for row in rows]
    header = [cell_text(name) for name in columns]
    right = list(numbers) if rows and numbers else _number_columns(rows, len(columns))
    table, n_dropped = Table(header, text, right, ids=_id_columns(header, text)).fitted(screen.width)
    shown = f"{len(rows):,} of " if n_rows is not None and n_rows > len(rows) else ""
    count = f"{shown}{counted(len(rows) if n_rows is None else n_rows, 'row')}"
    if n_dropped:
        count += f", {len(table.header):,} of {len(header):,} columns; {others}"
    return "\n".join([table.text(), *screen.wrapped([f"({count})"], indent="")])


def _number_columns(rows: Sequence[Sequence[Any]], n_columns: int) -> list[bool]:
    if not rows:
        return [False] * n_columns
    return [all(isinstance(row[i], (int, float)) or row[i] is None for row in rows) for i in range(n_columns)]


def _id_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the columns of which every cell is an identity of the store, or NULL."""
    identity = re.compile("[0-9a-f]{16,64}|NULL")
    columns = zip(header, zip(*rows, strict=True), strict=True) if rows else ()
    return [name for name, cells in columns if all(map(identity.fullmatch, cells))]


def explain_text(rows: Sequence[Sequence[Any]]) -> str:
    """Return the result of EXPLAIN as DuckDB draws it."""
    return "\n".join(str(plan).rstrip() for _, plan in rows)


def info_text(info: ImageInfo, screen: Screen = PLAIN) -> str:
    """Return everything about one image."""
    facts = {"image_id": info.image_id, "chunk": info.chunk_id, "subset": info.subset, **info.dataset}
    width = max(map(len, facts))
    lines = [f"  {name:<{width}}  {'' if value is None else cell_text(value)}" for name, value in facts.items()]
    if info.removed_by is not None:
        lines.insert(0, f"  removed from the dataset by ingest {info.removed_by}; it comes back with its row")
    header = ["stage", "status", "descriptors", "variant", "model", "partition"]
    numbers = (False, False, True, False, False, False)
    rows = [_info_row(stage) for stage in info.stages]
    ids, optional = ("variant", "model"), ("partition",)
    table, _ = Table(header, rows, numbers, ids=ids, optional=optional).fitted(screen.width)
    errors = dict.fromkeys(f"{s.stage}: {s.error}" for s in info.stages if s.error)
    learnt = [f"{stage}: model {model_id} learnt from it" for stage, model_id in info.trained]
    notes = screen.wrapped([*errors, *learnt])
    facts_lines = screen.wrapped(lines, indent=" " * (width + 4))
    return "\n".join([info.filename, *facts_lines, "", table.text(), *([""] if notes else []), *notes])


def _info_row(stage: ImageStage) -> list[str]:
    descriptors = f"{stage.n_descriptors:,}" if stage.n_descriptors else ""
    place = "pruned" if stage.pruned else stage.partition or ""
    older = "" if stage.current else " (older)"
    return [f"{stage.stage}{older}", stage.status, descriptors, stage.variant or "", stage.model_id or "", place]


def verify_text(report: VerifyReport, store: Path) -> str:
    """Return the report of verify: a line for each problem, and the counts of checked files."""
    looked = f"{counted(report.n_files, 'file')} ({human_bytes(report.n_bytes)})"
    images = f" and {counted(report.n_images, 'image')}" if report.n_images else ""
    lines = [*report.notes, *(f"repaired: {line}" for line in report.repaired), *map(str, report.problems)]
    n = len(report.problems)
    verdict = "nothing is wrong" if not n else f"{counted(n, 'problem')}{' left' if report.repaired else ''}"
    if not n and report.repaired:
        verdict = f"nothing is wrong any more; {command_line('run', store)} recomputes what was dropped"
    return "\n".join([*lines, f"{looked}{images} checked: {verdict}"])


def rebuild_text(report: RebuildReport) -> str:
    """Return the report of rebuild: the counts of the new catalog, and the files that were left out."""
    counts = [
        counted(report.n_images, "image"),
        counted(report.n_partitions, "partition"),
        counted(report.n_models, "model"),
        counted(report.n_runs, "run"),
    ]
    return "\n".join([*report.notes, f"the catalog was rebuilt: {', '.join(counts)}"])


def merge_text(report: MergeReport) -> str:
    """Return the report of a merge: the counts of copied files."""
    taken = f"{counted(report.n_partitions, 'partition')} and {counted(report.n_models, 'model')} copied"
    size = f" ({human_bytes(report.n_bytes)})" if report.n_bytes else ""
    lines = [f"{report.store}: {note}" for note in report.notes]
    return "\n".join([*lines, f"{report.store}: {taken}{size}, {counted(report.n_here, 'partition')} here already"])


def move_text(report: MoveReport) -> str:
    """Return the report of a move: the counts of copied partitions."""
    size = f" ({human_bytes(report.n_bytes)})" if report.n_bytes else ""
    moved = f"{counted(report.n_partitions, 'partition')}{size} moved, {report.n_there:,} there already"
    return "\n".join([*report.notes, f"{report.where}: {moved}"])


def prune_text(report: PruneReport, *, dry_run: bool, screen: Screen = PLAIN) -> str:
    """Return the report of prune: the deleted files, and the cost to recompute them."""
    if not report.items:
        return "\n".join([*report.notes, "there is nothing to prune"])
    rows = [[item.what, f"{item.n_files:,}", human_bytes(item.n_bytes), _cost(item.seconds)] for item in report.items]
    header = ["what", "files", "frees", "to recompute it"]
    table, _ = Table(header, rows, (False, True, True, True)).fitted(screen.width)
    verb = "would be freed" if dry_run else "freed"
    return "\n".join([table.text(), "", *screen.wrapped(report.notes), f"about {human_bytes(report.n_bytes)} {verb}"])


def _cost(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return human_seconds(seconds) if seconds else ""
