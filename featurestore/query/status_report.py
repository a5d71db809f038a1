"""The status of a store, and its table and notes for terminals and notebooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from featurestore.catalog import ModelRow, RunningStage
from featurestore.formatting import counted, human_bytes, human_seconds
from featurestore.notebook import html_lines, html_table
from featurestore.progress import pace_text
from featurestore.rows import USABLE

STATUS_HEADER = ("stage", "chunks", "ok", "empty", "failed", "descriptors", "on disk", "variant")


@dataclass(frozen=True)
class StageStatus:
    """One stage."""

    stage: str
    is_fit: bool  # its output is a model
    variant: str | None
    n_chunks: int
    n_done: int  # chunks that a run leaves as they are: of a fit all, once there is a model, whatever it learnt from
    missing: tuple[tuple[str, str], ...]  # why, and which chunks
    images: Mapping[str, int] = field(default_factory=dict)  # by status
    n_descriptors: int = 0
    n_bytes: int = 0
    n_in_blocks: int = 0  # images of unfinished chunks that an earlier run has extracted
    model: ModelRow | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """A store."""

    path: str
    n_images: int
    subsets: Mapping[str, int]
    n_chunks: int
    stages: tuple[StageStatus, ...]
    holder: str | None  # the process that is changing the store
    notes: tuple[str, ...] = ()
    running: RunningStage | None = None  # the stage that the holder is at

    def _repr_html_(self) -> str:
        numbers = [name not in ("stage", "variant") for name in STATUS_HEADER]
        table = html_table(STATUS_HEADER, status_rows(self), numbers=numbers)
        return html_lines([headline(self)]) + table + html_lines(status_notes(self))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return dataclasses.asdict(self)


def headline(status: Status) -> str:
    """Return the first line: the store's path, images and chunks."""
    subsets = ", ".join(f"{n:,} {subset}" for subset, n in status.subsets.items())
    images, chunks = counted(status.n_images, "image"), counted(status.n_chunks, "chunk")
    return f"{status.path}: {images} ({subsets}) in {chunks}"


def status_rows(status: Status) -> list[list[str]]:
    """Return a row for each stage, with the columns of `STATUS_HEADER`."""
    return [_row(stage) for stage in status.stages]


def status_notes(status: Status) -> list[str]:
    """Return the lines below the table: the work that is missing and why, models, who uses the store."""
    notes = [*status.notes, *(line for stage in status.stages for line in _stage_notes(stage))]
    if status.running:
        notes.insert(0, _running_text(status.running))
    if status.holder:
        notes.append(f"in use by {status.holder}")
    return notes


def _running_text(running: RunningStage) -> str:
    pace = pace_text(running.n_done, running.n_images, running.images_per_second, running.seconds_left)
    return f"{running.stage} has been running for {human_seconds(running.seconds)}: {pace}"


def _row(stage: StageStatus) -> list[str]:
    ok, empty = (stage.images.get(status, 0) for status in USABLE)
    failed = sum(stage.images.values()) - ok - empty
    if stage.is_fit:
        counts = [f"{stage.model.n_images:,}" if stage.model else "", "", ""]
        descriptors = stage.model.summary.get("n_descriptors", 0) if stage.model else 0
    else:
        counts, descriptors = [f"{ok:,}", f"{empty:,}", f"{failed:,}"], stage.n_descriptors
    return [
        stage.stage,
        f"{stage.n_done:,}/{stage.n_chunks:,}",
        *counts,
        f"{descriptors:,}" if descriptors else "",
        human_bytes(stage.n_bytes) if stage.n_bytes else "",
        stage.variant or "",
    ]


def _stage_notes(stage: StageStatus) -> list[str]:
    lines = [f"{stage.stage}: {why}" + (f" ({chunks})" if chunks else "") for why, chunks in stage.missing]
    failed = {status: n for status, n in stage.images.items() if status not in USABLE}
    if failed and stage.stage == "extract":
        lines.append(
            "extract: " + ", ".join(f"{n:,} {status}" for status, n in failed.items()) + "; see the view failures"
        )
    if stage.n_in_blocks:
        lines.append(f"{stage.stage}: of these, {counted(stage.n_in_blocks, 'image')} in finished blocks")
    if stage.model:
        lines.append(f"{stage.stage}: model {stage.model.model_id}{_learnt(stage.model)}")
    return [*lines, *(f"{stage.stage}: {note}" for note in stage.notes)]


def _learnt(model: ModelRow) -> str:
    ratio = model.summary.get("explained_variance_ratio")
    solver = model.summary.get("solver", "incremental")
    explained = f" by {solver} explains {ratio:.1%} of the variance" if ratio is not None else ""
    generation = f", generation {model.generation}" if model.generation else ""
    partial = ", fitted before all chunks were finished" if model.partial else ""
    return f"{explained}{generation}{partial}"
