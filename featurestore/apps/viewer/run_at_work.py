"""The page of the run at work: what `status --watch` shows on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.api import FeatureStore
from featurestore.apps.html_report.parts import Column, Table
from featurestore.query import STATUS_HEADER, status_notes, status_rows


@dataclass(frozen=True)
class Now:
    """The progress of a run.

    Args:
        stage: that is running; None if there is none.
        n_done: images of the stage.
        n_images: of the stage.
        table: of all stages.
        notes: lines about them; the first is that of the run.
    """

    stage: str | None
    n_done: int
    n_images: int
    table: Table
    notes: Sequence[str]


def describe_run(store: FeatureStore) -> Now:
    """Return how far the run is that is at work, and the status of every stage."""
    status = store.status()
    columns = [Column(name, "code" if name == "variant" else "name") for name in STATUS_HEADER]
    table = Table("Every stage", columns, status_rows(status), "store.status()", "Python")
    running = status.running
    if running is None:
        return Now(None, 0, 0, table, status_notes(status))
    return Now(running.stage, running.n_done, running.n_images, table, status_notes(status))
