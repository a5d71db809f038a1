"""fit_pca: a PCA of the train images; incremental, in batches that cross image and chunk boundaries, or exact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from featurestore.config import option
from featurestore.rows import Layout, Row
from featurestore.stages.base import Arrays, FitStage, Learner
from featurestore.stages.covariance import CovarianceLearner
from featurestore.stages.incremental import PcaLearner
from featurestore.stages.sampler import Sampler


@dataclass(frozen=True)
class FitPca(FitStage):
    """Learn the PCA from train images only."""

    name: ClassVar[str] = "fit_pca"
    reads: ClassVar[str] = "extract"
    without: ClassVar[tuple[str, ...]] = ("x", "y", "size", "angle", "response", "octave")

    typical_seconds: ClassVar[dict[str, float]] = {"incremental": 0.0152, "gram": 0.0028, "covariance": 0.0021}
    # by solver: of CPU time an image, see docs/benchmarks.md

    n_components: int = option(64, "dimensions that are kept", low=1)
    samples_per_image: int = option(1800, "descriptors drawn from an image, at most", low=1)
    batch_size: int = option(2000, "rows in a batch, at least", low=1)
    seed: int = option(0, "of the drawing, which is seeded by (seed, image_id)", low=0)

    solver: Literal["incremental", "gram", "covariance"] = option(
        "incremental",
        "gram or incremental (scikit-learn's own, slower), as in the notebook, or covariance: exact; batch_size unused",
        late=True,
        initially="gram",
    )

    def dim(self, reads: Layout) -> int:
        """Return the number of components."""
        return self.n_components

    def selects(self, subset: str) -> bool:
        """Return whether it learns images of this subset: only ``train``."""
        return subset == "train"

    def joins(self) -> bool:
        """Return whether its learners are joinable: sums can be added, incremental models can't."""
        return self.solver == "covariance"

    def learner(self, arrays: Arrays | None) -> Learner:
        """Return a new learner, or one that resumes from a state or continues from a parent's model."""
        if self.solver == "covariance":
            return CovarianceLearner(self.sampler, arrays)
        return PcaLearner(self.sampler, arrays, batch_size=self.batch_size, solver=self.solver)

    @property
    def sampler(self) -> Sampler:
        """The sampler of the descriptors to learn."""
        return Sampler(self.n_components, self.samples_per_image, self.seed)

    def sample(self, row: Row) -> Row:
        """Return the row with only the sampled descriptors."""
        return replace(row, descriptors=self.sampler.draw(row))

    def summary(self, arrays: Arrays) -> dict[str, Any]:
        """Return the solver, the number of descriptors learnt and the share of the variance that is kept."""
        total = float(arrays["var_"].sum()) * int(arrays["n_samples_seen_"])
        return {
            "solver": self.solver,
            "n_components": int(arrays["n_components_"]),
            "n_descriptors": int(arrays["n_samples_seen_"]),
            "explained_variance_ratio": float((arrays["singular_values_"] ** 2).sum() / total) if total else 1.0,
        }
