"""The features of a COLMAP database become extract partitions, keypoints and all."""

from __future__ import annotations

import posixpath
import shutil
import time
from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.catalog import (
    Context,
    Step,
    Work,
    WritableContext,
    count_by_variant,
    make_plan,
    match_filenames,
    partition_manifest,
    recorded_run,
    resolve,
)
from featurestore.errors import ConfigError
from featurestore.exchange.file_grid import NotRead, size_and_orientation
from featurestore.exchange.importers.colmap_database import ColmapDatabase, Features, NamedImage
from featurestore.exchange.importers.report import EXAMPLES, ImportReport, make_report
from featurestore.exchange.importers.rows_in_order import RowsInOrder
from featurestore.exchange.orientation import angle_from_file, from_file, sides_swapped
from featurestore.images import UPRIGHT
from featurestore.progress import StageSummary
from featurestore.rows import EXIF_ORIENTATION, KEYPOINT, Row, Status
from featurestore.stages import Colmap, Extract
from featurestore.storage import CONFIG, Origin
from featurestore.system import shown

VERB = "import-colmap"
# The median of the sum of a descriptor's 128 values, of norm 512: 4,050 to 4,620 of L1_ROOT and 3,060 to 3,250 of L2,
# of COLMAP and OpenCV alike.
SUM_BETWEEN = 3650
JUDGED_IMAGES, JUDGED = 50, 1000  # images and descriptors that are looked at
FEWEST = 100  # that tell something


def settle_recipe(context: WritableContext, database: ColmapDatabase, normalization: str | None) -> bool:
    """Make a recipe without results one of COLMAP's descriptors; return whether it was changed.

    Args:
        context: of the store.
        database: that is imported.
        normalization: that was declared; None: what the recipe says, else ``l1_root``.

    Raises:
        ConfigError: the store has other descriptors, or these look like another normalization, and none was declared.
    """
    (stage,) = (stage for stage in context.flow if isinstance(stage, Extract))
    extractor, store = stage.extractor, context.root.path
    if isinstance(extractor, Colmap):
        if normalization not in (None, extractor.normalization):
            raise ConfigError(
                f"featurestore.toml says normalization = {extractor.normalization!r} in [extract.colmap], and not "
                f"{normalization!r}; change it there: what is imported from then on is a variant of its own"
            )
        _judge(context, database, extractor.normalization, declared=True)
        return False
    with context.catalog.reading() as connection:
        if count_by_variant(connection, Extract.name):
            raise ConfigError(
                f"{store} has descriptors of {extractor.name}, and a store holds those of one extractor at a time; "
                'import into a store of its own, or say extractor = "colmap" in [extract] of featurestore.toml: what '
                "there is will be kept"
            )
    _judge(context, database, normalization or Colmap.normalization, declared=normalization is not None)
    _write_recipe(context, normalization or Colmap.normalization)
    return True


def _judge(context: Context, database: ColmapDatabase, normalization: str, *, declared: bool) -> None:
    """Compare some descriptors with the normalization; a warning suffices for one that was declared."""
    found = [database.features(image).descriptors[:JUDGED] for image in islice(database.images(), JUDGED_IMAGES)]
    some = np.concatenate([np.empty((0, Colmap.dim), np.uint8), *found])[: JUDGED * JUDGED_IMAGES]
    if len(some) < FEWEST:
        return
    likely = "l1_root" if np.median(some.sum(axis=1, dtype=np.int64)) > SUM_BETWEEN else "l2"
    if likely == normalization:
        return
    if declared:
        context.reporter.say(f"the descriptors are declared as {normalization}, and look like {likely}")
        return
    raise ConfigError(
        f"the descriptors look like {likely}, and COLMAP's default is {normalization}; declare what they are with "
        f"--normalization {likely} or --normalization {normalization}"
    )


def _write_recipe(context: WritableContext, normalization: str) -> None:
    import tomlkit

    path = context.root.local(CONFIG)
    document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    extract = document.setdefault(Extract.name, tomlkit.table())
    extract["extractor"] = Colmap.name
    extract.setdefault(Colmap.name, tomlkit.table())["normalization"] = normalization
    with context.root.publishing(CONFIG) as temporary:
        temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
        shutil.copymode(path, temporary)


def import_colmap(context: WritableContext, database: ColmapDatabase) -> ImportReport:
    """Import extract partitions; a chunk is published when the database has an entry for each of its images.

    An image that has left the dataset needs none; without one, its row has no descriptors.

    Args:
        context: of the store, whose recipe `settle_recipe` has settled.
        database: to read.

    Raises:
        CorruptFile: the database is damaged. Chunks that were published stay.
        DatasetError: its descriptors are not SIFT.
        NotEnoughSpace: the disk is full.
    """
    with context.catalog.reading() as connection:
        # An image that came back after its chunk was imported without it is unknown; what was pruned can't be computed.
        steps = resolve(connection, context.flow)
        plan = make_plan(connection, steps, retry=[Status.UNKNOWN], asked=[Extract.name])[Extract.name]
    images = database.images()
    names = pa.table(
        {
            "file": pa.array(np.zeros(len(images), np.int32)),
            "position": pa.array(np.arange(len(images))),
            "filename": pa.array([posixpath.normpath(image.name) for image in images], pa.string()),
        }
    )
    with context.catalog.reading() as connection:
        matched, chunks = match_filenames(connection, names, examples=EXAMPLES)
    known, first = matched["image_id"].is_valid().to_numpy(), matched["first"].to_numpy()
    ids = matched["image_id"].to_pylist()
    found = {ids[i]: images[i] for i in np.flatnonzero(first)}
    missing = {
        work.chunk_id: replace(work, redo=None)  # a chunk is imported as a whole
        for work in plan.todo
        if work.redo is None or not work.redo.isdisjoint(found)
    }
    whole = {chunk.chunk_id: chunk.removed for chunk in chunks if not chunk.n_missing}
    work = [work for chunk_id, work in missing.items() if chunk_id in whole]
    statuses: Counter[str] = Counter()
    if work:
        statuses = _Import(context, plan.step, database, found, whole).run(work)
    return make_report(
        chunks,
        missing,
        n_chunks=plan.n_chunks,
        n_files=1,
        statuses=statuses,
        unmatched=[shown(images[i].name) for i in np.flatnonzero(~known)],
        n_repeated=int(np.count_nonzero(known & ~first)),
    )


class _Import:
    """The import in progress: reads the features of one image at a time, and publishes chunk by chunk."""

    def __init__(
        self,
        context: WritableContext,
        step: Step,
        database: ColmapDatabase,
        found: dict[int, NamedImage],
        removed: dict[int, dict[int, str]],
    ) -> None:
        """Take the images that were found, by ``image_id``, and by chunk those that need not be."""
        self._context, self._step, self._database, self._found = context, step, database, found
        self._removed = removed
        self._statuses: Counter[str] = Counter()
        self._n_without_file = 0
        self._counts: dict[str, Any] = {"n_chunks": 0, "n_images": 0, "n_descriptors": 0, "n_bytes": 0}

    def run(self, works: list[Work]) -> Counter[str]:
        """Publish these chunks, and return the images by status."""
        started, summary, reporter = time.perf_counter(), None, self._context.reporter
        reporter.begin(VERB, sum(work.n_images for work in works))
        try:
            with recorded_run(self._context, self._step, workers=1, verb=VERB) as record:
                try:
                    for work in works:
                        self._publish(work)
                finally:
                    record.update(self._counts)
            seconds = time.perf_counter() - started
            summary = StageSummary(VERB, **self._counts, statuses=self._statuses, seconds=seconds)
        finally:
            reporter.end(summary)
        if self._n_without_file:
            reporter.say(
                f"{self._n_without_file:,} of the image files are not in {self._context.images}: their keypoints are "
                "taken as those of pictures that EXIF does not turn"
            )
        return self._statuses

    def _publish(self, work: Work) -> None:
        stage = self._step.stage
        assert isinstance(stage, Extract)
        manifest = partition_manifest(self._step, work, origin=Origin.COLMAP)
        chunk = RowsInOrder(self._context.root, work, layout=stage.layout(), manifest=manifest)
        try:
            chunk.add_removed(removed := self._removed[work.chunk_id])
            for image_id in work.wanted:
                if image_id not in removed:
                    chunk.add(self._row(image_id, self._found[image_id]))
                self._context.reporter.advance(1)
            chunk.finish()
        except BaseException:
            chunk.abandon()
            raise
        published = chunk.publish(self._context.catalog)
        self._statuses += chunk.statuses
        self._counts["n_chunks"] += 1
        for name in ("n_images", "n_descriptors", "n_bytes"):
            self._counts[name] += getattr(published, name)

    def _row(self, image_id: int, image: NamedImage) -> Row:
        filename, features = posixpath.normpath(image.name), self._database.features(image)
        width, height = self._database.size(image)
        orientation = self._orientation(filename)
        size = (height, width) if sides_swapped(orientation) else (width, height)
        extra = {"width": size[0], "height": size[1], "source_bytes": None, "source_hash": None}
        extra[EXIF_ORIENTATION] = orientation  # by which these keypoints were turned, whether or not there was a file
        if not len(features.descriptors):
            return Row(image_id, filename, Status.EMPTY, "no keypoints found", extra=extra)
        keypoints = _keypoints(features, size, orientation)
        return Row(image_id, filename, Status.OK, None, features.descriptors, keypoints, extra)

    def _orientation(self, filename: str) -> int:
        """Return the EXIF orientation of an image file; upright where there is none."""
        try:
            return size_and_orientation(self._context, filename)[1]
        except NotRead:
            self._n_without_file += 1
            return UPRIGHT


def _keypoints(features: Features, size: tuple[int, int], orientation: int) -> NDArray[Any]:
    """Return keypoints on the picture as extract sees it, turned by EXIF; 0, 0 is the centre of the first pixel.

    COLMAP keeps neither response nor octave: they are 0.
    """
    found = np.zeros(len(features.points), KEYPOINT)
    found["x"], found["y"] = (from_file(features.points.astype(np.float64), size, orientation) - 0.5).T
    found["size"] = 2 * features.scale
    found["angle"] = np.mod(angle_from_file(np.degrees(features.angle.astype(np.float64)), orientation), 360)
    return found
