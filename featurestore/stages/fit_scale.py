"""fit_scale: the bounds of each dimension over the whole collection, from the images' percentiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from featurestore.config import option
from featurestore.errors import NothingUsable
from featurestore.rows import Row
from featurestore.stages.base import Arrays, FitStage

SMALLEST_SPAN = 1e-8  # below it a dimension counts as constant, and its span as 1


@dataclass(frozen=True)
class FitScale(FitStage):
    """The smallest low and the largest high of each dimension, with a margin."""

    name: ClassVar[str] = "fit_scale"
    reads: ClassVar[str] = "project"
    without: ClassVar[tuple[str, ...]] = ("descriptors", "x", "y", "size", "angle", "response", "octave")

    margin: float = option(0.01, "added on both sides, as a share of the span", low=0.0)
    over: Literal["all", "train"] = option("all", "all images, as in the notebook, or only train")

    def selects(self, subset: str) -> bool:
        """Return whether it learns images of this subset."""
        return self.over == "all" or subset == "train"

    def joins(self) -> bool:
        """Return whether its learners are joinable: yes."""
        return True

    def learner(self, arrays: Arrays | None) -> ScaleLearner:
        """Return a new learner, or one that goes on from a state or a parent's model."""
        return ScaleLearner(self.margin, arrays)

    def summary(self, arrays: Arrays) -> dict[str, Any]:
        """Return the widest and the narrowest span."""
        span = arrays["high"] - arrays["low"]
        return {"n_dimensions": len(span), "narrowest": float(span.min()), "widest": float(span.max())}


class ScaleLearner:
    """The running minimum of the lows and maximum of the highs, float32."""

    def __init__(self, margin: float, arrays: Arrays | None) -> None:
        """Start empty, or continue from ``arrays``."""
        self._margin = margin
        self._least: NDArray[np.float32] | None = None if arrays is None else arrays.get("least_low")
        self._greatest: NDArray[np.float32] | None = None if arrays is None else arrays.get("greatest_high")

    def learn(self, row: Row) -> None:
        """Learn one image's percentiles."""
        self._widen(*(np.asarray(row.extra[name], np.float32) for name in ("low", "high")))

    def join(self, part: Arrays) -> None:
        """Merge the bounds of another learner."""
        if part:
            self._widen(part["least_low"], part["greatest_high"])

    def _widen(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> None:
        self._least = low if self._least is None else np.minimum(self._least, low)
        self._greatest = high if self._greatest is None else np.maximum(self._greatest, high)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the bounds so far, without the margin."""
        if self._least is None or self._greatest is None:
            return {}
        return {"least_low": self._least, "greatest_high": self._greatest}

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return ``low`` and ``high`` ``(n_components,)`` float32, and the bounds without the margin.

        Raises:
            NothingUsable: no image has descriptors.
        """
        if self._least is None or self._greatest is None:
            raise NothingUsable(
                "fit_scale found no image with descriptors to compute bounds from; look at the failures: "
                'featurestore sql STORE "SELECT status, error, filename FROM failures"'
            )
        span = self._greatest - self._least
        span[span < SMALLEST_SPAN] = 1.0
        bounds = {"low": self._least - span * self._margin, "high": self._greatest + span * self._margin}
        return {**self.state(), **{name: value.astype(np.float32) for name, value in bounds.items()}}
