"""Reports as text: the tables and lines that the command line prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from featurestore.formatting import cell_text, chunk_list, counted, human_bytes, human_seconds
from featurestore.system import command_line

if TYPE_CHECKING:
    from featurestore.api import FeatureStore
    from featurestore.exchange import ImportReport
    from featurestore.maintenance import MergeReport, PruneReport, RebuildReport, VerifyReport
    from featurestore.pipeline import ClusterReport, Estimate, IngestReport
    from featurestore.query import ImageInfo, ImageStage, Status

NUMBERS = "right"
MOST_WAITING = 5  # chunks that are listed with their missing images


def status_text(status: Status) -> str:
    """Return a store's status: a table of stages, then the missing work and notes."""
    from featurestore.query import STATUS_HEADER, headline, status_notes, status_rows

    align = ("left", *[NUMBERS] * 6, "left")
    lines = [
        headline(status),
        "",
        tabulate(status_rows(status), STATUS_HEADER, tablefmt="simple", colalign=align, disable_numparse=True),
    ]
    notes = status_notes(status)
    return "\n".join([*lines, *([""] if notes else []), *notes])


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


def plan_text(estimates: Sequence[Estimate]) -> str:
    """Return the plan of a run as a table."""
    from featurestore.pipeline import PLAN_HEADER, plan_lines, plan_rows

    align = ("left", *[NUMBERS] * 4, "left")
    table = tabulate(plan_rows(estimates), PLAN_HEADER, tablefmt="simple", colalign=align, disable_numparse=True)
    return "\n".join([table, "", *plan_lines(estimates)])


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
    if report.n_absent:
        lines.append(f"{counted(report.n_absent, 'chunk')} without an image in these files")
    if report.n_repeated:
        lines.append(f"{counted(report.n_repeated, 'name')} occurred in an earlier file already, which was used")
    if report.n_unmatched:
        more = ", ..." if report.n_unmatched > len(report.unmatched) else ""
        lines.append(f"{counted(report.n_unmatched, 'name')} not in this store: {', '.join(report.unmatched)}{more}")
    return "\n".join(lines)


def table_text(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, n_rows: int | None = None, numbers: Sequence[bool] = ()
) -> str:
    """Return a query's result as a table.

    Args:
        columns: their names.
        rows: the values, or DuckDB's text of them.
        n_rows: the number of all rows, if these are not all.
        numbers: for each column, whether it has numbers; by default the values decide.
    """
    text = [[cell_text(value) for value in row] for row in rows]
    align = tuple(NUMBERS if number else "left" for number in numbers) if rows and numbers else None
    header = [cell_text(name) for name in columns]
    align = align or _alignment(rows, len(columns))
    table = tabulate(text, header, tablefmt="simple", disable_numparse=True, colalign=align)
    shown = f"{len(rows):,} of " if n_rows is not None and n_rows > len(rows) else ""
    return f"{table}\n({shown}{counted(len(rows) if n_rows is None else n_rows, 'row')})"


def _alignment(rows: Sequence[Sequence[Any]], n_columns: int) -> tuple[str, ...] | None:
    if not rows:
        return None
    return tuple(
        NUMBERS if all(isinstance(row[i], (int, float)) or row[i] is None for row in rows) else "left"
        for i in range(n_columns)
    )


def explain_text(rows: Sequence[Sequence[Any]]) -> str:
    """Return the result of EXPLAIN as DuckDB draws it."""
    return "\n".join(str(plan).rstrip() for _, plan in rows)


def info_text(info: ImageInfo) -> str:
    """Return everything about one image."""
    facts = {"image_id": info.image_id, "chunk": info.chunk_id, "subset": info.subset, **info.dataset}
    width = max(map(len, facts))
    lines = [
        info.filename,
        *(f"  {name:<{width}}  {'' if v is None else cell_text(v)}" for name, v in facts.items()),
        "",
    ]
    if info.removed_by is not None:
        lines[1:1] = [f"  removed from the dataset by ingest {info.removed_by}; it comes back with its row"]
    header = ["stage", "status", "descriptors", "variant", "model", "partition"]
    rows = [_info_row(stage) for stage in info.stages]
    align = ("left", "left", NUMBERS, "left", "left", "left")
    lines.append(tabulate(rows, header, tablefmt="simple", colalign=align, disable_numparse=True))
    errors = dict.fromkeys(f"{s.stage}: {s.error}" for s in info.stages if s.error)
    learnt = [f"{stage}: model {model_id} learnt from it" for stage, model_id in info.trained]
    return "\n".join([*lines, *([""] if errors or learnt else []), *errors, *learnt])


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


def prune_text(report: PruneReport, *, dry_run: bool) -> str:
    """Return the report of prune: the deleted files, and the cost to recompute them."""
    if not report.items:
        return "\n".join([*report.notes, "there is nothing to prune"])
    rows = [[item.what, f"{item.n_files:,}", human_bytes(item.n_bytes), _cost(item.seconds)] for item in report.items]
    header = ["what", "files", "frees", "to recompute it"]
    table = tabulate(
        rows, header, tablefmt="simple", colalign=("left", "right", "right", "right"), disable_numparse=True
    )
    verb = "would be freed" if dry_run else "freed"
    return "\n".join([table, "", *report.notes, f"about {human_bytes(report.n_bytes)} {verb}"])


def _cost(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return human_seconds(seconds) if seconds else ""
