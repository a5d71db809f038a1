"""Recovery after a crash: the next run records or removes files without a record."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import PurePosixPath

from featurestore.catalog import (
    WritableContext,
    check_partition,
    chunk_ids,
    count_unfinished_runs,
    end_dead_runs,
    has_partition,
    is_fitted,
    record_file,
    record_model,
    recorded_files,
    remove_stale_blocks,
    replay,
)
from featurestore.errors import CorruptFile, FormatError, UnreadableFile
from featurestore.formatting import counted
from featurestore.maintenance.problems import NO_FILE
from featurestore.storage import read_arrays
from featurestore.system import Spill

LOG = logging.getLogger("featurestore.maintenance")


def recover_store(context: WritableContext) -> None:
    """Remove temporary files, end the records of runs that died, and adopt or delete files without a record.

    No other process can be writing, since this one holds the store. A file is deleted only if it was read to the end
    and found wrong; one that can't be read is left alone and reported.

    Raises:
        UnreadableFile: a dataset file without a record can't be read: it may hold any image.
    """
    context.root.sweep()
    with context.catalog.reading() as connection:
        known, dead = recorded_files(connection), count_unfinished_runs(connection)
    if dead:
        LOG.warning("recording %s as killed: the process ended without a record", counted(dead, "run"))
        with context.catalog.transaction() as connection:
            end_dead_runs(connection)
    for name in context.root.files("dataset", ".parquet"):
        if name not in known.datasets and _is_file(context, name):
            LOG.info("recording %s, which has no record", name)
            replay(context.root, context.catalog, name, Spill(context.root.path))
    for name in _listed(context, "models", ".npz"):
        if PurePosixPath(name).name == "state.npz":
            _settle(context, name, _end_finished_fit)
        elif name not in known.models:
            _settle(context, name, _adopt_model)
    for name in _listed(context, "partitions", ".parquet"):
        if name not in known.partitions:
            _settle(context, name, _adopt_partition)
    remove_stale_blocks(context)


def _listed(context: WritableContext, folder: str, suffix: str) -> list[str]:
    names, failed = context.root.listing(folder, suffix)
    for error in failed:
        context.reporter.say(f"left alone: {error}")
    return names


def _settle(context: WritableContext, name: str, adopt: Callable[[WritableContext, str], None]) -> None:
    try:
        if _is_file(context, name):
            adopt(context, name)
    except UnreadableFile as error:
        context.reporter.say(f"left alone: {error}")


def _is_file(context: WritableContext, name: str) -> bool:
    """Return whether a file has this name, and report what is none: to open a pipe takes until it has a writer."""
    if context.root.state(name) is not None:
        return True
    context.reporter.say(f"left alone: {context.root.at(name)} is {NO_FILE}; remove it")
    return False


def _adopt_partition(context: WritableContext, name: str) -> None:
    """Record a partition that a killed run had published but not recorded; delete one that is damaged or replaced."""
    try:
        manifest = check_partition(context.root, name).manifest
    except FormatError:
        return  # made by a newer version: leave it alone
    except CorruptFile as error:
        LOG.warning("removing %s, which has no record: %s", name, error)
        context.root.remove(name)
        return
    chunk_id = manifest["chunk_id"]
    with context.catalog.reading() as connection:
        recorded = has_partition(connection, stage=manifest["stage"], variant=manifest["variant"], chunk_id=chunk_id)
        known = chunk_id in chunk_ids(connection)
    if recorded:
        context.root.remove(name)
    elif known:  # else its images are not in the dataset, and no query can reach it
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
    """Remove the checkpoint of a fit whose model is recorded: the run was killed between the two steps."""
    try:
        manifest = read_arrays(context.root.local(name))[1]
        variant, parent_id = manifest["variant"], manifest["parent_id"]
    except (CorruptFile, FormatError, KeyError):
        return  # the fit that resumes from it will report the error
    with context.catalog.reading() as connection:
        finished = is_fitted(connection, variant=variant, parent_id=parent_id)
    if finished:
        context.root.remove(name)
