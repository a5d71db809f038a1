"""Descriptors that COLMAP made: they are imported, and can't be computed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from featurestore.config import option
from featurestore.errors import QueryError
from featurestore.stages.extractors.base import Extractor

Normalization = Literal["l1_root", "l2"]


@dataclass(frozen=True)
class Colmap(Extractor):
    """SIFT of a COLMAP database, bytes of norm 512. The database does not say how COLMAP normalized it."""

    name: ClassVar[str] = "colmap"
    dim: ClassVar[int] = 128
    dtype: ClassVar[str] = "uint8"
    imported_by: ClassVar[str] = "import-colmap"

    normalization: Normalization = option(
        "l1_root", "how COLMAP normalized the descriptors: l1_root (RootSIFT, its default) or l2 (plain SIFT)"
    )

    def detect_and_compute(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Refuse a picture.

        Raises:
            QueryError: always.
        """
        raise QueryError(
            "the descriptors of this store were made by COLMAP and imported, so that it can't compute those of a "
            "picture; name an image of the store"
        )
