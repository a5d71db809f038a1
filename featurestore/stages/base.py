"""Base classes of stages: frozen dataclasses whose fields are their parameters, config keys and identity.

Stages work on rows and arrays. They import neither storage nor catalog nor engines, so that a stage runs in the same
way in a unit test, on one machine and on a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from featurestore.config import identity, variant_of
from featurestore.errors import QueryError
from featurestore.rows import Layout, Row

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Stage:
    """One step of the flow."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised when the code of the stage changes its result
    reads: ClassVar[str]  # the stage whose partitions it reads, or "images"
    model: ClassVar[str | None] = None  # the fit stage whose model it uses

    def as_recorded(self, parameters: Mapping[str, Any]) -> Stage:
        """Return the stage that reads the output of a recorded variant: itself, by default.

        Args:
            parameters: of that variant, as `parameters` gave them.
        """
        return self

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that are part of the stage's identity."""
        return identity(self)

    def variant(self, *, reads: str, model_id: str | None) -> str:
        """Return the variant, the identity of the stage's output: 16 hex digits.

        Args:
            reads: the variant of the partitions it reads, empty for images.
            model_id: of the model that it uses, if any.
        """
        return variant_of(self.name, self.version, self.parameters(), reads=reads, model_id=model_id)


@dataclass(frozen=True)
class ChunkStage(Stage):
    """A stage that maps one partition to one partition, image by image."""

    view: ClassVar[str]  # the view of its partitions in SQL, a participle
    typical_bytes: ClassVar[int] = 0  # bytes of an image, until a run has measured it
    codes: ClassVar[bool] = False  # whether its output is the codes, which are loaded and exported by default

    def layout(self, reads: Layout | None, fit: FitStage | None) -> Layout:
        """Return the layout of its output.

        Args:
            reads: the layout of its input; None: images.
            fit: the stage whose model it uses, if any.
        """
        raise NotImplementedError(f"{type(self).__name__}.layout")  # every chunk stage has its own

    def stale_rows(self) -> str | None:
        """Return SQL over ``status, error, pixels`` that is true for rows that the current policies would change."""
        return None

    def perhaps_stale_rows(self) -> str | None:
        """Return SQL that is quicker than `stale_rows` and true for at least the same rows; None if there is none."""
        return None


@dataclass(frozen=True)
class TransformStage(ChunkStage):
    """A chunk stage that reads the rows of another stage."""

    def apply(self, row: Row, model: Arrays) -> Row:
        """Return the transformed row of an image that has descriptors.

        Args:
            row: of the stage that it reads.
            model: the arrays of its model; empty for a stage without one.
        """
        raise NotImplementedError(f"{type(self).__name__}.apply")

    def with_keypoints(self) -> TransformStage:
        """Return the stage for a single image, with keypoints, which cost nothing there."""
        return self

    def floats(self, codes: NDArray[np.uint8], model: Arrays) -> NDArray[np.float32]:
        """Return codes ``(n, dim)`` as values in the space of its input, for a stage that makes codes.

        Raises:
            QueryError: its codes can't be decoded, or these are not of its shape and dtype.
        """
        raise QueryError(f"codes of {self.name} can't be turned back into floats; ask for those of another variant")

    def decoding(self, model: Arrays) -> Arrays:
        """Return the arrays that its output is decoded with: those of its model, by default."""
        return model

    def transform(self, row: Row, model: Arrays) -> Row:
        """Return the transformed row; a row without descriptors keeps its status and error."""
        if row.descriptors is None:
            return Row(row.image_id, row.filename, row.status, row.error)
        return self.apply(row, model)


class Learner(Protocol):
    """A fit in progress. The same rows give the same model, however often the fit was saved and resumed."""

    def learn(self, row: Row) -> None:
        """Learn one image that has descriptors."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return arrays from which `FitStage.learner` resumes exactly."""
        ...

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return the model's arrays.

        Raises:
            NothingUsable: there was too little to learn from.
        """
        ...


class JoinableLearner(Learner, Protocol):
    """A learner that can merge the states of others, so that chunks can be learnt in parallel."""

    def join(self, part: Arrays) -> None:
        """Merge the `state` of a learner that started empty and learnt other images."""
        ...


@dataclass(frozen=True)
class FitStage(Stage):
    """A stage that folds partitions into a model."""

    without: ClassVar[tuple[str, ...]] = ()  # columns of its input that it does not read
    needs_input_model: ClassVar[bool] = False  # whether `complete` needs the model that its input was made with

    def dim(self, reads: Layout) -> int:
        """Return the number of values of a transformed descriptor of ``reads``: the same, by default."""
        return reads.dim

    def selects(self, subset: str) -> bool:
        """Return whether it learns images of this subset."""
        raise NotImplementedError(f"{type(self).__name__}.selects")

    def sample(self, row: Row) -> Row:
        """Return the part of a row that is learnt. Learning the part equals learning the row."""
        return row

    def joins(self) -> bool:
        """Return whether its learners are joinable, see `JoinableLearner`."""
        return False

    def learner(self, arrays: Arrays | None) -> Learner:
        """Return a new learner, or one that resumes from a state or continues from a parent's model."""
        raise NotImplementedError(f"{type(self).__name__}.learner")

    def complete(self, arrays: Arrays, input_model: Arrays) -> Arrays:
        """Return the arrays of the model, given those that its learner has finished with: the same, by default.

        Args:
            arrays: from `Learner.finish`.
            input_model: what the stage that it reads decodes with (`TransformStage.decoding`); empty unless
                ``needs_input_model``.
        """
        return arrays

    def summary(self, arrays: Arrays) -> dict[str, Any]:
        """Return a few numbers that describe a model."""
        raise NotImplementedError(f"{type(self).__name__}.summary")
