"""Tune: what the bytes of a store are worth, measured for a grid of settings on a sample of its images."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from featurestore.api import FeatureStore
from featurestore.apps.evaluation import ALL, Outcome, Scores, scores_of
from featurestore.apps.growing_file import GrowingFile, growing, progress_of
from featurestore.apps.kept_queries import file_of, keep_queries, kept_queries
from featurestore.apps.setting_bytes import Bytes, bytes_of
from featurestore.apps.trial import Flow, Measured, Query, Raw, Setting, measure
from featurestore.apps.tuning_sample import Sample, draw_sample
from featurestore.errors import QueryError
from featurestore.formatting import counted, human_seconds
from featurestore.progress import reporter
from featurestore.query import CHECKED
from featurestore.stages import FitScale, Project, Select
from featurestore.system import StrPath, located

BITS = (8, 4)
PROBED = 40  # images that the time of a query is estimated with
ASKED = 4  # queries that it is estimated with
KEEP = 10.0  # seconds after which the queries that have been extracted are written
CHECK = 2  # the check of an image takes about so many times as long as its votes
STATE = "state of the store"
LONG = 60.0  # seconds, above which it is said how to take less
LESS = (
    "; fewer values of top, select, dims or bits, a smaller sample or fewer queries take less, as top 450, select mix"
)


@dataclass(frozen=True)
class Grid:
    """The settings that are tried, each combination of them, and the size of the sample.

    Args:
        tops: descriptors that are kept of an image.
        selects: which are kept.
        dims: axes of the PCA; none: all that the model has, and half of them.
        bits: of a value, 8 or 4.
        images: of the sample, at most.
        queries: parts of them, at most three of an image.
        seed: of the sample and the parts.
    """

    tops: tuple[int, ...] = (200, 450, 900, 1800)
    selects: tuple[Select, ...] = ("norm", "scale", "response", "mix", "grid")
    dims: tuple[int, ...] = ()
    bits: tuple[int, ...] = BITS
    images: int = 100
    queries: int = 150
    seed: int = 0

    def settings(self) -> tuple[Setting, ...]:
        """Return every setting once, in order."""
        every = product(self.tops, self.selects, self.dims, self.bits)
        return tuple(dict.fromkeys(Setting(*values) for values in every))


@dataclass(frozen=True)
class Trial:
    """The scores of a setting, by exact search in the sample.

    Args:
        setting: that was tried.
        n_descriptors: mean of an image.
        bytes: of an image, and of the collection.
        chosen: scores of the half of the queries by which settings are chosen.
        reported: scores of the other half: those of each class, and of all its queries last.
        front: whether no smaller setting is as good on the first half.
    """

    setting: Setting
    n_descriptors: float
    bytes: Bytes
    chosen: Scores
    reported: tuple[Scores, ...]
    front: bool = False

    @property
    def worth(self) -> float:
        """Its score for a choice: recall at 1 and the share found, added, on the first half."""
        return self.chosen.recall[1] + self.chosen.found


@dataclass(frozen=True)
class Tuning:
    """The result of `tune`.

    Args:
        trials: of the grid, in its order.
        path: of the file that a repetition goes on with.
        n_sampled: images of the sample.
        n_images: images that ``bytes.collection`` is of.
        n_before: settings that an earlier call had tried.
    """

    trials: tuple[Trial, ...]
    path: Path
    n_sampled: int
    n_images: int
    n_before: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "path": str(self.path)}


def tune(
    store: FeatureStore,
    output: StrPath,
    grid: Grid | None = None,
    *,
    images: int | None = None,
    pairs: StrPath | None = None,
    force: bool = False,
    quiet: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Tuning:
    """Try settings of ``top``, ``select``, dimensions and bits on a sample, with queries made from its images.

    Descriptors of the sample come from the partitions of extract; only the queries are extracted. The codes of each
    setting are made in memory and searched exactly, so the store stays as it is. The file grows by a setting at a time,
    and after a kill the same call goes on with the next one; of a complete file it is read only.

    Args:
        store: with models, and descriptors of extract that are not pruned.
        output: the file, lines of JSON.
        grid: settings, and the size of the sample; None is the default one.
        images: of the collection whose bytes are told; None: those that the store has.
        pairs: a list of queries and what they should find, as of `evaluate`, in addition.
        force: begin again, whatever the file holds.
        quiet: show no bar.
        say: is told of the time that it will take, and of each query that can't be used.

    Raises:
        NotReady: too few images have descriptors of extract, or a model has not been fitted.
        QueryError: the grid can't be used, or no query can.
        NothingUsable, ImagesGone, DatasetError, UnreadableFile: an image of the sample can't be used any more.
        OutputError: the file can't be written, or was begun with other values.
        NotEnoughSpace: the disk is full; the same call goes on.
    """
    flow = _flow(store)
    grid = _checked(grid or Grid(), len(flow.pca["components_"]))
    where = None if pairs is None else located(pairs, "the list of pairs")
    sample = draw_sample(store, n_images=grid.images, n_queries=grid.queries, seed=grid.seed, pairs=where)
    made_of = {"grid": json.loads(json.dumps(asdict(grid))), STATE: _digest(flow, sample)}
    path = located(output, "a file of trials")
    with growing(path, made_of=made_of, head="", store=store.path, force=force) as file:
        before = file.done
        if not file.complete:
            say(
                f"writing {path}, a line for each setting; {progress_of(path).name} and {file_of(path).name} beside it "
                "are for going on after an interruption, and can be deleted afterwards"
            )
            _try_all(file, flow, grid, sample, quiet=quiet, say=say)
        found = [_read(line) for line in file.read().splitlines()]
    halves = {asked.name: asked.half for asked in sample.asked}
    n_images = sample.n_usable if images is None else images
    size = bytes_of(store, n_images)
    trials = [_trial(one, halves, size(one.setting, one.n_descriptors)) for one in found]
    return Tuning(tuple(_with_front(trials)), path, len(sample.names), n_images, before)


def _flow(store: FeatureStore) -> Flow:
    project, scale = store.parameters("project"), store.parameters("fit_scale")
    return Flow(Project(**project), FitScale(**scale), store.model("fit_pca"))


def _checked(grid: Grid, n_axes: int) -> Grid:
    """Return a grid with the dimensions that the PCA has.

    Raises:
        QueryError: a value can't be used.
    """
    grid = grid if grid.dims else replace(grid, dims=tuple(dict.fromkeys((n_axes, max(1, n_axes // 2)))))
    if min(grid.dims) < 1 or max(grid.dims) > n_axes:
        raise QueryError(f"dims are from 1 to {n_axes}, the axes of the store's PCA, and not {list(grid.dims)}")
    if not set(grid.bits) <= set(BITS):
        raise QueryError(f"bits are {' or '.join(map(str, BITS))}, and not {list(grid.bits)}")
    if not grid.settings() or min(grid.tops) < 1 or min(grid.images, grid.queries) < 2 or grid.seed < 0:
        raise QueryError("a grid needs a value of each kind, top from 1, a seed from 0, and 2 images and queries")
    return grid


def _digest(flow: Flow, sample: Sample) -> str:
    digest = hashlib.sha256(sample.digest.encode())
    digest.update(json.dumps([asdict(replace(flow.project, top=1, select="norm")), asdict(flow.fit_scale)]).encode())
    for name in ("components_", "mean_"):
        digest.update(flow.pca[name].tobytes())
    return digest.hexdigest()


def _try_all(
    file: GrowingFile, flow: Flow, grid: Grid, sample: Sample, *, quiet: bool, say: Callable[[str], None]
) -> None:
    settings = grid.settings()
    images, beside = list(sample.images()), file_of(file.path)
    queries = kept_queries(beside, sample)
    if len(queries) < len(sample.asked):
        _extract(queries, sample, beside, say)
    if file.done < len(settings):
        seconds = _estimate(flow, settings[file.done :], images, queries)
        say(
            f"{counted(len(settings) - file.done, 'setting')} with {counted(len(images), 'image')} and "
            f"{len(queries):,} queries take about {human_seconds(seconds)}{LESS if seconds > LONG else ''}"
        )
    progress = reporter(quiet=quiet)
    progress.begin("tune", len(settings) * len(images))  # an image once for each setting
    progress.advance(file.done * len(images))
    try:
        for setting in settings[file.done :]:
            file.add(_line(measure(flow, setting, images, queries)))
            progress.advance(len(images))
        file.finish()
    finally:
        progress.end(None)


def _extract(queries: list[Query], sample: Sample, beside: Path, say: Callable[[str], None]) -> None:
    """Append the queries that are missing, and keep them every few seconds. The time is told after the first ones.

    Raises:
        QueryError: none can be used.
        NothingUsable, ImagesGone, DatasetError, UnreadableFile: as `Sample.query` does.
    """
    n_kept, begun, kept, told = len(queries), time.perf_counter(), time.perf_counter(), set[str]()
    for n, asked in enumerate(sample.asked[n_kept:], 1):
        query = sample.query(asked)
        queries.append(query)
        now = time.perf_counter()
        if query.error is not None and query.error not in told:
            told.add(query.error)
            say(f"a query can't be used, and counts as not found: {query.error}")
        if n == min(ASKED, len(sample.asked) - n_kept):
            left = (now - begun) / n * (len(sample.asked) - len(queries))
            say(f"extracting the other queries takes about {human_seconds(left)}")
        if now - kept > KEEP:
            keep_queries(beside, sample, queries)
            kept = time.perf_counter()
    errors = [query.error for query in queries if query.error is not None]
    if len(errors) == len(queries):
        raise QueryError(f"no query can be used; the first: {errors[0]}")
    keep_queries(beside, sample, queries)


def _estimate(flow: Flow, settings: Sequence[Setting], images: Sequence[Raw], queries: Sequence[Query]) -> float:
    """Return about how many seconds settings take: a few queries and images are tried with the largest one."""
    some, few = images[:PROBED], queries[:: max(1, len(queries) // ASKED)][:ASKED]  # of all classes
    compared, probed = (len(all_) + CHECK * min(CHECKED, len(all_)) for all_ in (images, some))

    def work(setting: Setting) -> float:
        return sum(min(setting.top, len(image.descriptors)) for image in some) * (16 + setting.dims)

    largest = max(settings, key=work)
    times = [time.perf_counter()]
    for asked in ((), few):
        measure(flow, largest, some, asked)
        times.append(time.perf_counter())
    codes = times[1] - times[0]
    search = max(0.0, times[2] - times[1] - codes) * compared / probed * len(queries) / len(few)
    shares = sum(map(work, settings)) / work(largest)
    return codes * len(images) / len(some) * len(settings) + search * shares


def _line(found: Measured) -> str:
    return json.dumps(asdict(found), ensure_ascii=False) + "\n"


def _read(line: str) -> Measured:
    read = json.loads(line)
    plain: list[dict[str, Any]] = [
        {name: tuple(value) if isinstance(value, list) else value for name, value in one.items()}
        for one in read["outcomes"]
    ]
    outcomes = tuple(Outcome(**one) for one in plain)
    return Measured(Setting(**read["setting"]), read["n_descriptors"], outcomes)


def _trial(found: Measured, halves: dict[str, int], size: Bytes) -> Trial:
    first, second = ([one for one in found.outcomes if halves[one.query] == half] for half in (0, 1))
    kinds = sorted({one.kind for one in second})
    by_kind = [scores_of(kind, [one for one in second if one.kind == kind]) for kind in kinds]
    reported = (*by_kind, scores_of(ALL, second))
    return Trial(found.setting, found.n_descriptors, size, scores_of(ALL, first), reported)


def _with_front(trials: Iterable[Trial]) -> list[Trial]:
    """Return trials with those marked that are worth more than each smaller one."""
    trials = list(trials)
    best, front = -1.0, set()
    for trial in sorted(trials, key=lambda one: (one.bytes.image, -one.worth)):
        if trial.worth > best:
            best = trial.worth
            front.add(trial.setting)
    return [replace(trial, front=trial.setting in front) for trial in trials]
