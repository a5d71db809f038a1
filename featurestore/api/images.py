"""`Images`: a selection of images, made once, to load or export any number of times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from featurestore.api.base import OpenStore
from featurestore.errors import QueryError
from featurestore.progress import Silent, StageSummary, reporter
from featurestore.system import StrPath, located

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.query import Matrix, Selection


class OfVariant(TypedDict, total=False):
    """Keyword arguments of `FeatureStore.select`, without stage and condition."""

    variant: str | None
    allow_missing: bool


class Choice(OfVariant, total=False):
    """Keyword arguments of `FeatureStore.select`."""

    stage: str | None
    where: str | None


def listed(columns: Iterable[str] | None) -> list[str] | None:
    """Return the names of columns as a list, which can be read more than once."""
    from featurestore.query import column_names

    return None if columns is None else column_names(columns)


class Images:
    """Chosen images and their results of one variant of a stage. `FeatureStore.select` returns it.

    Example::

        train = store.select(where="subset = 'train'")
        len(train)
        codes, offsets, image_ids = train.matrix()
        train.export("train.npy")

    The choice is made once. Even if a run or an ingest changes the store, all methods read the same images, of the same
    variant, from the same partitions. If that is no longer possible, since a run has replaced a partition, a prune has
    deleted it, or an ingest has removed an image whose columns are requested, they raise `StoreBusy`; then choose
    again. Pending images stay pending. Only columns of the dataset are read at each load, with their current values.

    It can be pickled, and used in other processes, which open the store at the same path; that of an untrusted store
    can't.
    """

    def __init__(self, store: OpenStore, selection: Selection) -> None:
        """Take a selection; use `FeatureStore.select` to make one."""
        self._store, self._selection = store, selection

    def __len__(self) -> int:
        """Return the number of images, those without descriptors included."""
        return len(self._selection.images)

    def __repr__(self) -> str:
        """Return the number of images, the stage, the variant and the condition."""
        where = "" if self._selection.where is None else f", where {self._selection.where}"
        return f"<Images: {len(self):,} of {self.stage}, variant {self.variant}{where}>"

    @property
    def stage(self) -> str:
        """The stage whose descriptors are read."""
        return self._selection.stage

    @property
    def variant(self) -> str:
        """The variant of the stage."""
        return self._selection.variant

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """The images, ``(n_images,)`` int64, ascending."""
        return self._selection.image_ids

    def load(self, columns: Iterable[str] | None = None, *, keypoints: bool = False) -> pa.Table:
        """Return one row per image, in ``image_id`` order; ``docs/loading.md`` has examples.

        ``descriptors`` is a BLOB of n x dim values, row by row; `FeatureStore.arrays` makes matrices of them. An image
        without descriptors has a row too, and its ``status`` says why: failed, empty, or ``pending`` where the stage
        has not been run.

        Args:
            columns: of the dataset CSV or of the stage's partitions; None is ``image_id, filename, subset, status,
                n_descriptors, descriptors``.
            keypoints: add ``x, y, size, angle, response`` (float32) and ``octave`` (int32), a list per image.

        Raises:
            QueryError: there is no such column, or a column of the dataset is called like one of the keypoints.
            NotReady: the variant keeps no keypoints.
            StoreBusy: the store has changed, and no longer has what was chosen.
            CorruptFile: a partition is damaged.
        """
        from featurestore.query import choose_columns, load_table

        context = self._store._context(Silent())
        return load_table(*choose_columns(context, self._selection, columns, keypoints=keypoints))

    def batches(
        self, rows: int = 256, *, columns: Iterable[str] | None = None, keypoints: bool = False
    ) -> Iterator[pa.Table]:
        """Yield what `load` returns in tables of ``rows`` images, for collections that are larger than memory.

        At most one batch and one row group (about 4 MiB of descriptors) are held. Arguments and errors are those of
        `load`.
        """
        from featurestore.query import batches, check_count, choose_columns

        check_count("rows", "images in a batch", rows)
        context = self._store._context(Silent())
        return batches(*choose_columns(context, self._selection, columns, keypoints=keypoints), rows)

    def matrix(self) -> Matrix:
        """Return ``(codes, offsets, image_ids)``: all descriptors as one contiguous array, and where each image begins.

        ``codes`` is ``(N, dim)`` of the stage's dtype, ``offsets`` ``(n_images + 1,)`` int64, ``image_ids``
        ``(n_images,)`` int64; those of image ``image_ids[i]`` are ``codes[offsets[i]:offsets[i + 1]]``.

        Raises:
            NotEnoughSpace: it does not fit into memory.
            StoreBusy: the store has changed, and no longer has what was chosen.
            CorruptFile: a partition is damaged.
        """
        from featurestore.query import matrix

        return matrix(self._store._context(Silent()), self._selection)

    def export(
        self,
        out: StrPath,
        format: str = "npy",  # noqa: A002 - what the command line calls it
        *,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
        quiet: bool = True,
    ) -> StageSummary:
        """Write the descriptors in the format of another program; ``docs/export.md`` describes each.

        ``out`` appears when it is complete. Writing it takes little memory.

        Args:
            out: the file; of ``npy`` the folder.
            format: ``npz``, ``npy``, ``parquet``, ``parquet-flat``, ``arrow``, ``fvecs``, ``bvecs``, ``colmap`` or
                ``hloc``.
            options: of the format, such as ``{"single_camera": True}`` of ``colmap``.
            force: replace ``out``, and write an npz even if this machine lacks the memory to read it.
            quiet: show nothing.

        Raises:
            OutputError: ``out`` exists already, or can't be written.
            QueryError: no image was chosen, or they do not fit the format.
            StoreBusy: the store has changed, and no longer has what was chosen.
            NotEnoughSpace: the disk is full, or an npz could not be read here.
        """
        from featurestore.exchange import ImageExporter, export_images, find_format

        exporter = find_format(format, options)
        if not isinstance(exporter, ImageExporter):
            raise QueryError(f"{format} holds models and no images; call FeatureStore.export instead")
        context = self._store._context(reporter(quiet=quiet))
        return export_images(context, self._selection, located(out, "an export"), exporter, force=force)
