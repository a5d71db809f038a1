"""Trials: how well a setting of the recipe finds the images that queries are parts of, in memory, by exact search."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.apps.evaluation import DEPTH, Outcome
from featurestore.matching import Features, Verdict, check_pair
from featurestore.query import CHECKED, most_votes, ranking
from featurestore.rows import Row, Status
from featurestore.stages import FitScale, Project, Select
from featurestore.system import one_blas_thread

Model = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Setting:
    """One choice of all that decides the bytes of an image.

    Args:
        top: descriptors that are kept of an image.
        select: which, see `Project`.
        dims: axes of the PCA, the first ones.
        bits: of a value.
    """

    top: int
    select: Select
    dims: int
    bits: int

    def __str__(self) -> str:
        """Return it as tables have it: ``450 mix 64x8``."""
        return f"{self.top} {self.select} {self.dims}x{self.bits}"


@dataclass(frozen=True)
class Raw:
    """Descriptors and keypoints of an image, as of extract.

    Args:
        name: of the image, or of the query.
        descriptors: ``(n, dim)``.
        keypoints: ``(n,)``.
        train: whether its subset is ``train``.
    """

    name: str
    descriptors: NDArray[Any]
    keypoints: NDArray[Any]
    train: bool = True


@dataclass(frozen=True)
class Query:
    """A query, and the images of the sample that it should find.

    Args:
        name: what it is called.
        raw: its descriptors; None if it has none, or can't be used.
        kind: its class.
        refs: filenames.
        half: 0: settings are chosen by it; 1: they are reported by it.
        stored: whether it is itself an image of the store, which is left out of its search.
        error: why it has no descriptors.
    """

    name: str
    raw: Raw | None
    kind: str
    refs: tuple[str, ...]
    half: int
    stored: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Flow:
    """The stages that a setting changes, and the model of the PCA."""

    project: Project
    fit_scale: FitScale
    pca: Model


@dataclass(frozen=True)
class Measured:
    """The outcomes of a setting.

    Args:
        setting: that was tried.
        n_descriptors: mean of an image of the sample.
        outcomes: in the order of the queries.
    """

    setting: Setting
    n_descriptors: float
    outcomes: tuple[Outcome, ...]


def measure(flow: Flow, setting: Setting, images: Sequence[Raw], queries: Sequence[Query]) -> Measured:
    """Make the codes of a setting as a run would, and search for each query by exact comparison.

    The same queries have the same ranks in `FeatureStore.search` with the method ``exact``, in a store of this sample.
    """
    with one_blas_thread(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # several would change the last bits
        project, pca = _projector(flow, setting)
        rows = list(pool.map(lambda raw: _projected(project, pca, raw), images))
        bounds = _bounds(flow.fit_scale, images, rows)
        coarse = _coarse(bounds, setting.bits)
        features = {raw.name: coarse(row) for raw, row in zip(images, rows, strict=True)}

        def ask(query: Query) -> Outcome:
            if query.raw is None:
                return Outcome(query.name, query.kind, query.refs, error=query.error)
            begun = time.perf_counter()
            found = coarse(_projected(project, pca, query.raw))
            without = query.name if query.stored else None
            ranks, good = _search(found, {name: one for name, one in features.items() if name != without})
            return Outcome(
                query.name,
                query.kind,
                query.refs,
                ranks=tuple(rank for rank, name in enumerate(ranks, 1) if name in query.refs),
                found=tuple(name for name in good if name in query.refs),
                wrong=tuple(name for name in good if name not in query.refs),
                seconds=time.perf_counter() - begun,
            )

        outcomes = tuple(pool.map(ask, queries))
    return Measured(setting, float(np.mean([len(row.descriptors) for row in rows])), outcomes)  # type: ignore[arg-type]


def _projector(flow: Flow, setting: Setting) -> tuple[Project, Model]:
    pca = {"components_": flow.pca["components_"][: setting.dims], "mean_": flow.pca["mean_"]}
    return replace(flow.project, top=setting.top, select=setting.select), pca


def _projected(project: Project, pca: Model, raw: Raw) -> Row:
    return project.apply(Row(-1, raw.name, Status.OK, None, raw.descriptors, raw.keypoints), dict(pca))


def _bounds(stage: FitScale, images: Sequence[Raw], rows: Iterable[Row]) -> Model:
    """Return the bounds of the images that fit_scale learns from; of all if the sample has none of these."""
    chosen = [stage.selects("train" if raw.train else "test") for raw in images]
    learner = stage.learner(None)
    for row, yes in zip(rows, chosen, strict=True):
        if yes or not any(chosen):
            learner.learn(row)
    return learner.finish()


def _coarse(bounds: Model, bits: int) -> Callable[[Row], Features]:
    low, high = bounds["low"], bounds["high"]
    span = high - low

    def features(row: Row) -> Features:
        assert row.descriptors is not None
        assert row.keypoints is not None
        return Features(rounded(row.descriptors, low=low, span=span, bits=bits), row.keypoints)

    return features


def rounded(
    values: NDArray[np.float32], *, low: NDArray[np.float32], span: NDArray[np.float32], bits: int
) -> NDArray[np.float32]:
    """Return values as quantize gives them back at so many bits: the nearest of ``2 ** bits`` levels of the bounds.

    Args:
        values: ``(n, dim)`` float32.
        low: ``(dim,)`` float32.
        span: ``(dim,)`` float32.
        bits: of a code.
    """
    levels = np.float32(2**bits - 1)
    shares = np.clip((values - low) / np.where(span == 0, np.float32(1), span), 0, 1)
    return (low + np.rint(shares * levels) / levels * span).astype(np.float32, copy=False)


def _search(query: Features, images: Mapping[str, Features]) -> tuple[list[str], list[str]]:
    """Return the names of the first hits after the check, and of those found."""
    names = list(images)
    rows, _ = most_votes(query.descriptors, enumerate(one.descriptors for one in images.values()), most=DEPTH)
    checked = [check_pair(query, images[names[i]]) for i in rows[:CHECKED]]
    order = ranking(checked, len(rows))
    good = [i for i in order if i < len(checked) and checked[i].status is Verdict.FOUND]
    return [names[rows[i]] for i in order], [names[rows[i]] for i in good]
