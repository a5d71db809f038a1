"""Base classes of export formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.config import build
from featurestore.rows import Row, blob_bytes
from featurestore.stages import EXTRACTORS, Extractor

if TYPE_CHECKING:  # workers import this module for a plug-in beside an exporter, and need no database
    from featurestore.catalog import Context
    from featurestore.query import Selection

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """The images to write, and the callback for progress."""

    selection: Selection
    counts: NDArray[np.int64]  # descriptors of each image
    advance: Callable[[int], None]
    context: Context  # of the store

    @property
    def dim(self) -> int:
        """The number of values in a descriptor."""
        return self.selection.layout.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values, little-endian."""
        return np.dtype(self.selection.layout.dtype).newbyteorder("<")

    @property
    def n_descriptors(self) -> int:
        """The number of descriptors of all images."""
        return int(self.counts.sum())

    @property
    def n_bytes(self) -> int:
        """The bytes of all descriptors."""
        return self.n_descriptors * self.dim * self.dtype.itemsize

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the images' rows in ``image_id`` order, about 4 MB of descriptors at a time."""
        from featurestore.query import iter_tables

        for table in iter_tables(self.selection, columns):
            yield table
            self.advance(len(table))

    def rows(self) -> Iterator[Row]:
        """Yield the images' rows with their keypoints, in ``image_id`` order; a row group is in memory at a time."""
        from featurestore.query import iter_rows

        for row in iter_rows(self.selection, keypoints=True):
            yield row
            self.advance(1)

    def extractor(self) -> Extractor:
        """Return the extractor that made the descriptors, for those of extract.

        Raises:
            ConfigError: a package brought it that is not installed.
        """
        from featurestore.catalog import find_variant

        with self.context.catalog.reading() as connection:
            recorded = find_variant(connection, self.selection.variant)
        assert recorded is not None, "partitions name a variant that has a row"
        kind = EXTRACTORS.find(recorded.parameters["extractor"])
        table = kind.table or kind.name
        return build(kind, recorded.parameters[table], where=f"extract.{table}")

    def matrices(self) -> Iterator[NDArray[Any]]:
        """Yield the descriptors of all images in their order, ``(n, dim)``, about 4 MB at a time."""
        for table in self.tables(["descriptors"]):
            for blobs in table["descriptors"].chunks:
                yield blob_bytes(blobs)[1].view(self.dtype).reshape(-1, self.dim)


@dataclass(frozen=True)
class Exporter:
    """A format. Its fields are its options."""

    name: ClassVar[str]
    about: ClassVar[str]  # one line
    members: ClassVar[tuple[str, ...]] = ()  # the files of a format that is a folder


@dataclass(frozen=True)
class ImageExporter(Exporter):
    """A format that holds descriptors of images."""

    stage: ClassVar[str | None] = None  # the only stage whose descriptors it holds; None: all, and the codes by default
    dataset_columns: ClassVar[bool] = False  # whether it holds the columns of the dataset CSV

    def check(self, job: Job, *, force: bool) -> None:
        """Check that the format can hold the chosen images.

        Raises:
            QueryError: it can't.
            NotEnoughSpace: reading it would need more memory than is free, and ``force`` was not given.
        """

    def write(self, job: Job, path: Path) -> None:
        """Write the file, or the members of the folder, at ``path``."""
        raise NotImplementedError(f"{type(self).__name__}.write")


@dataclass(frozen=True)
class ModelExporter(Exporter):
    """A format for models."""

    def write_models(self, pca: Arrays, scale: Arrays, path: Path) -> None:
        """Write the file at ``path``.

        Args:
            pca: the arrays of a model of fit_pca.
            scale: the arrays of the model of fit_scale that was made with it, as `Quantize.decoding` returns them.
            path: of the file.
        """
        raise NotImplementedError(f"{type(self).__name__}.write_models")
