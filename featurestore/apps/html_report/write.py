"""The verb `report`: a store as one HTML file."""

from __future__ import annotations

from pathlib import Path

from featurestore._version import __version__
from featurestore.api import FeatureStore
from featurestore.apps.html_report.asking import rows_of
from featurestore.apps.html_report.collection import collection
from featurestore.apps.html_report.page import render
from featurestore.apps.html_report.parts import Report
from featurestore.apps.html_report.quality import clipping, descriptors, failures, galleries, spectrum
from featurestore.apps.html_report.work import disk, flow, models, runs
from featurestore.errors import QueryError
from featurestore.formatting import counted, human_bytes
from featurestore.system import StrPath, located, output_at, refuse_output

GALLERY = 12  # images of each gallery


def report(store: FeatureStore, output: StrPath, *, gallery: int = GALLERY, force: bool = False) -> Path:
    """Write a report of a store: one HTML file that needs no network, and return its path.

    The same state of a store and of its image files makes the same bytes.

    Args:
        store: that is reported.
        output: the file.
        gallery: images with the most, and with the fewest descriptors, that are shown; 0 reads no image file.
        force: replace a file that exists.

    Raises:
        OutputError: the file can't be written there, or exists.
        NotEnoughSpace: the disk is full.
        QueryError: ``gallery`` is negative.
        CorruptFile: the catalog or a model is damaged.
    """
    if gallery < 0:
        raise QueryError(f"gallery is a number of images, at least 0, and not {gallery}")
    path = located(output, "a report")
    refuse_output(path, store.path, force=force)
    text = render(_report(store, gallery))
    with output_at(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _report(store: FeatureStore, gallery: int) -> Report:
    status = store.status()
    ((last,),) = rows_of(store, "SELECT max(ended) FROM runs")
    ((n_failed,),) = rows_of(store, "SELECT count(*) FROM failures")
    n_bytes = sum(stage.n_bytes for stage in status.stages)
    chunk_stages = [stage for stage in status.stages if not stage.is_fit]
    sections = [
        collection(store),
        flow(store, status),
        descriptors(store, status),
        spectrum(store, status),
        clipping(store, status),
        galleries(store, gallery) if gallery else None,
        failures(store),
        models(store, status),
        runs(store, status),
        disk(store, status),
    ]
    state = f"State after the run that ended {last:%Y-%m-%d %H:%M} UTC." if last else "Nothing has been run yet."
    return Report(
        title=store.path.name,
        lead=f"{counted(status.n_images, 'image')} in {counted(status.n_chunks, 'chunk')}. {state}",
        highlights=[
            ("images", f"{status.n_images:,}"),
            ("failed", f"{n_failed:,}"),
            *((f"descriptors, {stage.stage}", f"{stage.n_descriptors:,}") for stage in chunk_stages),
            ("on disk", human_bytes(n_bytes)),
        ],
        sections=[section for section in sections if section is not None],
        version=__version__,
    )
