"""joblib: the fitted IncrementalPCA as a pickle, for code that loads the notebook's ``ipca_final.pkl``.

Write only: this package loads no pickle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from featurestore.exchange.exporters.base import Arrays, ModelExporter
from featurestore.stages import ESTIMATOR


@dataclass(frozen=True)
class Joblib(ModelExporter):
    """scikit-learn's estimator with all that ``transform`` and ``partial_fit`` need.

    It has no ``noise_variance_``: scikit-learn computes that from the last batch alone, and a store does not keep it.
    """

    name: ClassVar[str] = "joblib"
    about: ClassVar[str] = "the fitted IncrementalPCA as a joblib pickle, like the notebook's ipca_final.pkl"

    def write_models(self, pca: Arrays, scale: Arrays, path: Path) -> None:
        """Write the file, with the scikit-learn that is installed; another version may refuse to read it."""
        import joblib
        from sklearn.decomposition import IncrementalPCA

        estimator = IncrementalPCA(n_components=len(pca["components_"]))
        for name in ESTIMATOR:
            value = pca[name]
            setattr(estimator, name, value[()] if value.ndim == 0 else value)
        n = int(pca["n_samples_seen_"])
        estimator.n_features_in_ = pca["components_"].shape[1]
        squared = pca["singular_values_"] ** 2
        estimator.explained_variance_ = squared / (n - 1)
        estimator.explained_variance_ratio_ = squared / np.sum(pca["var_"] * n)
        with path.open("wb") as file:
            joblib.dump(estimator, file)
