"""model: the PCA and the bounds, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from featurestore.exchange.exporters.base import Arrays, ModelExporter


@dataclass(frozen=True)
class Model(ModelExporter):
    """An npz of ``mean (128,)`` and ``components (64, 128)`` float64, ``low`` and ``high`` ``(64,)`` float32.

    ``low`` and ``high`` are the bounds as quantize used them, with their margin. For codes of 4 bits ``largest_code``
    ``()`` int64 is 15, in place of the 255 of bytes.
    """

    name: ClassVar[str] = "model"
    about: ClassVar[str] = "an npz of mean, components, low and high: all that codes need to be made and read"

    def write_models(self, pca: Arrays, scale: Arrays, path: Path) -> None:
        """Write the file; nothing in it is pickled."""
        of_codes: dict[str, Any] = {name: scale[name] for name in ("low", "high", "largest_code") if name in scale}
        with path.open("wb") as file:
            np.savez(file, mean=pca["mean_"], components=pca["components_"], **of_codes)
