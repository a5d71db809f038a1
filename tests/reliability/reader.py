"""A process that asks, loads and counts until it is told to stop, and says what it has seen.

``python -m tests.reliability.reader STORE STOP``: it ends when there is a file STOP, after two rounds at least.
"""

from __future__ import annotations

import sys
from pathlib import Path

from featurestore import FeatureStore
from featurestore.errors import NotReady


def read(path: Path, stop: Path) -> None:
    """Read, round after round."""
    store, rounds = FeatureStore(path), 0
    while not stop.exists() or rounds < 2:
        status = store.status()
        done = {stage.stage: stage.n_done for stage in status.stages}
        n = store.sql("SELECT count(*) FROM extracted").fetchall()[0][0]
        assert n <= status.n_images, n
        store.sql("SELECT stage, status, sum(n_descriptors) FROM descriptor_counts GROUP BY ALL").fetchall()
        try:
            loaded = len(store.load(stage="extract", allow_missing=True))
        except NotReady:  # before the first partition is there
            loaded = 0
        assert loaded >= n, (loaded, n)
        rounds += 1
        print(done, n, loaded, flush=True)


if __name__ == "__main__":
    read(Path(sys.argv[1]), Path(sys.argv[2]))
