"""Maintenance verbs of `FeatureStore`: verify, rebuild, merge, move, prune."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from featurestore.api.base import OpenStore, store_at
from featurestore.errors import Incompatible
from featurestore.progress import Silent, reporter
from featurestore.storage import unchanged
from featurestore.system import StrPath

if TYPE_CHECKING:
    from featurestore.maintenance import MergeReport, MoveReport, PruneReport, RebuildReport, VerifyReport
    from featurestore.pipeline import ClusterReport


class Upkeep(OpenStore):
    """Maintenance verbs of `FeatureStore`."""

    def verify(
        self,
        *,
        deep: bool = False,
        repair: bool = False,
        workers: int | None = None,
        engine: str | None = None,
        scheduler: str | None = None,
        quiet: bool = True,
    ) -> VerifyReport:
        """Compare every file with the catalog, and the catalog with the files. Only ``repair`` changes anything.

        Args:
            deep: decode every value too, and read the image files rather than ask for their size.
            repair: drop damaged files and wrong records, so that `run` recomputes these; the report lists the rest.
            workers: processes that read files; None is one for every core if there is much to read, 0 none.
            engine: where files are read, as in `run`.
            scheduler: as in `run`.
            quiet: show no progress.

        Raises:
            ConfigError: there is no such engine, or ``workers`` is given with the engine dask.
            EngineLost: no worker can be had, or all are gone.
            WorkerUnfit: workers of a cluster have other versions, or do not see the store.
            StoreBusy: another process is changing the store.
        """
        from featurestore.engines import EngineChoice
        from featurestore.maintenance import Kind, Problem, repair_store, verify_store

        choice = EngineChoice(workers, engine, scheduler)
        if repair:
            self._refuse_untrusted("verify --repair")
            with self._held("verify", reporter(quiet=quiet)) as held:
                report = verify_store(held, deep=deep, choice=choice)
                if report.problems:
                    report = repair_store(held, report)
        else:
            context = self._context(reporter(quiet=quiet))
            # A file that a run is about to record would look like an orphan.
            still = unchanged(context.root, "verify", say=context.reporter.say)
            with nullcontext() if self._vetted is not None else still:
                report = verify_store(context, deep=deep, choice=choice)
        told = [Problem(Kind.UNTRUSTED, self.path.name, line, "ask for the store without it") for line in self.left_out]
        return replace(report, problems=[*told, *report.problems])

    def check_cluster(self, scheduler: str | None = None) -> ClusterReport:
        """Check the workers of a Dask cluster as `run` does, and extract a few images on each. It changes nothing.

        Args:
            scheduler: as in `run`.

        Raises:
            ConfigError: there is no address of a scheduler.
            EngineLost: the scheduler can't be reached, or has no workers.
            MissingDependency: the package distributed is not installed.
            StoreBusy: another process is changing the store.
            WorkerUnfit: workers have other versions, or not the store or the images. All such workers are named.
        """
        from featurestore.pipeline import check_cluster

        with self._held("cluster-check", Silent()) as context:
            return check_cluster(context, scheduler)

    def rebuild(
        self,
        *,
        workers: int | None = None,
        engine: str | None = None,
        scheduler: str | None = None,
        quiet: bool = True,
    ) -> RebuildReport:
        """Rebuild a lost or damaged catalog from ``dataset/``, ``partitions/`` and ``models/``.

        Every file is read and checked; one that fails is left out and reported. Records of runs come from the old
        catalog if it can be read.

        Args:
            workers: as in `verify`.
            engine: as in `verify`.
            scheduler: as in `run`.
            quiet: do not report a wait for another machine's sign of life.

        Raises:
            ConfigError, EngineLost, WorkerUnfit: as in `verify`.
            CorruptFile: a dataset file is gone or damaged.
            StoreBusy: another process is changing the store.
        """
        from featurestore.engines import EngineChoice
        from featurestore.maintenance import rebuild_catalog

        choice = EngineChoice(workers, engine, scheduler)
        with self._held("rebuild", reporter(quiet=quiet)) as context:
            return rebuild_catalog(context, choice=choice)

    def merge(
        self,
        *others: StrPath,
        workers: int | None = None,
        engine: str | None = None,
        scheduler: str | None = None,
        quiet: bool = True,
    ) -> list[MergeReport]:
        """Copy the partitions and models of stores of the same dataset and recipe, made on other machines.

        All files of a store are checked before any is copied; existing partitions and models stay.

        Args:
            others: the stores' folders.
            workers: as in `verify`.
            engine: as in `verify`.
            scheduler: as in `run`.
            quiet: do not report a wait for another machine's sign of life.

        Raises:
            ConfigError, EngineLost, WorkerUnfit: as in `verify`.
            NotAStore: one of the others is not a store.
            Incompatible: another dataset, another recipe, or a model that was fitted on its own; the message says how.
            CorruptFile: a file of another store is damaged.
            StoreBusy: one of the stores is being changed.
            NotEnoughSpace: the disk has no room for the copies.
        """
        from featurestore.engines import EngineChoice
        from featurestore.maintenance import merge_stores

        choice = EngineChoice(workers, engine, scheduler)
        opened = [OpenStore(store_at(other, is_other=True)) for other in others]
        for other in opened:
            if other.path == self.path:
                raise Incompatible(f"{other.path} is the store to merge into; name another one")
        with self._changing("merge", reporter(quiet=quiet)) as context:
            return [merge_stores(context, other._context(Silent()), choice=choice) for other in opened]

    def move(self, partitions: str, *, quiet: bool = True) -> MoveReport:
        """Move the partitions to another place: copy and compare them, name it in the recipe, and delete the old ones.

        A move that was interrupted goes on where it was. See ``docs/object-store.md``.

        Args:
            partitions: an address like ``s3://bucket/prefix``, which no other store may have; or ``""``, the store's
                folder.
            quiet: do not report a wait for another machine's sign of life.

        Raises:
            ConfigError: the address can't be used, or belongs to another store.
            CorruptFile: a partition is damaged; the store stays where it was.
            NotEnoughSpace: the disk has no room for the copies.
            UnreadableFile, NotWritable: a service does not answer, or denies it.
            StoreBusy: another process is changing the store.
        """
        from featurestore.maintenance import move_partitions
        from featurestore.storage import partitions_at

        target = partitions_at(partitions)
        with self._changing("move", reporter(quiet=quiet)) as context:
            return move_partitions(context, target)

    def prune(self, keep: str | Sequence[str] = (), *, dry_run: bool = False, quiet: bool = True) -> PruneReport:
        """Delete old variants, files without a record and, on request, partitions upstream of those to keep.

        An old variant is deleted chunk by chunk, where the current variant exists. Partitions upstream of ``keep``
        keep their rows without descriptors and keypoints, so that the chunks stay done.

        Args:
            keep: stages whose partitions suffice, like ``"quantize"``; with none, the current variants stay whole.
            dry_run: change nothing; report what would be freed, and the cost to recompute it.
            quiet: do not report a wait for another machine's sign of life.

        Raises:
            ConfigError: ``keep`` names a stage without partitions.
            StoreBusy: another process is changing the store.
        """
        from featurestore.maintenance import plan_prune, prune_store

        names = [keep] if isinstance(keep, str) else list(keep)
        if dry_run:
            return plan_prune(self._context(reporter(quiet=quiet)), keep=names)
        with self._held("prune", reporter(quiet=quiet)) as context:
            context.catalog.migrate()
            return prune_store(context, keep=names)
