"""Progress of a run: the `Reporter` that stages report to. Every report is logged, and shown in a chosen way."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from featurestore.formatting import counted, human_bytes, human_seconds

LOG = logging.getLogger("featurestore.progress")
SHOWN = {"shown": True}  # on a record whose text is on stderr already
LINE_SECONDS = 30.0  # between two lines
EVENT_SECONDS = 1.0  # between two events, which a program reads
# tqdm's own, but images a second for slow ones too: where one takes two seconds, tqdm has "2.00s/ images".
BAR_END = "| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"

Progress = Literal["bar", "lines", "json", "none"]
PROGRESS: tuple[Progress, ...] = ("bar", "lines", "json", "none")
Clock = Callable[[], float]


@dataclass(frozen=True)
class StageSummary:
    """The summary of one stage's run."""

    stage: str
    n_chunks: int = 0
    n_images: int = 0
    n_descriptors: int = 0
    n_bytes: int = 0
    n_before: int = 0  # images of the same chunks, whose results are among the bytes and were computed before
    statuses: Mapping[str, int] = field(default_factory=dict)
    n_warned: int = 0  # pictures that were used although the decoder warned
    seconds: float = 0.0
    note: str = ""  # about the model, or why there was nothing to do

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**dataclasses.asdict(self), "statuses": dict(self.statuses)}


@dataclass
class Pace:
    """The images that a stage has done, and its rate."""

    stage: str
    n_images: int
    begun: float  # seconds
    n_done: int = 0

    def rate(self, now: float) -> float | None:
        """Return the images per second since the stage began; None before the first."""
        return self.n_done / (now - self.begun) if self.n_done and now > self.begun else None

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds that the rest will take at this rate; None before the first image."""
        rate = self.rate(now)
        return None if rate is None else max(self.n_images - self.n_done, 0) / rate


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


class Summaries(Silent):
    """A reporter that prints what is said to stderr, and a line for each stage that ended to stdout."""

    def __init__(self, *, summaries: bool = True) -> None:
        """Take whether a line is printed for each stage."""
        self._summaries = summaries

    def say(self, line: str) -> None:
        """Log a line and print it to stderr."""
        LOG.info("%s", line, extra=SHOWN)
        print(line, file=sys.stderr, flush=True)

    def end(self, summary: StageSummary | None) -> None:
        """Log the summary and print it."""
        if not self._summaries:
            super().end(summary)
        elif summary is not None:
            LOG.info("%s", summary_line(summary), extra=SHOWN)
            print(summary_line(summary), flush=True)


class Bar(Summaries):
    """A reporter that also shows a bar, in a terminal on stderr or in a notebook."""

    def __init__(self, *, summaries: bool = True) -> None:
        """Start without a bar."""
        super().__init__(summaries=summaries)
        self._bar: Any = None

    def begin(self, stage: str, n_images: int) -> None:
        """Log it, and show a bar over the whole stage."""
        super().begin(stage, n_images)
        from tqdm.auto import tqdm

        self._bar = tqdm(
            total=n_images,
            desc=f"{stage:<9}",
            unit=" images",
            bar_format="{l_bar}{bar}" + BAR_END,
            leave=False,
            dynamic_ncols=True,
        )

    def advance(self, n_images: int) -> None:
        """Move the bar."""
        self._bar.update(n_images)

    def say(self, line: str) -> None:
        """Log a line and print it above the bar, if there is one."""
        if self._bar is not None:
            self._bar.clear()
        super().say(line)

    def end(self, summary: StageSummary | None) -> None:
        """Remove the bar, log the summary and print it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        super().end(summary)


class _Paced(Silent):
    """The base class of reporters that tell from time to time how far a stage is."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds, self._clock = seconds, clock
        self._pace: Pace | None = None
        self._told = 0.0

    def begin(self, stage: str, n_images: int) -> None:
        super().begin(stage, n_images)
        self._told = self._clock()
        self._pace = Pace(stage, n_images, begun=self._told)

    def advance(self, n_images: int) -> None:
        assert self._pace is not None
        self._pace.n_done += n_images
        now = self._clock()
        if now - self._told >= self._seconds:
            self._told = now
            self._tell(self._pace, now)

    def _tell(self, pace: Pace, now: float) -> None:
        raise NotImplementedError(f"{type(self).__name__}._tell")


class Lines(_Paced, Summaries):
    """A reporter for a log file or a batch system: every half minute a line on stderr."""

    def __init__(self, clock: Clock = time.monotonic, *, summaries: bool = True) -> None:
        """Take the clock, whose unit is a second."""
        _Paced.__init__(self, LINE_SECONDS, clock)
        Summaries.__init__(self, summaries=summaries)

    def _tell(self, pace: Pace, now: float) -> None:
        self.say(progress_line(pace, now))


class Events(_Paced):
    """A reporter for programs: each report is a JSON object on a line of stderr."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        """Take the clock, whose unit is a second."""
        super().__init__(EVENT_SECONDS, clock)

    def begin(self, stage: str, n_images: int) -> None:
        """Log that the stage begins, and print it."""
        super().begin(stage, n_images)
        _print_event("begin", stage=stage, n_images=n_images)

    def say(self, line: str) -> None:
        """Log a line and print it."""
        LOG.info("%s", line, extra=SHOWN)
        _print_event("message", text=line)

    def end(self, summary: StageSummary | None) -> None:
        """Log the summary, and print it."""
        super().end(summary)
        if summary is not None:
            _print_event("end", **summary.as_dict())
        elif self._pace is not None:
            _print_event("end", stage=self._pace.stage, summary=None)

    def _tell(self, pace: Pace, now: float) -> None:
        rate, left = pace.rate(now), pace.seconds_left(now)
        _print_event(
            "progress",
            stage=pace.stage,
            n_done=pace.n_done,
            n_images=pace.n_images,
            images_per_second=None if rate is None else round(rate, 3),
            seconds_left=None if left is None else round(left, 1),
        )


def _print_event(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}, ensure_ascii=False), file=sys.stderr, flush=True)


def reporter(*, quiet: bool, progress: Progress | None = None) -> Reporter:
    """Return the reporter of a verb.

    Args:
        quiet: print no summaries, and show nothing at all unless ``progress`` is given.
        progress: ``bar``, ``lines``, ``json`` (events) or ``none``; None is `usual_progress`, unless ``quiet``.
    """
    if progress is None and not quiet:
        progress = usual_progress()
    match progress:
        case "bar":
            return Bar(summaries=not quiet)
        case "lines":
            return Lines(summaries=not quiet)
        case "json":
            return Events()
    return Silent() if quiet else Summaries()


def usual_progress() -> Progress:
    """Return ``bar`` in a terminal or a notebook, and ``lines`` elsewhere."""
    return "bar" if sys.stderr.isatty() or _in_a_notebook() else "lines"


def _in_a_notebook() -> bool:
    """Whether the output of this process is shown by Jupyter. Nothing is imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def progress_line(pace: Pace, now: float) -> str:
    """Return one line: the images that are done, the rate and the time left."""
    told = pace_text(pace.n_done, pace.n_images, pace.rate(now), pace.seconds_left(now))
    return f"{pace.stage:<9}  {told}"


def pace_text(n_done: int, n_images: int, rate: float | None, left: float | None) -> str:
    """Return the images that are done, the images per second, and the seconds left, as people read them."""
    parts = [f"{n_done:,} of {counted(n_images, 'image')}"]
    if rate is not None and left is not None:
        parts += [f"{rate:,.1f} images/s" if rate >= 1 else f"{60 * rate:,.1f} images/min"]
        parts += [f"about {human_seconds(left)} left"]
    return ", ".join(parts)


def summary_line(summary: StageSummary) -> str:
    """Return one line: images by status, descriptors, bytes, seconds."""
    statuses = ", ".join(f"{n:,} {status}" for status, n in sorted(summary.statuses.items(), key=lambda s: -s[1]))
    parts = [counted(summary.n_images, "image") + (f" ({statuses})" if statuses else "")]
    if summary.n_warned:
        parts.append(f"{summary.n_warned:,} kept with a warning")
    if summary.n_descriptors:
        parts.append(counted(summary.n_descriptors, "descriptor"))
    if summary.n_bytes:
        before = f" with {counted(summary.n_before, 'image')} from before" if summary.n_before else ""
        parts.append(human_bytes(summary.n_bytes) + before)
    if summary.note:
        parts.append(summary.note)
    return f"{summary.stage:<9}  {', '.join(parts)}, in {human_seconds(summary.seconds)}"
