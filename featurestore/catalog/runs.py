"""Records of runs: stage, host, versions of libraries, outcome; and the manifests of partitions."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import Any

from duckdb import DuckDBPyConnection

from featurestore._version import __version__
from featurestore.catalog.context import WritableContext
from featurestore.catalog.plan import Work
from featurestore.catalog.statements import insert_row, query_pairs, update_rows
from featurestore.catalog.steps import Step
from featurestore.catalog.table_rows import Outcome
from featurestore.stages import Extract
from featurestore.storage import FORMAT, PLAIN, Origin

LOG = logging.getLogger("featurestore.catalog")

# Libraries that a result can depend on. OpenCV comes in four packages with the same module.
LIBRARIES = (
    ("numpy", "scikit-learn", "pillow", "pyarrow"),
    ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
)


UNKNOWN = "unknown"  # the OpenCV version of imported descriptors


def utc_now() -> datetime:
    """Return the current time as the catalog stores it: UTC, naive."""
    return datetime.now(UTC).replace(tzinfo=None)


@cache  # reading the metadata of packages takes milliseconds each time
def versions() -> dict[str, str]:
    """Return the versions of this package and of the libraries that a result can depend on."""
    found = {"featurestore": __version__}
    for name in (*LIBRARIES[0], *LIBRARIES[1]):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def opencv_of(versions: Mapping[str, str]) -> str:
    """Return the version of OpenCV among the versions of a manifest, of whichever package; `UNKNOWN` without one.

    It has three numbers: a fourth counts the builds of a package.
    """
    found = (version for name, version in versions.items() if name.startswith("opencv"))
    return ".".join(next(found, UNKNOWN).split(".")[:3])


def partition_manifest(step: Step, work: Work, *, origin: str, opencv: str = UNKNOWN) -> dict[str, Any]:
    """Return the manifest of a new partition, without its ``payload``, which depends on its rows.

    Args:
        step: the stage, with its variant.
        work: the chunk.
        origin: ``run``, or ``npz`` or ``colmap`` for imported descriptors.
        opencv: the version that computed imported descriptors.
    """
    known = versions()
    if origin != Origin.RUN:  # the installed libraries did not compute these descriptors
        known = {name: known[name] for name in ("featurestore", "numpy", "pyarrow")} | {"opencv": opencv}
    return {
        "format": FORMAT if isinstance(step.stage, Extract) else PLAIN,
        "stage": step.stage.name,
        "version": step.stage.version,
        "parameters": step.stage.parameters(),
        "variant": step.variant,
        "reads_variant": step.reads_variant,
        "model_id": step.model_id,
        "chunk_id": work.chunk_id,
        "first_image_id": work.first_image_id,
        "n_images": work.n_images,
        "input_payload": work.input_payload,
        "origin": origin,
        "versions": known,
    }


@contextmanager
def recorded_run(
    context: WritableContext, step: Step, *, workers: int, verb: str | None = None
) -> Iterator[dict[str, Any]]:
    """Record a run of a stage. The values in the yielded dictionary are recorded when it ends, in whatever way.

    Args:
        context: of the store.
        step: the stage.
        workers: processes when it begins; that can be corrected at the end.
        verb: recorded instead of the stage, if something else made the partitions.
    """
    run_id, started = uuid.uuid4().hex, time.perf_counter()
    counts: dict[str, Any] = {"n_chunks": 0, "n_images": 0, "n_descriptors": 0, "n_bytes": 0}
    begun = {
        "run_id": run_id,
        "stage": verb or step.stage.name,
        "variant": step.variant,
        "parameters": step.stage.parameters(),
        "versions": versions(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "workers": workers,
        "started": utc_now(),
        "ended": None,
        "outcome": Outcome.RUNNING,
        "message": None,
        "seconds": 0.0,
    }
    with context.catalog.transaction() as connection:
        insert_row(connection, "runs", {**begun, **counts})
    LOG.info("run %s of %s begins: variant %s, %d workers", run_id, begun["stage"], step.variant, workers)
    outcome, message = Outcome.FAILED, None
    failure: type[BaseException] | None = None
    try:
        yield counts
        outcome = Outcome.DONE
    except (KeyboardInterrupt, GeneratorExit):
        outcome = Outcome.INTERRUPTED
        raise
    except BaseException as error:
        message, failure = str(error) or type(error).__name__, type(error)
        raise
    finally:
        seconds = time.perf_counter() - started
        how = f"{outcome}: {message}" if message else outcome
        level = logging.INFO if outcome is Outcome.DONE else logging.WARNING
        LOG.log(level, "run %s of %s ends after %.1f s, %s, %s", run_id, begun["stage"], seconds, how, counts)
        end = {"ended": utc_now(), "outcome": outcome, "message": message, "seconds": seconds}
        try:
            with context.catalog.transaction() as connection:
                update_run(connection, run_id, **counts, **end)
        except Exception as error:
            # The stage's own error matters more. The next run ends the record.
            if outcome is Outcome.DONE:
                raise
            if type(error) is not failure:  # a full disk need not be reported twice
                context.reporter.say(f"how this run ended could not be recorded: {' '.join(str(error).split())}")


def update_run(connection: DuckDBPyConnection, run_id: str, **values: Any) -> None:
    """Change the record of a run."""
    update_rows(connection, "runs", values, where={"run_id": run_id})


def record_progress(connection: DuckDBPyConnection, variant: str | None, n_images: int) -> None:
    """Record how many images the run at work has done whose partitions are recorded; its end records them all."""
    where = {"variant": variant, "outcome": Outcome.RUNNING}
    update_rows(connection, "runs", {"n_images": n_images}, where=where)


def paces(connection: DuckDBPyConnection) -> dict[str, float]:
    """Return the mean seconds an image of earlier runs, by stage."""
    return query_pairs(connection, _PAST)


_PAST = f"""SELECT stage, sum(seconds) / sum(n_images) AS pace FROM runs
           WHERE n_images > 0 AND seconds > 0 AND outcome <> '{Outcome.RUNNING}' GROUP BY stage"""
