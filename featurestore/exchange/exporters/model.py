"""model: the PCA and the bounds, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from featurestore.exchange.exporters.base import Arrays, ModelExporter


@dataclass(frozen=True)
class Model(ModelExporter):
    """An npz of ``mean (128,)`` and ``components (64, 128)`` float64, ``low`` and ``high`` ``(64,)`` float32.

    ``low`` and ``high`` are the bounds as quantize used them, with their margin.
    """

    name: ClassVar[str] = "model"
    about: ClassVar[str] = "an npz of mean, components, low and high: all that codes need to be made and read"

    def write_models(self, pca: Arrays, scale: Arrays, path: Path) -> None:
        """Write the file; nothing in it is pickled."""
        with path.open("wb") as file:
            np.savez(file, mean=pca["mean_"], components=pca["components_"], low=scale["low"], high=scale["high"])
