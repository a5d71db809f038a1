"""words: the word and the 64-bit signature of each code, of which an index is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from featurestore.config import option
from featurestore.rows import Compression, Layout, Row, Status
from featurestore.stages.base import Arrays, FitStage, TransformStage
from featurestore.stages.codebook import BITS, assign, signatures
from featurestore.stages.quantize import dequantize, largest_of


@dataclass(frozen=True)
class Words(TransformStage):
    """Assign each code to a word, and keep the signs of what is left."""

    name: ClassVar[str] = "words"
    reads: ClassVar[str] = "quantize"
    model: ClassVar[str | None] = "fit_words"
    view: ClassVar[str] = "indexed"
    typical_bytes: ClassVar[int] = 22_000

    compression: Compression = option(
        "none", "of descriptors on disk, in partitions made from then on: zstd or none", stored=True
    )

    def layout(self, reads: Layout | None, fit: FitStage | None) -> Layout:
        """Return the columns: signatures of 8 bytes as descriptors, and ``word``, a list of an image's words."""
        extra = (("word", pa.list_(pa.uint32())),)
        return Layout(dim=BITS // 8, dtype="uint8", keypoints=False, extra=extra, compression=self.compression)

    def apply(self, row: Row, model: Arrays) -> Row:
        """Return the signatures ``(n, 8)`` uint8, in the order of the codes."""
        assert row.descriptors is not None
        values = dequantize(row.descriptors, low=model["low"], high=model["high"], largest=largest_of(model))
        of = assign(values, model["cells"], model["words"], model["starts"])
        bits = signatures(values, model["words"], of, model["rotation"])
        return Row(
            row.image_id, row.filename, Status.OK, row.error, bits, extra={"word": of.astype(np.uint32).tolist()}
        )
