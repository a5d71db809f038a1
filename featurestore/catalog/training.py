"""Training sets: the images that a model has and has not learnt, as masks over ``image_id``.

Ids count from 0 without gaps, so that a join on them is an index into an array: of ten million images that takes a
tenth of a second, where DuckDB's hash join takes three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from featurestore.catalog.statements import query_arrow, query_column, query_tuples
from featurestore.catalog.steps import Step
from featurestore.formatting import counted
from featurestore.rows import USABLE_SQL
from featurestore.stages import FitStage

Mask = NDArray[np.bool_]  # over all images, indexed by ``image_id``
REFIT = "another seed in [fit_pca] of featurestore.toml, and a run, make models without them"


class DatasetMasks:
    """Masks of the dataset, each of which is read once for the training sets of several stages. Not to be changed."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        """Take an open connection; each mask is read on first use."""
        self.connection = connection
        query = "SELECT chunk_id, first_image_id, n_images FROM chunks ORDER BY chunk_id"
        self.chunks = query_tuples(connection, query)[1]
        self._n_images = sum(n_images for *_, n_images in self.chunks)
        self._of_subsets: dict[tuple[str, ...], Mask] = {}

    @cached_property
    def subsets(self) -> list[str]:
        """The subsets of all images, of those that have left the dataset too."""
        return query_column(self.connection, "SELECT DISTINCT subset FROM images")

    @cached_property
    def removed(self) -> Mask:
        """The images that have left the dataset."""
        return self.mask("SELECT image_id FROM images WHERE removed_by IS NOT NULL", {})

    def of_subsets(self, subsets: Sequence[str]) -> Mask:
        """Return the images in the dataset of these subsets."""
        key = tuple(sorted(subsets))
        if key not in self._of_subsets:
            query = "SELECT image_id FROM images WHERE list_contains($subsets, subset) AND removed_by IS NULL"
            self._of_subsets[key] = self.mask(query, {"subsets": list(key)})
        return self._of_subsets[key]

    def no_image(self) -> Mask:
        """Return the mask of no image."""
        return np.zeros(self._n_images, dtype=bool)

    def mask(self, query: str, parameters: Mapping[str, Any]) -> Mask:
        """Return the images that a query has."""
        mask = self.no_image()
        for chunk in query_arrow(self.connection, query, parameters)["image_id"].chunks:
            ids = np.from_dlpack(chunk)  # pyarrow's own to_numpy imports pandas, which takes longer than `status`
            mask[ids[ids < self._n_images]] = True
        return mask


class TrainingSet:
    """The training images of a fit stage's current model; none without a model."""

    def __init__(self, connection: DuckDBPyConnection, step: Step, dataset: DatasetMasks | None = None) -> None:
        """Take an open connection, and the masks of the dataset if others have used them."""
        assert isinstance(step.stage, FitStage)
        self._connection, self._step, self._stage = connection, step, step.stage
        self._dataset = dataset or DatasetMasks(connection)

    @cached_property
    def learnt(self) -> Mask:
        """The images that it has learnt from."""
        if self._step.current_model is None:
            return self._dataset.no_image()
        query = "SELECT image_id FROM training_images WHERE model_id = $model"
        return self._dataset.mask(query, {"model": self._step.current_model.model_id})

    @cached_property
    def selected(self) -> Mask:
        """The images that the stage would learn from, usable or not: those of its subset in the dataset."""
        return self._dataset.of_subsets([subset for subset in self._dataset.subsets if self._stage.selects(subset)])

    @property
    def removed(self) -> Mask:
        """The images that have left the dataset."""
        return self._dataset.removed

    @property
    def leaked(self) -> Mask:
        """The images that it has learnt from and that the current split holds out."""
        if self._step.current_model is None or all(map(self._stage.selects, self._dataset.subsets)):
            return self._dataset.no_image()
        held_out = self.learnt & ~self.selected
        return held_out & ~self.removed if held_out.any() else held_out

    @cached_property
    def leakage(self) -> str | None:
        """A warning about leaked images with a remedy; None if there are none."""
        n = int(self.leaked.sum())
        what = f"leakage: the model learnt from {counted(n, 'image')} that the current split holds out"
        return f"{what}; {REFIT}" if n else None

    def unseen(self) -> dict[int, int]:
        """Return, by chunk, the number of usable images that the model has not learnt; empty without a model."""
        if self._step.current_model is None:
            return {}
        usable = self._dataset.mask(
            "SELECT image_id FROM results WHERE stage = $stage AND variant = $variant AND n_descriptors > 0",
            {"stage": self._stage.reads, "variant": self._step.reads_variant},
        )
        unseen = usable & self.selected & ~self.learnt
        before = np.concatenate([[0], np.cumsum(unseen)])
        counts = ((chunk, int(before[first + n] - before[first])) for chunk, first, n in self._dataset.chunks)
        return {chunk: n for chunk, n in counts if n}

    def lost(self) -> dict[str, int]:
        """Return, by status, the number of failed images that it would learn from; those it has learnt don't count.

        Most frequent first.
        """
        parameters = {"stage": self._stage.reads, "variant": self._step.reads_variant}
        where = "WHERE stage = $stage AND variant = $variant AND status"
        query = f"SELECT DISTINCT status FROM results {where} NOT IN {USABLE_SQL} ORDER BY 1"
        statuses = query_column(self._connection, query, parameters)
        wanted = self.selected & ~self.learnt
        query = f"SELECT image_id FROM results {where} = $status"
        lost = {s: int((self._dataset.mask(query, {**parameters, "status": s}) & wanted).sum()) for s in statuses}
        return {status: n for status, n in sorted(lost.items(), key=lambda item: -item[1]) if n}


def first_leakage(connection: DuckDBPyConnection, steps: Iterable[Step]) -> str | None:
    """Return the warning about the first fit stage whose model has learnt held-out images, or None.

    A refit of that stage recomputes all later stages. ``steps`` are from `steps.resolve`, or some of them.
    """
    fits = (step for step in steps if isinstance(step.stage, FitStage))
    dataset = DatasetMasks(connection)
    notes = ((step.stage.name, TrainingSet(connection, step, dataset).leakage) for step in fits)
    return next((f"{name}: {note}" for name, note in notes if note), None)
