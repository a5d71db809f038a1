"""Progress of a run: the `Reporter` that stages report to. Every report is logged; `Terminal` shows it too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from featurestore.formatting import counted, human_bytes, human_seconds

LOG = logging.getLogger("featurestore.progress")
SHOWN = {"shown": True}  # on a record whose text is on stderr already


@dataclass(frozen=True)
class StageSummary:
    """The summary of one stage's run."""

    stage: str
    n_chunks: int = 0
    n_images: int = 0
    n_descriptors: int = 0
    n_bytes: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    n_warned: int = 0  # pictures that were used although the decoder warned
    seconds: float = 0.0
    note: str = ""  # about the model, or why there was nothing to do


class Reporter(Protocol):
    """Receives the progress of stages."""

    def begin(self, stage: str, n_images: int) -> None:
        """Report that a stage begins, with ``n_images`` images in all of its chunks."""
        ...

    def advance(self, n_images: int) -> None:
        """Report that some images are done."""
        ...

    def say(self, line: str) -> None:
        """Report one line to the user."""
        ...

    def end(self, summary: StageSummary | None) -> None:
        """Report the end of the stage; None if it failed."""
        ...


class Silent:
    """A reporter that logs and prints nothing."""

    def begin(self, stage: str, n_images: int) -> None:
        """Log that the stage begins."""
        LOG.info("%s: begins with %s", stage, counted(n_images, "image"))

    def advance(self, n_images: int) -> None:
        """Ignore it: what is published is logged where that happens."""

    def say(self, line: str) -> None:
        """Log a line."""
        LOG.info("%s", line)

    def end(self, summary: StageSummary | None) -> None:
        """Log the summary."""
        if summary is not None:
            LOG.info("%s", summary_line(summary))


class Terminal(Silent):
    """A reporter that also shows a bar on stderr if that is a terminal, and prints a line for each stage."""

    def __init__(self) -> None:
        """Start without a bar."""
        self._bar: Any = None

    def begin(self, stage: str, n_images: int) -> None:
        """Log it, and show a bar over the whole stage."""
        super().begin(stage, n_images)
        from tqdm import tqdm

        # disable=None: no bar where stderr is not a terminal
        self._bar = tqdm(
            total=n_images, desc=f"{stage:<9}", unit=" images", disable=None, leave=False, dynamic_ncols=True
        )

    def advance(self, n_images: int) -> None:
        """Move the bar."""
        self._bar.update(n_images)

    def say(self, line: str) -> None:
        """Log a line and print it, above the bar if there is one."""
        LOG.info("%s", line, extra=SHOWN)
        self._clear()
        print(line, file=sys.stderr, flush=True)

    def end(self, summary: StageSummary | None) -> None:
        """Remove the bar, log the summary and print it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if summary is not None:
            LOG.info("%s", summary_line(summary), extra=SHOWN)
            print(summary_line(summary), flush=True)

    def _clear(self) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.clear()


def reporter(*, quiet: bool) -> Reporter:
    """Return the reporter of a verb."""
    return Silent() if quiet else Terminal()


def summary_line(summary: StageSummary) -> str:
    """Return one line: images by status, descriptors, bytes, seconds."""
    statuses = ", ".join(f"{n:,} {status}" for status, n in sorted(summary.statuses.items(), key=lambda s: -s[1]))
    parts = [counted(summary.n_images, "image") + (f" ({statuses})" if statuses else "")]
    if summary.n_warned:
        parts.append(f"{summary.n_warned:,} kept with a warning")
    if summary.n_descriptors:
        parts.append(counted(summary.n_descriptors, "descriptor"))
    if summary.n_bytes:
        parts.append(human_bytes(summary.n_bytes))
    if summary.note:
        parts.append(summary.note)
    return f"{summary.stage:<9}  {', '.join(parts)}, in {human_seconds(summary.seconds)}"
