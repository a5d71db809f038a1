"""The sections of pictures: the images with the most and the fewest descriptors, and all images or a sample of them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from featurestore.api import FeatureStore
from featurestore.apps.html_report.asking import DESCRIPTORS, FILENAME, USABLE, Ask, table_of
from featurestore.apps.html_report.parts import Gallery, Note, Section, Sheet
from featurestore.apps.html_report.thumbnails import gallery_image, jpeg_uri
from featurestore.errors import FeatureStoreError
from featurestore.formatting import counted
from featurestore.progress import Reporter

SMALL = 72  # pixels of the longer side of a picture among many
THREADS = 4  # decoding an image releases Python's lock
SAMPLE = """\
SELECT filename
FROM (
  SELECT *, row_number() OVER (ORDER BY image_id) AS i, count(*) OVER () AS n
  FROM descriptor_counts WHERE stage = 'extract' AND {usable}
)
WHERE i * {most} // n > (i - 1) * {most} // n ORDER BY i"""


def galleries(store: FeatureStore, ask: Ask, n: int) -> Section:
    """Return the section of the images with the most and the fewest descriptors."""
    parts = []
    for title, order in (("Strongest images", "DESC"), ("Emptiest images", "ASC")):
        query = (
            "SELECT filename, n_descriptors FROM descriptor_counts\n"
            f"WHERE stage = 'extract' AND {USABLE} ORDER BY n_descriptors {order}, image_id LIMIT {n}"
        )
        table = table_of(ask, title, (FILENAME, DESCRIPTORS), query)
        parts.append(Gallery(title, [gallery_image(store, name, count) for name, count in table.rows], table))
    lead = "Point at a picture, or choose it with the keyboard, to see its largest keypoints."
    return Section("gallery", "Strongest and emptiest images", parts, lead)


def sheet(store: FeatureStore, ask: Ask, most: int, progress: Reporter) -> Section:
    """Return the section of all images, or of a sample at equal distances in the order of the dataset."""
    table = table_of(ask, "Images", (FILENAME,), SAMPLE.format(usable=USABLE, most=most))
    names = [name for (name,) in table.rows]
    progress.begin("report", len(names))
    try:
        pictures = _pictures(store, names, progress)
    finally:
        progress.end(None)
    absent = len(names) - len(pictures)
    parts: list[Sheet | Note] = [Sheet(pictures, table)]
    if absent:
        has = "has" if absent == 1 else "have"
        parts.append(Note(f"{counted(absent, 'image')} of them {has} no picture: the file can't be used any more."))
    return Section(
        "images", "Images", parts, f"{counted(len(names), 'image')} that can be used, in the dataset's order."
    )


def _pictures(store: FeatureStore, names: list[str], progress: Reporter) -> list[tuple[str, str]]:
    """Return the small picture of each image that has one."""
    found = []
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
        for name, uri in zip(names, threads.map(lambda name: _picture(store, name), names), strict=True):
            progress.advance(1)
            if uri is not None:
                found.append((name, uri))
    return found


def _picture(store: FeatureStore, filename: str) -> str | None:
    try:
        return jpeg_uri(store.pixels(filename), SMALL)
    except FeatureStoreError:
        return None
