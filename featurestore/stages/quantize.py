"""quantize: each value becomes one byte between the collection's bounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.config import option
from featurestore.errors import QueryError
from featurestore.rows import Compression, Layout, Row, Status
from featurestore.stages.base import Arrays, FitStage, TransformStage


@dataclass(frozen=True)
class Quantize(TransformStage):
    """Clip to the bounds and round to 256 levels."""

    name: ClassVar[str] = "quantize"
    reads: ClassVar[str] = "project"
    model: ClassVar[str | None] = "fit_scale"
    view: ClassVar[str] = "quantized"
    typical_bytes: ClassVar[int] = 160_000
    codes: ClassVar[bool] = True

    keypoints: bool = option(True, "store the keypoints beside the codes")

    compression: Compression = option(
        "zstd", "of descriptors on disk, in partitions made from then on: zstd or none", stored=True
    )

    def layout(self, reads: Layout | None, fit: FitStage | None) -> Layout:
        """Return the columns: uint8 codes, optional keypoints, and the number of clipped values."""
        assert reads is not None
        keypoints, extra = self.keypoints and reads.keypoints, (("n_clipped", pa.int32()),)
        return Layout(dim=reads.dim, dtype="uint8", keypoints=keypoints, extra=extra, compression=self.compression)

    def with_keypoints(self) -> Quantize:
        """Return the stage with keypoints, whatever the recipe says of the stored ones."""
        return replace(self, keypoints=True)

    def floats(self, codes: NDArray[np.uint8], model: Arrays) -> NDArray[np.float32]:
        """Return codes ``(n, dim)`` uint8 as float32 in the space of the PCA.

        Raises:
            QueryError: it is not such an array.
        """
        low, high = model["low"], model["high"]
        codes = np.asarray(codes)
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != len(low):
            raise QueryError(
                f"dequantize takes codes of shape (n, {len(low)}) and dtype uint8, and this is {codes.shape} "
                f"{codes.dtype}"
            )
        return dequantize(codes, low=low, high=high)

    def apply(self, row: Row, model: Arrays) -> Row:
        """Return the codes ``(n, n_components)`` uint8."""
        assert row.descriptors is not None
        codes, n_clipped = quantize(row.descriptors, low=model["low"], high=model["high"])
        keypoints = row.keypoints if self.keypoints else None
        return Row(row.image_id, row.filename, Status.OK, row.error, codes, keypoints, {"n_clipped": n_clipped})


def quantize(
    values: NDArray[np.float32], *, low: NDArray[np.float32], high: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], int]:
    """Return ``rint(255 * clip((values - low) / (high - low), 0, 1))`` as uint8, and the number of clipped values.

    Args:
        values: ``(n, dim)`` float32.
        low: ``(dim,)`` float32.
        high: ``(dim,)`` float32.
    """
    span = high - low
    with np.errstate(over="ignore"):  # in a very narrow dimension a value may become infinite; it is clipped
        normalized = values - low
        normalized /= np.where(span == 0, np.float32(1), span)
    n_clipped = int(np.count_nonzero(normalized < 0) + np.count_nonzero(normalized > 1))
    np.clip(normalized, 0, 1, out=normalized)
    normalized *= np.float32(255)
    return np.rint(normalized, out=normalized).astype(np.uint8), n_clipped


def dequantize(codes: NDArray[np.uint8], *, low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the middle of each code's interval, ``(n, dim)`` float32: ``low + codes / 255 * (high - low)``."""
    return low + codes.astype(np.float32) / np.float32(255) * (high - low)
