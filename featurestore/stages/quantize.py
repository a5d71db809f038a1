"""quantize: each value becomes a whole number of 8 or 4 bits between the collection's bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.config import option
from featurestore.errors import QueryError
from featurestore.rows import Compression, Layout, Row, Status
from featurestore.stages.base import Arrays, FitStage, TransformStage

Bits = Literal[8, 4]
LARGEST = "largest_code"  # an array in models of stages that read codes, where these are not bytes


@dataclass(frozen=True)
class Quantize(TransformStage):
    """Clip to the bounds and round to 256 levels, or to 16."""

    name: ClassVar[str] = "quantize"
    reads: ClassVar[str] = "project"
    model: ClassVar[str | None] = "fit_scale"
    view: ClassVar[str] = "quantized"
    typical_bytes: ClassVar[int] = 160_000
    codes: ClassVar[bool] = True

    keypoints: bool = option(True, "store the keypoints beside the codes")

    bits: Bits = option(8, "of a value: 8, or 4, which are packed two to a byte", late=True)

    compression: Compression = option(
        "zstd", "of descriptors on disk, in partitions made from then on: zstd or none", stored=True
    )

    def layout(self, reads: Layout | None, fit: FitStage | None) -> Layout:
        """Return the columns: uint8 codes, optional keypoints, and the number of clipped values."""
        assert reads is not None
        return Layout(
            dim=reads.dim,
            dtype="uint8",
            keypoints=self.keypoints and reads.keypoints,
            extra=(("n_clipped", pa.int32()),),
            packed=self.bits == 4,
            compression=self.compression,
        )

    @property
    def largest(self) -> int:
        """The code of the upper bound: 255, or 15."""
        return (1 << self.bits) - 1

    def as_recorded(self, parameters: Mapping[str, Any]) -> Quantize:
        """Return the stage with the bits of a recorded variant."""
        bits: Bits = 4 if parameters.get("bits") == 4 else 8
        return replace(self, bits=bits)

    def with_keypoints(self) -> Quantize:
        """Return the stage with keypoints, whatever the recipe says of the stored ones."""
        return replace(self, keypoints=True)

    def decoding(self, model: Arrays) -> Arrays:
        """Return the bounds, and ``largest_code`` () int64 where that is not 255."""
        return model if self.bits == 8 else {**model, LARGEST: np.array(self.largest, np.int64)}

    def floats(self, codes: NDArray[np.uint8], model: Arrays) -> NDArray[np.float32]:
        """Return codes ``(n, dim)`` uint8 as float32 in the space of the PCA.

        Raises:
            QueryError: it is not such an array, or a code is larger than its bits allow.
        """
        low, high = model["low"], model["high"]
        codes = np.asarray(codes)
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != len(low):
            raise QueryError(
                f"dequantize takes codes of shape (n, {len(low)}) and dtype uint8, and this is {codes.shape} "
                f"{codes.dtype}"
            )
        if codes.size and codes.max() > self.largest:
            raise QueryError(
                f"dequantize takes codes of {self.bits} bits, 0 to {self.largest}, and one of these is {codes.max()}; "
                "codes of another variant need its name"
            )
        return dequantize(codes, low=low, high=high, largest=self.largest)

    def apply(self, row: Row, model: Arrays) -> Row:
        """Return the codes ``(n, n_components)`` uint8, from 0 to 255 or to 15."""
        assert row.descriptors is not None
        codes, n_clipped = quantize(row.descriptors, low=model["low"], high=model["high"], largest=self.largest)
        keypoints = row.keypoints if self.keypoints else None
        return Row(row.image_id, row.filename, Status.OK, row.error, codes, keypoints, {"n_clipped": n_clipped})


def quantize(
    values: NDArray[np.float32], *, low: NDArray[np.float32], high: NDArray[np.float32], largest: int = 255
) -> tuple[NDArray[np.uint8], int]:
    """Return ``rint(largest * clip((values - low) / (high - low), 0, 1))`` as uint8, and the number of clipped values.

    Args:
        values: ``(n, dim)`` float32.
        low: ``(dim,)`` float32.
        high: ``(dim,)`` float32.
        largest: the code of ``high``: 255, or 15 for codes of 4 bits.
    """
    span = high - low
    with np.errstate(over="ignore"):  # in a very narrow dimension a value may become infinite; it is clipped
        normalized = values - low
        normalized /= np.where(span == 0, np.float32(1), span)
    n_clipped = int(np.count_nonzero(normalized < 0) + np.count_nonzero(normalized > 1))
    np.clip(normalized, 0, 1, out=normalized)
    normalized *= np.float32(largest)
    return np.rint(normalized, out=normalized).astype(np.uint8), n_clipped


def dequantize(
    codes: NDArray[np.uint8], *, low: NDArray[np.float32], high: NDArray[np.float32], largest: int = 255
) -> NDArray[np.float32]:
    """Return the middle of each code's interval, ``(n, dim)`` float32: ``low + codes / largest * (high - low)``."""
    return low + codes.astype(np.float32) / np.float32(largest) * (high - low)


def largest_of(model: Arrays) -> int:
    """Return the largest code of those that a model decodes, see `Quantize.decoding`."""
    return int(model[LARGEST]) if LARGEST in model else 255
