"""Export of descriptors or models in the formats of other programs: written to a temporary file, renamed at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from featurestore.catalog import Context, ModelRow, find_model, resolve
from featurestore.errors import NotReady, OutputError, QueryError
from featurestore.exchange.exporters.base import Exporter, ImageExporter, Job, ModelExporter
from featurestore.exchange.registry import EXPORTERS
from featurestore.progress import StageSummary
from featurestore.query import Selection, descriptor_counts, older_steps, with_columns
from featurestore.stages import Project, Quantize
from featurestore.storage import IMAGES, Arrays, from_bitmap, read_arrays
from featurestore.system import command_line, output_at, refuse_output

VERB = "export"


def export_images(
    context: Context, selection: Selection, out: Path, exporter: ImageExporter, *, force: bool
) -> StageSummary:
    """Write the descriptors of chosen images to ``out``, and return what was written.

    Args:
        context: of the store.
        selection: of the images.
        out: the file or folder.
        exporter: from `find_format`.
        force: replace ``out``, and write even if this machine lacks the memory to read it.

    Raises:
        OutputError: ``out`` exists already, or can't be written.
        QueryError: no image was chosen, or they do not fit the format.
        StoreBusy: the store has changed since the images were chosen, and no longer has all of their rows.
        NotEnoughSpace: the disk is full, or what is written could not be read here.
    """
    _refuse(context, out, exporter, force=force)
    job = _job(context, exporter, selection, force=force)
    write = partial(exporter.write, job)
    return _write(context, out, exporter, write, n_images=len(job.counts), n_descriptors=job.n_descriptors)


def export_models(
    context: Context, out: Path, exporter: ModelExporter, variant: str | None, *, force: bool
) -> StageSummary:
    """Write the models of a variant of quantize to ``out``; the summary counts their training images.

    Args:
        context: of the store.
        out: the file.
        exporter: from `find_format`.
        variant: of quantize; None is the current recipe's.
        force: replace ``out``.

    Raises:
        OutputError: ``out`` exists already, or can't be written.
        QueryError: there is no such variant.
        NotReady: a model has not been fitted yet.
        NotEnoughSpace: the disk is full.
    """
    _refuse(context, out, exporter, force=force)
    pca, scale = _models(context, variant)
    write = partial(exporter.write_models, pca, scale)
    n_images, n_descriptors = len(from_bitmap(pca[IMAGES])), int(pca["n_samples_seen_"])
    return _write(context, out, exporter, write, n_images=n_images, n_descriptors=n_descriptors)


def _write(
    context: Context, out: Path, exporter: Exporter, write: Callable[[Path], None], *, n_images: int, n_descriptors: int
) -> StageSummary:
    started, summary, reporter = time.perf_counter(), None, context.reporter
    reporter.begin(VERB, n_images)
    try:
        with output_at(out, str(out)) as temporary:
            if exporter.members:
                temporary.mkdir()
            write(temporary)
        summary = StageSummary(
            VERB,
            n_images=n_images,
            n_descriptors=n_descriptors,
            n_bytes=_size(out),
            seconds=time.perf_counter() - started,
            note=f"as {exporter.name} in {out}",
        )
    finally:
        reporter.end(summary)
    return summary


def find_format(name: str, options: Mapping[str, Any] | None = None) -> Exporter:
    """Return the format called ``name``, with values of its options.

    Raises:
        QueryError: there is none, or it has no such option.
        PluginError: the package that provides it can't be loaded.
    """
    kind = EXPORTERS.find(name)
    known = {field.name: field.default for field in fields(kind)}
    given = options or {}
    if strange := [option for option in given if option not in known]:
        has = f"its options are {', '.join(known)}" if known else "it has none"
        raise QueryError(f"{name} has no option {strange[0]!r}; {has}")
    for option, value in given.items():
        if isinstance(known[option], bool) and not isinstance(value, bool):
            raise QueryError(f"the option {option!r} of {name} is True or False, and not {value!r}")
    return kind(**given)


def _job(context: Context, exporter: ImageExporter, selection: Selection, *, force: bool) -> Job:
    if not len(selection.images):
        where = selection.where
        what = f"where {where!r} chooses no image" if where else "the store has no images"
        raise QueryError(f"{what}, so there is nothing to export; look at them with: SELECT * FROM images")
    if exporter.dataset_columns:
        selection = with_columns(context, selection, selection.dataset_columns)
    if exporter.stage not in (None, selection.stage):
        raise QueryError(
            f"{exporter.name} holds descriptors of {exporter.stage}, and none of {selection.stage}; choose them with "
            f"stage={exporter.stage!r} (--stage {exporter.stage})"
        )
    job = Job(selection, descriptor_counts(context, selection), context.reporter.advance, context)
    exporter.check(job, force=force)
    return job


def _models(context: Context, variant: str | None) -> tuple[Arrays, Arrays]:
    with context.catalog.reading() as connection:
        if variant is None:
            steps = resolve(connection, context.flow)
        else:
            steps = older_steps(connection, context, Quantize.name, variant)
        used = {step.stage.name: step.model_id for step in steps}
        models = {stage: find_model(connection, used.get(stage.name)) for stage in (Project, Quantize)}
    pca, scale = (_arrays(context, str(stage.model), model) for stage, model in models.items())
    quantize = next(step.stage for step in steps if isinstance(step.stage, Quantize))
    return pca, dict(quantize.decoding(scale))


def _arrays(context: Context, fit: str, model: ModelRow | None) -> Arrays:
    if model is None:
        raise NotReady(f"the model of {fit} has not been fitted yet; run: {command_line('run', context.root.path)}")
    return read_arrays(context.root.local(model.path))[0]


def _refuse(context: Context, out: Path, exporter: Exporter, *, force: bool) -> None:
    refuse_output(out, context.root.path, force=force, folder=True)
    if not os.path.lexists(out):
        return
    if out.is_dir() != bool(exporter.members):
        kind, other = ("file", "folder") if out.is_dir() else ("folder", "file")
        raise OutputError(f"{exporter.name} is a {kind}, and {out} is a {other}; choose another name, or remove it")
    strange = sorted({path.name for path in out.iterdir()} - set(exporter.members)) if out.is_dir() else []
    if strange:
        raise OutputError(
            f"{out} holds {strange[0]}, which no export wrote, so it is not replaced; choose another name, or remove it"
        )


def _size(out: Path) -> int:
    return sum(path.stat().st_size for path in (out.iterdir() if out.is_dir() else [out]))
