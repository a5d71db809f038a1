"""The verb `report`: a store as one HTML file."""

from __future__ import annotations

from pathlib import Path

from featurestore._version import __version__
from featurestore.api import FeatureStore
from featurestore.apps.html_report.asking import rows_of
from featurestore.apps.html_report.collection import collection
from featurestore.apps.html_report.page import render
from featurestore.apps.html_report.parts import Report
from featurestore.apps.html_report.pictures import galleries, sheet
from featurestore.apps.html_report.quality import clipping, descriptors, failures, spectrum
from featurestore.apps.html_report.work import disk, flow, models, runs
from featurestore.errors import QueryError
from featurestore.formatting import counted, human_bytes
from featurestore.progress import Reporter, reporter
from featurestore.system import StrPath, located, output_at, refuse_output

GALLERY = 12  # images of each gallery
IMAGES = 1000  # small pictures


def report(
    store: FeatureStore,
    output: StrPath,
    *,
    images: int = IMAGES,
    gallery: int = GALLERY,
    force: bool = False,
    quiet: bool = True,
) -> Path:
    """Write a report of a store: one HTML file that needs no network, and return its path.

    The same state of a store and of its image files makes the same bytes.

    Args:
        store: that is reported.
        output: the file.
        images: that are shown small, a sample of the store if it has more; 0 for none.
        gallery: images with the most, and with the fewest descriptors, that are shown; 0 for none.
        force: replace a file that exists.
        quiet: show no bar.

    Raises:
        OutputError: the file can't be written there, or exists.
        NotEnoughSpace: the disk is full.
        QueryError: ``images`` or ``gallery`` is negative.
        CorruptFile: the catalog or a model is damaged.
    """
    for name, n in (("images", images), ("gallery", gallery)):
        if n < 0:
            raise QueryError(f"{name} is a number of images, at least 0, and not {n}")
    path = located(output, "a report")
    refuse_output(path, store.path, force=force)
    text = render(make_report(store, reporter(quiet=quiet), images=images, gallery=gallery))
    with output_at(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def make_report(store: FeatureStore, progress: Reporter, *, images: int = 0, gallery: int = 0) -> Report:
    """Return what a report says of a store; arguments as of `report`."""
    status = store.status()
    with store.snapshot() as ask:
        ((last,),) = rows_of(ask, "SELECT max(ended) FROM runs")
        ((n_failed,),) = rows_of(ask, "SELECT count(*) FROM failures")
        sections = [
            collection(ask),
            flow(store, ask, status),
            descriptors(ask, status),
            spectrum(store, status),
            clipping(ask, status),
            galleries(store, ask, gallery) if gallery else None,
            sheet(store, ask, images, progress) if images else None,
            failures(ask),
            models(ask, status),
            runs(ask, status),
            disk(ask, status),
        ]
    n_bytes = sum(stage.n_bytes for stage in status.stages)
    chunk_stages = [stage for stage in status.stages if not stage.is_fit]
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
