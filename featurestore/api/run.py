"""Verbs that make what is missing: ingest, import_npz, import_colmap, run, plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from featurestore.api.base import OpenStore
from featurestore.catalog import Context, chunk_ids
from featurestore.config import check_given
from featurestore.errors import ConfigError
from featurestore.progress import PROGRESS, Progress, Silent, StageSummary, reporter
from featurestore.rows import FAILED
from featurestore.stages import ChunkStage
from featurestore.system import StrPath, located

if TYPE_CHECKING:
    from featurestore.exchange import ImportReport
    from featurestore.pipeline import IngestReport, Options, Plan


class Running(OpenStore):
    """The verbs of `FeatureStore` that make what is missing."""

    ingested: IngestReport | None = None

    def ingest(
        self,
        dataset: StrPath | None = None,
        *,
        yes: bool | Callable[[str], bool] = False,
        types: Mapping[str, str] | None = None,
        quiet: bool = True,
    ) -> IngestReport:
        """Read the dataset again: new rows become new chunks, known ones get their new columns and subset.

        Images without a row are removed from the views, loading and later fits. Their results are kept, and they come
        back with their rows.

        Args:
            dataset: a file to read instead of the recipe's.
            yes: agree to the removal of more than a tenth of the images, and to other subsets of known images; a
                function is asked.
            types: as in `create`, added to those of the recipe.
            quiet: do not report a wait for another machine's sign of life.

        Raises:
            ConfirmationNeeded: ``yes`` was not given, and more than a tenth of the images have no row, or a changed
                column type moves known images into another subset.
            DatasetError: the CSV, the split or the folder of images can't be used.
        """
        from featurestore.pipeline import take_in

        check_given({"types": dict(types or {})})
        with self._changing("ingest", reporter(quiet=quiet)) as context:
            path = located(dataset, "the dataset") if dataset is not None else context.dataset
            self.ingested = take_in(context, path, _confirming(yes), types=types or {})
        return self.ingested

    def import_npz(self, folder: StrPath, *, opencv: str | None = None, quiet: bool = True) -> ImportReport:
        """Import extract partitions from the notebook's chunk files, ``sift_chunk_*.npz``, without extracting again.

        Filenames are matched with the catalog; a chunk is published when all its images were found. No code in the
        files is run. They hold no keypoints, and later stages need none.

        Args:
            folder: with the files.
            opencv: the version of OpenCV that computed the descriptors, like ``4.10.0``; None: it is not known.
            quiet: show nothing.

        Raises:
            ConfigError: the recipe's descriptors are not those of the notebook, or ``opencv`` is no version.
            DatasetError: there are no files, or they hold something else.
            CorruptFile: a file is damaged, or holds more than arrays. Published chunks stay.
            LossyDescriptors: a value is not a whole number from 0 to 255.
            StoreBusy: another process is changing the store.
        """
        from featurestore.exchange import import_npz

        with self._changing("import-npz", reporter(quiet=quiet)) as context:
            return import_npz(context, located(folder, "the folder of npz files"), opencv=opencv)

    def import_colmap(
        self,
        database: StrPath,
        *,
        normalization: Literal["l1_root", "l2"] | None = None,
        quiet: bool = True,
    ) -> ImportReport:
        """Import keypoints and descriptors from a COLMAP database as partitions of extract.

        Names are matched with the catalog; a chunk is published when all its images have an entry. A store without
        descriptors becomes one of the extractor ``colmap`` by a change of its recipe. ``run`` computes later stages.

        Args:
            database: the file, which COLMAP has closed.
            normalization: of its descriptors, which it does not say; None: what the recipe says, else ``l1_root``,
                which is COLMAP's default, if they look like it.
            quiet: show nothing.

        Raises:
            ConfigError: the store has other descriptors, or these look like another normalization.
            DatasetError: the file is no such database, or its descriptors are not SIFT.
            CorruptFile: it is damaged. Published chunks stay.
            StoreBusy: another process is changing the store.
        """
        from featurestore.exchange import import_colmap, open_database, settle_recipe

        told = reporter(quiet=quiet)
        with (
            open_database(located(database, "the COLMAP database")) as opened,
            self._changing("import-colmap", told) as context,
        ):
            if settle_recipe(context, opened, normalization):
                context = self._context(told).changed_by(context.root)
            return import_colmap(context, opened)

    def run(
        self,
        *stages: str,
        chunks: Collection[int] | None = None,
        workers: int | None = None,
        max_memory: float | None = None,
        engine: str | None = None,
        scheduler: str | None = None,
        retry_failed: bool | Sequence[str] = False,
        check_images: bool = False,
        partial: bool = False,
        update: bool = False,
        yes: bool | Callable[[str], bool] = False,
        ingest: bool = False,
        quiet: bool = True,
        progress: Progress | None = None,
    ) -> list[StageSummary]:
        """Compute what is missing, and return a summary of each stage; an empty list if all was up to date.

        Args:
            stages: the only stages to run; none brings everything up to date.
            chunks: only these chunks, for chunk stages.
            workers: processes; None is one for every core, 0 works in this process.
            max_memory: GB for extract, which bounds how many large pictures are at work at once; None is 90 % of what
                is free. It changes no result.
            engine: where work runs: ``local`` (processes), ``inline`` (this process), ``dask`` or that of a plug-in.
            scheduler: the address of a Dask cluster, or the scheduler's file; None is ``$DASK_SCHEDULER_ADDRESS``.
            retry_failed: recompute the rows of failed images; a list of statuses selects which.
            check_images: read all image files, and recompute the rows of those that were replaced.
            partial: fit a model although chunks are missing, or most images failed.
            update: go on fitting the models with images that they have not seen.
            yes: agree to what an update makes stale, to what ``ingest`` removes, and to extracting whole pruned chunks
                again for some of their images; a function is asked.
            ingest: read the dataset again first, as `ingest` does.
            quiet: print no summary of each stage, and show nothing at all unless ``progress`` is given.
            progress: shown on stderr: ``bar``, ``lines`` (one every half minute), ``json`` (events, a line each) or
                ``none``; None with ``quiet=False`` is a bar in a terminal or a notebook, and lines elsewhere.

        Raises:
            ConfigError: ``max_memory`` is not a positive number, ``workers`` is given with the engine dask, or there
                is no such ``progress``.
            EngineLost: no worker can be had, or all are gone.
            StoreBusy: another process is changing the store.
            ConfirmationNeeded: the caller did not agree.
            NotReady: what a stage reads is incomplete.
            NotEnoughSpace: the disk has less room than the run will need.
            NothingUsable: every image failed, or there is nothing to learn from.
        """
        from featurestore.api.index_file import run_and_index
        from featurestore.catalog import change_note, observed_before
        from featurestore.engines import EngineChoice, all_cores
        from featurestore.maintenance import replaced_images
        from featurestore.pipeline import (
            estimate_costs,
            known_leakage,
            make_forecast,
            refuse_if_too_large,
            refuse_unasked,
        )

        choice = EngineChoice(workers, engine, scheduler)
        if progress is not None and progress not in PROGRESS:
            raise ConfigError(f"progress is one of {', '.join(PROGRESS)}, not {progress!r}")
        cores = all_cores()  # always: scikit-learn imports joblib even without workers
        options = replace(
            self._options(stages, chunks, retry_failed, partial=partial, update=update),
            workers=cores if workers is None else workers,
            max_bytes=_bytes_of(max_memory),
            engine=choice.engine,
            scheduler=choice.scheduler,
            confirm=_confirming(yes),
        )
        told = self.ingested.warnings if self.ingested is not None else ()
        if ingest:
            self.ingest(yes=yes, quiet=quiet)
        with self._changing("run", reporter(quiet=quiet, progress=progress)) as context:
            self._check_chunks(context, options.stages, options.chunks)
            if check_images:
                options = replace(options, replaced=replaced_images(context))
            ahead = make_forecast(context, options)
            with context.catalog.reading() as connection:
                estimates = estimate_costs(connection, ahead.plans)
                before, leakage = observed_before(connection), known_leakage(connection, ahead, options)
            for note in (change_note(context, before), leakage):
                if note is not None and note not in told:
                    context.reporter.say(note)
            refuse_if_too_large(context, estimates, workers=options.workers)
            refuse_unasked(ahead, estimates, options)
            return run_and_index(context, options, ahead.today)

    def plan(
        self,
        *stages: str,
        chunks: Collection[int] | None = None,
        retry_failed: bool | Sequence[str] = False,
        check_images: bool = False,
        partial: bool = False,
        update: bool = False,
        workers: int | None = None,
        sample: bool = False,
    ) -> Plan:
        """Return what `run` would do with the same arguments, and its cost. Nothing is changed.

        With ``sample`` a few images are extracted, in some seconds and in this process, to tell the time of a first
        run; nothing of them is kept.

        Raises:
            NotReady: as `run` would raise it: what a stage reads is incomplete.
        """
        from featurestore.engines import all_cores
        from featurestore.maintenance import replaced_images
        from featurestore.pipeline import estimate_costs, make_forecast, with_sample

        context = self._context(Silent())
        options = self._options(stages, chunks, retry_failed, partial=partial, update=update)
        self._check_chunks(context, options.stages, options.chunks)  # before reading every image file
        if check_images:
            options = replace(options, replaced=replaced_images(context))
        ahead = make_forecast(context, options)
        if ahead.error is not None:
            raise ahead.error
        with context.catalog.reading() as connection:
            estimates = estimate_costs(connection, ahead.plans)
        if not sample:
            return estimates
        return with_sample(context, estimates, ahead.plans, workers=all_cores() if workers is None else workers)

    def configure(self, changes: Mapping[str, Mapping[str, Any]], *, quiet: bool = True) -> None:
        """Change parameters in the recipe. Its comments and all other lines stay; nothing is computed.

        Example::

            store.configure({"project": {"top": 900, "select": "mix"}})
            store.plan()  # what has become stale

        Args:
            changes: values by the stage and the name of the parameter.
            quiet: do not report a wait for another machine's sign of life.

        Raises:
            ConfigError: there is no such stage or parameter, or a value can't be used; the recipe is unchanged.
            StoreBusy: another process is changing the store.
        """
        from featurestore.pipeline import change_recipe

        with self._held("configure", reporter(quiet=quiet)) as context:
            change_recipe(context, changes)

    def _options(
        self,
        stages: Sequence[str],
        chunks: Collection[int] | None,
        retry_failed: bool | Sequence[str],
        *,
        partial: bool,
        update: bool,
    ) -> Options:
        """Return the checked options of `run` and `plan`.

        Raises:
            ConfigError: there is no such stage or status.
        """
        from featurestore.pipeline import Options

        return Options(
            stages=self._known(stages),
            chunks=None if chunks is None else frozenset(chunks),
            retry=self._statuses(retry_failed),
            partial=partial,
            update=update,
        )

    def _known(self, stages: Sequence[str]) -> tuple[str, ...]:
        names = [stage.name for stage in self._context(Silent()).flow]
        for stage in stages:
            if stage not in names:
                raise ConfigError(f"there is no stage {stage!r}; the stages are {' '.join(names)}")
        return tuple(name for name in names if name in stages)

    @staticmethod
    def _statuses(retry_failed: bool | Sequence[str]) -> tuple[str, ...]:
        if isinstance(retry_failed, bool):
            return FAILED if retry_failed else ()
        for status in retry_failed:
            if status not in FAILED:
                raise ConfigError(f"there is no failed status {status!r}; they are {', '.join(FAILED)}")
        return tuple(retry_failed)

    @staticmethod
    def _check_chunks(context: Context, stages: Sequence[str], chunks: Collection[int] | None) -> None:
        if chunks is None:
            return
        fits = [s.name for s in context.flow if s.name in stages and not isinstance(s, ChunkStage)]
        if fits:
            raise ConfigError(f"--chunks is for chunk stages, and {fits[0]} learns from every chunk; leave it out")
        with context.catalog.reading() as connection:
            known = chunk_ids(connection)
        unknown = sorted(set(chunks) - known)
        if unknown:
            raise ConfigError(f"there is no chunk {unknown[0]}; this store has chunks 0 to {max(known, default=-1)}")


def _confirming(yes: bool | Callable[[str], bool]) -> Callable[[str], bool]:
    return yes if callable(yes) else lambda _: bool(yes)


def _bytes_of(gigabytes: float | None) -> int | None:
    if gigabytes is None:
        return None
    if not 0 < gigabytes < math.inf:
        raise ConfigError(f"max_memory is in GB and more than 0, not {gigabytes}")
    return int(gigabytes * 1e9)
