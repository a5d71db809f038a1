"""extract: an image file becomes SIFT descriptors and keypoints, exactly as OpenCV gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.config import chosen, option
from featurestore.errors import FeatureStoreError, MissingDependency
from featurestore.images import KEEPABLE_SQL, LOSSY_SQL, ImageFile, ImagePath, read_image
from featurestore.rows import (
    EXIF_ORIENTATION,
    OUTSIDE,
    SOURCE_VERSION,
    USABLE,
    USABLE_SQL,
    Compression,
    Layout,
    Row,
    Status,
)
from featurestore.stages.base import ChunkStage, FitStage
from featurestore.stages.extractors import EXTRACTORS, Extractor, Sift
from featurestore.system import BY_THE_CLOCK, CLOCK_OVER, CPU_OVER, lacking, line_of

NUMBER = r"(\d+)"

NO_KEYPOINTS = "no keypoints found"


@dataclass(frozen=True)
class Extract(ChunkStage):
    """Decode an image and compute its descriptors."""

    name: ClassVar[str] = "extract"
    reads: ClassVar[str] = "images"
    view: ClassVar[str] = "extracted"
    typical_bytes: ClassVar[int] = 450_000  # a painting of about a megapixel, with OpenCV's defaults

    extractor: Extractor = chosen(Sift, "sift (uint8) or rootsift (float32)", among=EXTRACTORS)
    max_pixels: int = option(
        50_000_000,
        "policy: larger images are refused; SIFT takes about 240 bytes of memory a pixel",
        policy=True,
        low=1,
    )
    truncated: Literal["refuse", "keep"] = option(
        "refuse", "policy: what to do with a picture of which a part is cut off or damaged: refuse or keep", policy=True
    )
    max_seconds: int = option(
        600, "policy: CPU seconds that an image may take in a worker; 0: no limit", policy=True, low=0, high=10_000_000
    )

    compression: Compression = option(
        "zstd", "of descriptors on disk, in partitions made from then on: zstd or none", stored=True
    )

    def layout(self, reads: Layout | None = None, fit: FitStage | None = None) -> Layout:
        """Return the columns: descriptors, keypoints, and the source's size, bytes, hash, orientation and version."""
        extra = (
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("source_bytes", pa.int64()),
            ("source_hash", pa.string()),
            *OUTSIDE.items(),
        )
        return Layout(dim=self.extractor.dim, dtype=self.extractor.dtype, extra=extra, compression=self.compression)

    def stale_rows(self) -> str | None:
        """Return SQL that is true for rows that the current policies would change; None for imported descriptors.

        A lower ``max_seconds`` changes no rows: the time of an image is not recorded.
        """
        if self.extractor.imported_by:
            return None
        other = KEEPABLE_SQL if self.truncated == "keep" else f"status IN {USABLE_SQL} AND ({LOSSY_SQL})"
        return f"{self._of_another_size()} OR ({other}) OR {self._over_time()}"

    def perhaps_stale_rows(self) -> str | None:
        """Return `stale_rows` without its regular expressions, which take DuckDB 6 ms to compile for each query.

        It is also true for rows that have a decoder's warning or a time limit in their message.
        """
        if self.extractor.imported_by:
            return None
        warned = KEEPABLE_SQL if self.truncated == "keep" else f"status IN {USABLE_SQL} AND error <> '{NO_KEYPOINTS}'"
        limits = [f"contains(error, '{words.partition('{}')[0]}')" for words in (CPU_OVER, CLOCK_OVER)]
        return " OR ".join([self._of_another_size(), f"({warned})", *limits])

    def warned(self, row: Row) -> bool:
        """Return whether a picture was used although the decoder warned."""
        return row.status in USABLE and row.error not in (None, NO_KEYPOINTS)

    def _of_another_size(self) -> str:
        """SQL that is true for rows of images that the limit of pixels decides differently now."""
        return (
            f"(status = '{Status.TOO_LARGE}' AND pixels <= {self.max_pixels}) "
            f"OR (status IN {USABLE_SQL} AND pixels > {self.max_pixels})"
        )

    def _over_time(self) -> str:
        """SQL that is true for rows of images whose time limit is higher now."""
        cpu, clock = (
            f"TRY_CAST(regexp_extract(error, '{words.format(NUMBER)}', 1) AS BIGINT)"
            for words in (f"^{CPU_OVER}$", CLOCK_OVER)
        )
        if not self.max_seconds:
            return f"coalesce({cpu}, {clock}) IS NOT NULL"
        return f"coalesce({cpu} < {self.max_seconds}, {clock} < {BY_THE_CLOCK * self.max_seconds}, false)"

    def extract(self, image_id: int, filename: str, path: ImagePath) -> Row:
        """Return the row of one image file; a file that can't be used becomes a row with a status and a message.

        Raises:
            ReadFailed: the disk or the network failed while the file was read.
            MemoryError, OSError, RuntimeError: the machine lacks something, see `failure.lacking`.
            LossyDescriptors: the extractor promises uint8 and gave something else.
            MissingDependency: it lacks a module.
        """
        image = read_image(path, max_pixels=self.max_pixels, truncated=self.truncated)
        if image.pixels is None:
            return Row(image_id, filename, image.status, image.message, extra=_source(image))
        try:
            ((keypoints, descriptors),) = self.describe([image.pixels])
        except FeatureStoreError:
            raise
        except Exception as error:
            if lacking(error):
                raise
            return Row(image_id, filename, Status.CRASHED, line_of(error), extra=_source(image))
        return _row(image_id, filename, image, keypoints, descriptors)

    def extract_batch(self, images: Sequence[tuple[int, str, ImagePath]]) -> list[Row]:
        """Return the rows of the images of a batch; no row for one that must be tried alone after a shortage.

        Args:
            images: ``(image_id, filename, path)`` of each.

        Raises:
            MemoryError, OSError, RuntimeError: the machine lacks something, see `failure.lacking`.
        """
        try:
            read = [
                (image_id, filename, read_image(path, max_pixels=self.max_pixels, truncated=self.truncated))
                for image_id, filename, path in images
            ]
            sound = [(image_id, filename, image) for image_id, filename, image in read if image.pixels is not None]
            found = self.describe([image.pixels for _, _, image in sound if image.pixels is not None])
        except FeatureStoreError:
            raise
        except Exception as error:
            if lacking(error):
                raise
            return []
        return [_row(*one, *both) for one, both in zip(sound, found, strict=True)]

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return keypoints ``(n,)`` of dtype `KEYPOINT` and descriptors ``(n, dim)`` of each image.

        Raises:
            MissingDependency: the extractor lacks a module.
            PluginError: its result is not of the declared shape and dtype.
        """
        try:
            return self.extractor.describe(images)
        except ImportError as error:  # no image is to blame
            raise MissingDependency(
                f"the extractor {self.extractor.name} can't work: {' '.join(str(error).split())}; install what it "
                "needs where the workers run, then run the same command again"
            ) from error


def _row(image_id: int, filename: str, image: ImageFile, keypoints: NDArray[Any], descriptors: NDArray[Any]) -> Row:
    if not len(descriptors):
        return Row(image_id, filename, Status.EMPTY, image.message or NO_KEYPOINTS, extra=_source(image))
    return Row(image_id, filename, Status.OK, image.message, descriptors, keypoints, _source(image))


def _source(image: ImageFile) -> dict[str, Any]:
    return {
        "width": image.width,
        "height": image.height,
        "source_bytes": image.source_bytes,
        "source_hash": image.source_hash,
        EXIF_ORIENTATION: image.orientation,
        SOURCE_VERSION: image.source_version,
    }
