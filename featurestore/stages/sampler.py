"""The sample of an image's descriptors that a PCA learns, the same for every solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import ConfigError
from featurestore.rows import Row


@dataclass(frozen=True)
class Sampler:
    """At most ``samples_per_image`` descriptors of an image, drawn with a generator seeded by ``(seed, image_id)``."""

    n_components: int
    samples_per_image: int
    seed: int

    def draw(self, row: Row) -> NDArray[Any]:
        """Return the sampled descriptors ``(n, dim)`` of an image, in their stored dtype.

        Raises:
            ConfigError: a descriptor has fewer values than there are components to learn.
        """
        assert row.descriptors is not None
        n, dim = row.descriptors.shape
        if self.n_components > dim:
            raise ConfigError(
                f"featurestore.toml: [fit_pca] n_components is {self.n_components}, and a descriptor has only "
                f"{dim} values; lower it"
            )
        if n <= self.samples_per_image:
            return row.descriptors
        rng = np.random.default_rng([self.seed, row.image_id])
        return row.descriptors[rng.choice(n, self.samples_per_image, replace=False)]

    def too_few(self, n: int) -> str:
        """Return the message for ``n`` descriptors, too few to learn from."""
        return (
            f"fit_pca has {n} descriptors of train images to learn {self.n_components} components from; "
            "it needs at least as many. Check the split and the failures, or lower n_components in [fit_pca]"
        )
