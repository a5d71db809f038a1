"""The verbs that look after a store: verify, rebuild, merge, prune."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from featurestore.lock import exclusive
from featurestore.opened import OpenStore
from featurestore.progress import Silent, Terminal

if TYPE_CHECKING:
    from featurestore.rebuild import RebuildReport
    from featurestore.verify import VerifyReport


class Upkeep(OpenStore):
    """The part of `FeatureStore` that keeps what the store says true."""

    def verify(self, *, deep: bool = False, repair: bool = False, quiet: bool = True) -> VerifyReport:
        """Compare every file with the catalog, and the catalog with the files. Nothing is changed but by ``repair``.

        Args:
            deep: decode every value too, and read the image files rather than ask for their size.
            repair: drop what is bad, so that `run` makes just that anew; the report has what is left.
            quiet: show no bar.

        Raises:
            StoreBusy: another process is changing the store.
        """
        from featurestore.verify import Problem, verify

        if repair:
            self._refuse_untrusted("verify --repair")
        context = self._context(Silent() if quiet else Terminal())
        with ExitStack() as stack:
            # What a run is about to record would look like an orphan. Whoever can't write can't lock, and needs not.
            if repair or (self._vetted is None and context.root.writable):
                stack.enter_context(exclusive(context.root, "verify"))
            report = verify(context, deep=deep)
            if repair and report.problems:
                from featurestore.repair import repair as mend

                report = mend(context, report)
        told = [Problem("untrusted", self.path.name, line, "ask for the store without it") for line in self.left_out]
        return replace(report, problems=[*told, *report.problems])

    def rebuild(self) -> RebuildReport:
        """Make a lost or damaged catalog anew from ``dataset/``, ``partitions/`` and ``models/``.

        Every file is read and has to hold what it promises; one that does not is left out and reported. Runs are taken
        from the old catalog where that can be read.

        Raises:
            CorruptFile: a dataset file is gone or damaged.
            StoreBusy: another process is changing the store.
        """
        from featurestore.rebuild import rebuild

        self._refuse_untrusted("rebuild")
        context = self._context(Silent())
        with exclusive(context.root, "rebuild"):
            return rebuild(context)
