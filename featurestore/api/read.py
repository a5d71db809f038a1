"""Reading verbs of `FeatureStore`. None of them changes the store or delays a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from featurestore.api.base import OpenStore
from featurestore.api.images import Choice, Images, OfVariant, listed
from featurestore.errors import FeatureStoreError, QueryError, StoreBusy
from featurestore.progress import Silent, StageSummary, reporter
from featurestore.query import Status
from featurestore.rows import KEYPOINT, KEYPOINT_COLUMNS, Layout, Row
from featurestore.system import StrPath, located, shown

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.query import Answer, Ask, ImageInfo, Lookup, Matrix, QueryResult

T = TypeVar("T")


class Reading(OpenStore):
    """Reading verbs of `FeatureStore`."""

    _lookup: Lookup | None = None  # cached between calls of `descriptors` and its like

    def __repr__(self) -> str:
        """Return the path, the number of images, and what is unfinished; or why that can't be told."""
        from featurestore.query import outline

        try:
            about = outline(self._context(Silent()))
        except (FeatureStoreError, OSError) as error:
            about = f"can't be read: {' '.join(str(error).split())}"
        return f"<{type(self).__name__} {shown(self.path)}: {about}>"

    def _repr_html_(self) -> str:
        return self.status()._repr_html_()

    def status(self) -> Status:
        """Return the progress of every stage, and what is missing and why."""
        from featurestore.query import store_status

        return store_status(self._context(Silent()))

    def sql(self, query: str, /, **parameters: Any) -> QueryResult:
        """Run an SQL query on the store; ``docs/views.md`` lists the views.

        Args:
            query: one SQL query.
            parameters: the values of ``$artist`` and the like in it, by name: text, numbers, dates, lists or None.

        Raises:
            QueryError: it is not a single query, its parameters are others, DuckDB refused it, or the result does not
                fit into memory.
        """
        from featurestore.query import run_query

        return run_query(self._context(Silent()), query, parameters)

    @contextmanager
    def answer(
        self, query: str, parameters: Mapping[str, Any] | None = None, *, as_text: bool = False
    ) -> Iterator[Answer]:
        """Run an SQL query and read its result batch by batch, for results larger than memory.

        ``parameters`` are those of `sql`; ``as_text`` casts every value but BLOBs to DuckDB's text, for display.

        Example::

            with store.answer("FROM quantized_descriptors") as answer:
                for batch in answer.batches:  # pyarrow.RecordBatch, of answer.schema
                    ...

        Raises:
            QueryError: it is not a single query, or DuckDB refused it.
        """
        from featurestore.query import stream_query

        with stream_query(self._context(Silent()), query, parameters, as_text=as_text) as answer:
            yield answer

    @contextmanager
    def snapshot(self) -> Iterator[Ask]:
        """Run many SQL queries on one state of the catalog, for a fraction of the time that `sql` takes for each.

        What is yielded takes the arguments of `sql`, and raises its errors. A query that names a view over partitions,
        ``duplicates`` or the list of views is run as `sql` runs it, on the state of its own moment.

        Example::

            with store.snapshot() as sql:
                counts = sql("FROM image_counts").df()
                missing = sql("FROM missing").df()  # of the same moment, whatever a run does
        """
        from featurestore.query import query_snapshot

        with query_snapshot(self._context(Silent())) as ask:
            yield ask

    def select(
        self,
        *,
        stage: str | None = None,
        where: str | None = None,
        variant: str | None = None,
        allow_missing: bool = False,
    ) -> Images:
        """Select images to load or export; every method that reads many images takes these arguments.

        Args:
            stage: whose descriptors: ``extract``, ``project``, ``quantize`` or those of a plug-in; None is the stage
                that makes the codes, ``quantize`` if the recipe names no other.
            where: SQL over the columns of the view ``images``, like ``"subset = 'train' AND style = 'Baroque'"``; it
                may ask the other views in a subquery. None chooses every image.
            variant: another variant of the stage than the current one; a prefix of its name is enough.
            allow_missing: include images on which the stage has not been run. Their status is ``pending``.

        Raises:
            NotReady: the stage has not been run on chosen images; the message names the chunks and why.
            QueryError: ``where``, the stage or the variant can't be used.
        """
        return self._select(stage=stage, where=where, variant=variant, allow_missing=allow_missing)

    def _select(self, columns: Sequence[str] | None = None, **choice: Unpack[Choice]) -> Images:
        """Return what `select` chooses, with the dataset's columns among ``columns`` read at once."""
        from featurestore.query import select_images

        return Images(self, select_images(self._context(Silent()), columns=columns or (), **choice))

    def load(
        self,
        stage: str | None = None,
        where: str | None = None,
        *,
        columns: Iterable[str] | None = None,
        keypoints: bool = False,
        **choice: Unpack[OfVariant],
    ) -> pa.Table:
        """Return one row per image: `Images.load` of what `select` chooses."""
        names = listed(columns)
        return self._select(names, stage=stage, where=where, **choice).load(names, keypoints=keypoints)

    def iter_batches(
        self,
        rows: int = 256,
        *,
        columns: Iterable[str] | None = None,
        keypoints: bool = False,
        **choice: Unpack[Choice],
    ) -> Iterator[pa.Table]:
        """Yield tables of ``rows`` images: `Images.batches` of what `select` chooses."""
        names = listed(columns)
        return self._select(names, **choice).batches(rows, columns=names, keypoints=keypoints)

    def matrix(self, stage: str | None = None, where: str | None = None, **choice: Unpack[OfVariant]) -> Matrix:
        """Return all descriptors as one array: `Images.matrix` of what `select` chooses."""
        return self.select(stage=stage, where=where, **choice).matrix()

    @staticmethod
    def arrays(table: pa.Table) -> list[NDArray[Any] | None]:
        """Return the descriptors of each row of a loaded table as an ``(n, dim)`` array, without a copy.

        An image without descriptors is None.
        """
        from featurestore.query import arrays

        return arrays(table)

    def descriptors(self, filename: str, stage: str | None = None, *, variant: str | None = None) -> NDArray[Any]:
        """Return the descriptors of one image, ``(n, dim)`` of the stage's dtype; ``n`` is 0 for one that has none.

        Raises:
            QueryError: there is no such image; the message has the most similar name.
            NotReady: the stage has not been run on it.
            NothingUsable: the image file could not be used; the message says why.
        """
        row, layout = self._row(filename, stage, variant, ["descriptors"])
        if row.descriptors is None:
            return np.empty((0, layout.dim), layout.dtype)
        return row.descriptors

    def keypoints(self, filename: str, stage: str | None = None, *, variant: str | None = None) -> NDArray[Any]:
        """Return the keypoints of one image, in the order of its descriptors.

        ``(n,)`` of a structured dtype: ``x, y, size, response`` float32 in pixels, ``angle`` float32 in degrees,
        ``octave`` int32, as in OpenCV. Errors are those of `descriptors`.
        """
        row, _ = self._row(filename, stage, variant, KEYPOINT_COLUMNS)
        return np.empty(0, KEYPOINT) if row.keypoints is None else row.keypoints

    def info(self, filename: str) -> ImageInfo:
        """Return everything about one image: its dataset row, the result of each stage, the models trained on it.

        Raises:
            QueryError: there is no such image; the message has the most similar name.
        """
        from featurestore.query import image_info

        return image_info(self._context(Silent()), filename)

    def model(self, stage: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of the current model of a fit stage, by name.

        Example::

            model = store.model("fit_pca")
            model["components_"], model["mean_"]  # (n_components, 128) and (128,) float64

        Raises:
            QueryError: there is no such stage, or it fits no model.
            NotReady: it has not been fitted yet.
        """
        from featurestore.query import model_arrays

        return model_arrays(self._context(Silent()), stage)

    def encode(
        self, image: StrPath | NDArray[Any], *, keypoints: bool = False
    ) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
        """Return the codes of a new image, ``(n, dim)`` uint8: those that a run would store.

        Args:
            image: the path of a file, or pixels ``(height, width, 3)`` uint8 in BGR order, as of ``cv2.imread``.
            keypoints: return ``(codes, keypoints)``.

        Raises:
            NotReady: a model has not been fitted yet.
            NothingUsable: the file can't be used; the message says why.
        """
        from featurestore.query import codes_and_keypoints

        encoder = self._current_lookup().encoder
        found = codes_and_keypoints(encoder.encode(image), encoder.layout)
        return found if keypoints else found[0]

    def extracted(self, image: StrPath | NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the descriptors and keypoints of a new image as ``extract`` would store them.

        Args:
            image: as in `encode`.

        Returns:
            ``(n, 128)`` uint8 with the extractor SIFT, and ``(n,)`` as of `keypoints`.

        Raises:
            NothingUsable: the file can't be used; the message says why.
        """
        from featurestore.query import codes_and_keypoints, extracting

        encoder = extracting(self._current_lookup().context)
        return codes_and_keypoints(encoder.extracted(image), encoder.layout)

    def parameters(self, stage: str) -> dict[str, Any]:
        """Return the parameters of a table of the recipe, by name, with the defaults of those that it does not set.

        Args:
            stage: a stage, or ``store``.

        Raises:
            QueryError: there is no such stage.
        """
        context = self._context(Silent())
        tables: dict[str, Any] = {"store": context.settings, **{one.name: one for one in context.flow}}
        if stage not in tables:
            raise QueryError(f"there is no stage {stage!r} in the recipe; its tables are {', '.join(tables)}")
        return asdict(tables[stage])

    def dequantize(self, codes: NDArray[np.uint8], *, variant: str | None = None) -> NDArray[np.float32]:
        """Return codes ``(n, dim)`` uint8 as float32 in the space of the PCA: the middle of each code's interval.

        Args:
            codes: of quantize or `encode`.
            variant: of quantize, if the codes are not of the current one.

        Raises:
            NotReady: there is no model of fit_scale yet.
            QueryError: the codes have another shape or dtype, or there is no such variant.
        """
        return self._current_lookup().decoder(variant).floats(codes)

    def export(
        self,
        out: StrPath,
        format: str = "npy",  # noqa: A002 - what the command line calls it
        *,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
        quiet: bool = True,
        **choice: Unpack[Choice],
    ) -> StageSummary:
        """Write descriptors or models in a format that others read; ``docs/export.md`` describes each.

        Descriptors are written by `Images.export` of what `select` chooses. ``model`` and ``joblib`` hold the models
        of a variant of quantize, and no images: ``where`` and ``stage`` do not go with them. ``colmap`` and
        ``hloc`` take the descriptors of extract where no stage is named.

        Raises:
            OutputError: ``out`` exists already, or can't be written.
            QueryError: the choice can't be evaluated, has no image, or does not fit the format.
            NotReady: chosen images lack the stage, or a model has not been fitted yet.
            NotEnoughSpace: the disk is full, or an npz could not be read here.
        """
        from featurestore.exchange import ImageExporter, ModelExporter, export_models, find_format

        exporter = find_format(format, options)
        if not isinstance(exporter, ModelExporter):
            if isinstance(exporter, ImageExporter) and choice.get("stage") is None:
                choice["stage"] = exporter.stage
            return self.select(**choice).export(out, format, options=options, force=force, quiet=quiet)
        if choice.get("where") is not None or choice.get("stage") is not None:
            raise QueryError(f"{format} holds models and no images; leave out where and stage")
        context = self._context(reporter(quiet=quiet))
        return export_models(context, located(out, "an export"), exporter, choice.get("variant"), force=force)

    def _row(self, filename: str, stage: str | None, variant: str | None, columns: Sequence[str]) -> tuple[Row, Layout]:
        return self._looked_up(lambda lookup: lookup.row(filename, stage=stage, variant=variant, columns=columns))

    def _looked_up(self, ask: Callable[[Lookup], T]) -> T:
        """Return the answer of a question to the store, asked once more if a run has replaced a partition meanwhile."""
        lookup = self._current_lookup()
        try:
            return ask(lookup)
        except StoreBusy:  # after the catalog was read
            return ask(self._current_lookup(other_than=lookup))

    def _current_lookup(self, *, other_than: Lookup | None = None) -> Lookup:
        from featurestore.query import Lookup, signature

        now = signature(self.path)
        found = self._lookup  # another thread may replace it at any time
        if found is None or found is other_than or found.signature != now:
            found = self._lookup = Lookup(self._context(Silent()), now)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Drop open files: a store is pickled as its path."""
        return {**self.__dict__, "_lookup": None, "_catalog": None}
