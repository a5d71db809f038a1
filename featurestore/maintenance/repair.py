"""Repair: drop damaged files and wrong records, so that a run recomputes only those."""

from __future__ import annotations

import logging
from dataclasses import replace

from featurestore.catalog import WritableContext, forget_model_file, forget_partition_file, recorded_files
from featurestore.maintenance.problems import Kind, Problem, VerifyReport
from featurestore.maintenance.recover import recover_store
from featurestore.maintenance.stray_files import stray_files

LOG = logging.getLogger("featurestore.maintenance")


def repair_store(context: WritableContext, report: VerifyReport) -> VerifyReport:
    """Repair the problems of a report, and return a report of the remaining ones.

    A damaged file is deleted with its record. A wrong record is deleted alone, and the file is recorded again. Files
    without a record are recorded or deleted, as by any run. The user decides about the rest.
    """
    repaired, left = [], []
    for problem in report.problems:
        done = _drop(context, problem)
        if done:
            LOG.warning("%s: %s (%s)", problem.name, done, problem.what)
            repaired.append(f"{problem.name}: {done}")
        else:
            left.append(problem)
    if any(problem.name == context.catalog.path.name for problem in left):
        return replace(report, problems=left, repaired=repaired)
    recover_store(context)
    still_there = set(stray_files(context.root)[0]) & {problem.name for problem in left if problem.kind is Kind.ORPHAN}
    with context.catalog.reading() as connection:
        known = recorded_files(connection).every
    for problem in [problem for problem in left if problem.kind is Kind.ORPHAN]:
        if problem.name not in still_there or problem.name in known:
            left.remove(problem)
            repaired.append(f"{problem.name}: {'recorded' if problem.name in known else 'deleted'}")
    return replace(report, problems=left, repaired=repaired)


def _drop(context: WritableContext, problem: Problem) -> str | None:
    """Repair one problem, and return what was done; None if it can't be repaired."""
    if problem.kind in (Kind.PARTITION, Kind.RECORD):
        with context.catalog.transaction() as connection:
            forget_partition_file(connection, problem.name)
    elif problem.kind in (Kind.MODEL, Kind.MODEL_RECORD):
        with context.catalog.transaction() as connection:
            forget_model_file(connection, problem.name)
    elif problem.kind not in (Kind.STATE, Kind.SEARCH):
        return None
    if problem.kind in (Kind.RECORD, Kind.MODEL_RECORD):
        return "recorded again from the file"
    context.root.remove(problem.name)
    return "dropped"
