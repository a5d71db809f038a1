"""The jobs of the sandbox, and the program of its child process."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from featurestore.errors import FeatureStoreError
from featurestore.maintenance.sandbox import REFUSED
from featurestore.system import room_on_disk, unreadable


def _salvage(catalog: Path, target: Path) -> None:
    """Read every value of a catalog, and write its runs to a Parquet file."""
    from featurestore.catalog import salvage_runs

    salvage_runs(catalog, target)


def _vet(store: Path, target: Path) -> None:
    """Read every file of a store, and write the catalog of those that pass all checks."""
    from featurestore.catalog import LITTLE, HeldCatalog
    from featurestore.engines import EngineChoice
    from featurestore.maintenance.check_files import Checkers
    from featurestore.maintenance.rebuild import fill
    from featurestore.storage import Root

    root = Root(store)
    with HeldCatalog(root, target, memory=LITTLE) as catalog:
        here = Checkers(EngineChoice(workers=0))
        found = fill(root, catalog, watch=lambda name: print(name, flush=True), checkers=here)
        catalog.finish()
    notes = [*found.notes, *(f"left out: {error}" for error in found.unreadable)]
    target.with_name("notes.json").write_text(json.dumps(notes), encoding="utf-8")


JOBS = {"salvage": _salvage, "vet": _vet}


def main(arguments: Sequence[str]) -> int:
    """Run one job within its memory limit; print an error as JSON, as the last line."""
    import resource

    job, memory, *paths = arguments
    with contextlib.suppress(ValueError):  # the limit is lower already
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with room_on_disk(f"what is read of {paths[0]}"):
            JOBS[job](*map(Path, paths))
    except (FeatureStoreError, MemoryError) as error:
        reason = f"it needs more than {int(memory) >> 30} GiB of memory"
        refused = error if isinstance(error, FeatureStoreError) else unreadable(Path(paths[0]), reason)
        print(json.dumps([type(refused).__name__, str(refused), vars(refused)]))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
