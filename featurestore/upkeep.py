"""The verbs that look after a store: verify, rebuild, merge, prune."""

from __future__ import annotations

from featurestore.lock import exclusive
from featurestore.opened import OpenStore
from featurestore.progress import Silent
from featurestore.rebuild import RebuildReport


class Upkeep(OpenStore):
    """The part of `FeatureStore` that keeps what the store says true."""

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
