"""What the verbs that look after a store print."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from featurestore.formatting import counted, human_bytes, human_seconds
from featurestore.maintenance import MergeReport, PruneReport, RebuildReport, VerifyReport
from featurestore.system import command_line


def verify_text(report: VerifyReport, store: Path) -> str:
    """Return what was looked at in the store, and a line for everything that is wrong."""
    looked = f"{counted(report.n_files, 'file')} ({human_bytes(report.n_bytes)})"
    images = f" and {counted(report.n_images, 'image')}" if report.n_images else ""
    lines = [*report.notes, *(f"repaired: {line}" for line in report.repaired), *map(str, report.problems)]
    n = len(report.problems)
    verdict = "nothing is wrong" if not n else f"{counted(n, 'problem')}{' left' if report.repaired else ''}"
    if not n and report.repaired:
        verdict = f"nothing is wrong any more; {command_line('run', store)} makes anew what was dropped"
    return "\n".join([*lines, f"{looked}{images} looked at: {verdict}"])


def rebuild_text(report: RebuildReport) -> str:
    """Return what the new catalog knows, and what was left out."""
    counts = [
        counted(report.n_images, "image"),
        counted(report.n_partitions, "partition"),
        counted(report.n_models, "model"),
        counted(report.n_runs, "run"),
    ]
    return "\n".join([*report.notes, f"the catalog is made anew: {', '.join(counts)}"])


def merge_text(report: MergeReport) -> str:
    """Return what was taken over from one store."""
    taken = f"{counted(report.n_partitions, 'partition')} and {counted(report.n_models, 'model')} taken over"
    size = f" ({human_bytes(report.n_bytes)})" if report.n_bytes else ""
    lines = [f"{report.store}: {note}" for note in report.notes]
    return "\n".join([*lines, f"{report.store}: {taken}{size}, {counted(report.n_here, 'partition')} here already"])


def prune_text(report: PruneReport, *, dry_run: bool) -> str:
    """Return what was pruned or would be, and what it would cost to have it back."""
    if not report.items:
        return "\n".join([*report.notes, "there is nothing to prune"])
    rows = [[item.what, f"{item.n_files:,}", human_bytes(item.n_bytes), _cost(item.seconds)] for item in report.items]
    header = ["what", "files", "frees", "to have it back"]
    table = tabulate(
        rows, header, tablefmt="simple", colalign=("left", "right", "right", "right"), disable_numparse=True
    )
    verb = "would be freed" if dry_run else "freed"
    return "\n".join([table, "", *report.notes, f"about {human_bytes(report.n_bytes)} {verb}"])


def _cost(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return human_seconds(seconds) if seconds else ""
