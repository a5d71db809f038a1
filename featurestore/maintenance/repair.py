"""Dropping what is bad, so that a run makes just that anew."""

from __future__ import annotations

import logging
from dataclasses import replace

import sqlalchemy as sa

from featurestore.catalog import Model, Partition, Result, TrainingImage, WritableContext
from featurestore.maintenance.recover import recover_store
from featurestore.maintenance.stray_files import stray_files
from featurestore.maintenance.verify import Problem, VerifyReport

LOG = logging.getLogger("featurestore.maintenance")


def repair_store(context: WritableContext, report: VerifyReport) -> VerifyReport:
    """Drop what a report found bad, and return a report of what is left.

    A bad file goes with its record. A wrong record goes alone: the file, which is the truth, is recorded again. Files
    without a record are adopted or deleted, as by any run. The rest is for people to decide.
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
    still_there = set(stray_files(context.root)[0]) & {problem.name for problem in left if problem.kind == "orphan"}
    known = _paths(context)
    for problem in [problem for problem in left if problem.kind == "orphan"]:
        if problem.name not in still_there or problem.name in known:
            left.remove(problem)
            repaired.append(f"{problem.name}: {'recorded' if problem.name in known else 'deleted'}")
    return replace(report, problems=left, repaired=repaired)


def _drop(context: WritableContext, problem: Problem) -> str | None:
    """Return what was done about a problem, None if nothing can be."""
    if problem.kind in ("partition", "record"):
        _forget_partition(context, problem.name)
    elif problem.kind in ("model", "model record"):
        _forget_model(context, problem.name)
    elif problem.kind != "state":
        return None
    if problem.kind.endswith("record"):
        return "recorded anew from the file"
    context.root.remove(problem.name)
    return "dropped"


def _forget_partition(context: WritableContext, name: str) -> None:
    with context.catalog.transaction() as connection:
        rows = connection.execute(sa.select(Partition).filter_by(path=name)).mappings().all()
        for row in rows:
            key = {column: row[column] for column in ("stage", "variant", "chunk_id")}
            connection.execute(sa.delete(Result).filter_by(**key))
            connection.execute(sa.delete(Partition).filter_by(**key))


def _forget_model(context: WritableContext, name: str) -> None:
    with context.catalog.transaction() as connection:
        for model_id in connection.execute(sa.select(Model.model_id).filter_by(path=name)).scalars().all():
            connection.execute(sa.delete(TrainingImage).filter_by(model_id=model_id))
            connection.execute(sa.delete(Model).filter_by(model_id=model_id))


def _paths(context: WritableContext) -> set[str]:
    with context.catalog.reading() as connection:
        query = "SELECT path FROM ingests UNION SELECT path FROM partitions UNION SELECT path FROM models"
        return set(connection.execute(sa.text(query)).scalars().all())
