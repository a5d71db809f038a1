"""What a crash may have left, put in order by the next run: a file is the truth, and the catalog follows from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import PurePosixPath

import sqlalchemy as sa

from featurestore.catalog import (
    Run,
    WritableContext,
    check_partition,
    query_arrow,
    record_file,
    record_model,
    remove_stale_blocks,
    replay,
    utc_now,
)
from featurestore.errors import CorruptFile, FormatError, UnreadableFile
from featurestore.storage import read_arrays
from featurestore.system import Spill

LOG = logging.getLogger("featurestore.maintenance")


def recover_store(context: WritableContext) -> None:
    """Remove temporary files, end the records of runs that died, and adopt or delete files without a record.

    No other process can be writing, since this one holds the store. A file is deleted only if it was read to the end
    and found wrong; one that can't be read is left alone, with a word.

    Raises:
        UnreadableFile: a dataset file without a record can't be read: it may hold any image.
    """
    context.root.sweep()
    with context.catalog.reading() as connection:
        known = {
            kind: set(query_arrow(connection, f"SELECT path FROM {kind}")["path"].to_pylist())
            for kind in ("ingests", "partitions", "models")
        }
        dead = connection.execute(sa.text("SELECT count(*) FROM runs WHERE outcome = 'running'")).scalar_one()
    if dead:
        LOG.warning("recording %d runs as killed: their processes ended without a record of it", dead)
        _end_dead_runs(context)
    for name in context.root.files("dataset", ".parquet"):
        if name not in known["ingests"]:
            LOG.info("recording %s, which has no record", name)
            replay(context.root, context.catalog, name, Spill(context.root.path))
    for name in _listed(context, "models", ".npz"):
        if PurePosixPath(name).name == "state.npz":
            _settle(context, name, _end_finished_fit)
        elif name not in known["models"]:
            _settle(context, name, _adopt_model)
    for name in _listed(context, "partitions", ".parquet"):
        if name not in known["partitions"]:
            _settle(context, name, _adopt_partition)
    remove_stale_blocks(context)


def _listed(context: WritableContext, folder: str, suffix: str) -> list[str]:
    names, failed = context.root.listing(folder, suffix)
    for error in failed:
        context.reporter.say(f"left alone: {error}")
    return names


def _settle(context: WritableContext, name: str, adopt: Callable[[WritableContext, str], None]) -> None:
    try:
        adopt(context, name)
    except UnreadableFile as error:
        context.reporter.say(f"left alone: {error}")


def _end_dead_runs(context: WritableContext) -> None:
    with context.catalog.transaction() as connection:
        connection.execute(sa.update(Run).where(Run.outcome == "running").values(outcome="killed", ended=utc_now()))


def _adopt_partition(context: WritableContext, name: str) -> None:
    """Record a partition whose rename was the last thing that a run did; delete one that is damaged or replaced."""
    try:
        manifest = check_partition(context.root, name).manifest
    except FormatError:
        return  # not ours to delete: a newer version has made it
    except CorruptFile as error:
        LOG.warning("removing %s, which has no record: %s", name, error)
        context.root.remove(name)
        return
    key = {column: manifest[column] for column in ("stage", "variant", "chunk_id")}
    with context.catalog.reading() as connection:
        query = "SELECT 1 FROM partitions WHERE stage = $stage AND variant = $variant AND chunk_id = $chunk_id"
        recorded = len(query_arrow(connection, query, key))
        known = len(query_arrow(connection, "SELECT 1 FROM chunks WHERE chunk_id = $chunk", {"chunk": key["chunk_id"]}))
    if recorded:
        context.root.remove(name)
    elif known:  # else it is of images that the dataset does not have, and nobody can ask for it
        record_file(context.root, context.catalog, name)


def _adopt_model(context: WritableContext, name: str) -> None:
    try:
        record_model(context.root, context.catalog, name)
    except FormatError:
        return
    except CorruptFile as error:
        LOG.warning("removing %s, which has no record: %s", name, error)
        context.root.remove(name)


def _end_finished_fit(context: WritableContext, name: str) -> None:
    """Remove the checkpoint of a fit whose model is recorded: the crash came between the one and the other."""
    try:
        manifest = read_arrays(context.root.local(name))[1]
        key = {"variant": manifest["variant"], "parent": manifest["parent_id"]}
    except (CorruptFile, FormatError, KeyError):
        return  # the fit that goes on from it says so
    with context.catalog.reading() as connection:
        query = "SELECT 1 FROM models WHERE variant = $variant AND parent_id IS NOT DISTINCT FROM $parent"
        finished = len(query_arrow(connection, query, key))
    if finished:
        context.root.remove(name)
