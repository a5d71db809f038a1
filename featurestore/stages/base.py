"""What a stage is: a frozen dataclass whose fields are its parameters, its config keys and its identity.

Stages see rows and arrays. They import neither storage nor catalog nor engines, so that a stage runs the same in a
unit test, on one machine and on a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from featurestore.config import identity, variant_of
from featurestore.rows import Layout, Row

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Stage:
    """One step of the flow."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised when the code of the stage changes its result
    reads: ClassVar[str]  # the stage whose partitions it reads, or "images"
    model: ClassVar[str | None] = None  # the fit stage whose model it uses

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that are part of the stage's identity."""
        return identity(self)

    def variant(self, *, reads: str, model_id: str | None) -> str:
        """Return the identity of what the stage makes: 16 hex digits.

        Args:
            reads: the variant of the partitions it reads, empty for images.
            model_id: the model it uses, if any.
        """
        return variant_of(self.name, self.version, self.parameters(), reads=reads, model_id=model_id)


@dataclass(frozen=True)
class ChunkStage(Stage):
    """A stage that maps one partition to one partition, image by image."""

    def layout(self, reads: Layout | None, model: Arrays | None) -> Layout:
        """Return the columns of what it makes from partitions of layout ``reads`` (None: from images)."""
        raise NotImplementedError(f"{type(self).__name__}.layout")  # every chunk stage has its own

    def stale_rows(self) -> str | None:
        """Return SQL over ``status, error, pixels`` that is true for rows that today's policies decide otherwise."""
        return None


@dataclass(frozen=True)
class TransformStage(ChunkStage):
    """A chunk stage that reads the rows of another."""

    def apply(self, row: Row, model: Arrays) -> Row:
        """Return the row that it makes of ``row``. Called for images that have descriptors."""
        raise NotImplementedError(f"{type(self).__name__}.apply")

    def transform(self, row: Row, model: Arrays) -> Row:
        """Return what it makes of any row: one without descriptors goes on as it is."""
        if row.descriptors is None:
            return Row(row.image_id, row.filename, row.status, row.error)
        return self.apply(row, model)


class Learner(Protocol):
    """A fit in progress. Feeding it the same rows gives the same model, however often it was saved on the way."""

    def learn(self, row: Row) -> None:
        """Take in one image that has descriptors."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return arrays from which `FitStage.learner` goes on exactly where this one is."""
        ...

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return the model's arrays.

        Raises:
            NothingUsable: too little was learnt for a model.
        """
        ...


class JoinableLearner(Learner, Protocol):
    """A learner that takes in what others of its kind have learnt, so that chunks can be learnt side by side."""

    def join(self, part: Arrays) -> None:
        """Take in the `state` of a learner that began anew and learnt other images."""
        ...


@dataclass(frozen=True)
class FitStage(Stage):
    """A stage that folds partitions into a model."""

    without: ClassVar[tuple[str, ...]] = ()  # columns of what it reads that it does not look at

    def selects(self, subset: str) -> bool:
        """Return whether images of this subset are learnt."""
        raise NotImplementedError(f"{type(self).__name__}.selects")

    def sample(self, row: Row) -> Row:
        """Return what is learnt of a row. To learn that is to learn the row, and it can be prepared ahead."""
        return row

    def joins(self) -> bool:
        """Return whether its learners are `JoinableLearner`s."""
        return False

    def learner(self, arrays: Arrays | None) -> Learner:
        """Return a new learner, or one that goes on from a state or from a parent's model."""
        raise NotImplementedError(f"{type(self).__name__}.learner")

    def summary(self, arrays: Arrays) -> dict[str, Any]:
        """Return what people want to know of a model, in a few numbers."""
        raise NotImplementedError(f"{type(self).__name__}.summary")
