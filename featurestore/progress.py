"""What a run says while it works. The runner reports to a `Reporter`; what becomes of it is decided here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from featurestore.formatting import counted, human_bytes, human_seconds


@dataclass(frozen=True)
class StageSummary:
    """What a run of one stage did."""

    stage: str
    n_chunks: int = 0
    n_images: int = 0
    n_descriptors: int = 0
    n_bytes: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    n_warned: int = 0  # pictures that were used although the decoder had something to say
    seconds: float = 0.0
    note: str = ""  # what was learnt, or why nothing was done


class Reporter(Protocol):
    """Is told what happens."""

    def begin(self, stage: str, n_images: int) -> None:
        """A stage begins to work on ``n_images`` images, over all of its chunks."""
        ...

    def advance(self, n_images: int) -> None:
        """Some images are done."""
        ...

    def say(self, line: str) -> None:
        """Something that people should know."""
        ...

    def end(self, summary: StageSummary | None) -> None:
        """The stage is over; None: it was broken off."""
        ...


class Silent:
    """Says nothing."""

    def begin(self, stage: str, n_images: int) -> None:
        """Say nothing."""

    def advance(self, n_images: int) -> None:
        """Say nothing."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def end(self, summary: StageSummary | None) -> None:
        """Say nothing."""


class Terminal:
    """Shows a bar on stderr where that is a terminal, and prints a line for each stage."""

    def __init__(self) -> None:
        """No bar yet."""
        self._bar: Any = None

    def begin(self, stage: str, n_images: int) -> None:
        """Show a bar over the whole stage."""
        from tqdm import tqdm

        # disable=None: no bar where stderr is not a terminal
        self._bar = tqdm(
            total=n_images, desc=f"{stage:<9}", unit=" images", disable=None, leave=False, dynamic_ncols=True
        )

    def advance(self, n_images: int) -> None:
        """Move the bar."""
        self._bar.update(n_images)

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self._clear()
        print(line, file=sys.stderr, flush=True)

    def end(self, summary: StageSummary | None) -> None:
        """Remove the bar and print the summary."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if summary is not None:
            print(summary_line(summary), flush=True)

    def _clear(self) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.clear()


def reporter(*, quiet: bool) -> Reporter:
    """Return what a verb reports to."""
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
