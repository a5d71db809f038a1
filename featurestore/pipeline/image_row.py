"""The row of one image: a fault of the image becomes its status, other errors are raised.

An image whose file can't be read is tried again, after a check that its folder still exists. A lack of memory, open
files or threads is raised: the engine tries the image again when no other task is running.
"""

from __future__ import annotations

from collections.abc import Sequence

from featurestore.errors import FeatureStoreError
from featurestore.images import ImagePath, ReadFailed, RunImages, died, unread_twice
from featurestore.rows import Row, Status
from featurestore.stages import Extract
from featurestore.system import (
    BY_THE_CLOCK,
    CLOCK,
    CLOCK_OVER,
    CPU,
    CPU_OVER,
    MEMORY,
    lacking,
    limit_met,
    limited,
    line_of,
)

UNREAD = (Status.MISSING, Status.UNREADABLE, Status.DAMAGED)  # where the bytes of the file are not known


def make_row(stage: Extract, image_id: int, filename: str, folder: RunImages) -> Row:
    """Return the row of one image of a folder.

    Raises:
        ImagesGone: its file can't be read, and those that could be before can't either.
        MemoryError, OSError, RuntimeError: the machine lacks something, see `failure.lacking`.
        LossyDescriptors: the extractor promises uint8 and gave something else.
    """
    with limited(stage.max_seconds):
        row, reason = _tried(stage, image_id, filename, folder.file(filename))
        if reason:
            folder.refuse_if_gone(filename, reason)
            row, _ = _tried(stage, image_id, filename, folder.file(filename))
    if (n_bytes := row.extra.get("source_bytes")) is not None:
        folder.was_read(filename, n_bytes)
    return row


def make_rows(stage: Extract, images: Sequence[tuple[int, str]], folder: RunImages) -> list[Row]:
    """Return the rows of a batch of images: sound ones are extracted together, the others one by one.

    Raises: as `make_row` does.
    """
    made: dict[int, Row] = {}
    if len(images) > 1:
        with limited(stage.max_seconds * len(images)):
            rows = stage.extract_batch([(image_id, name, folder.file(name)) for image_id, name in images])
        made = {row.image_id: row for row in rows}
        for row in rows:
            folder.was_read(row.filename, row.extra["source_bytes"])
    return [made.get(image_id) or make_row(stage, image_id, name, folder) for image_id, name in images]


def _tried(stage: Extract, image_id: int, filename: str, path: ImagePath) -> tuple[Row, str]:
    """Return the row, and the reason if the file could not be read."""
    try:
        row = stage.extract(image_id, filename, path)
    except ReadFailed as error:
        return Row(image_id, filename, Status.UNREADABLE, unread_twice(str(error))), str(error)
    except FeatureStoreError:
        raise
    except Exception as error:
        if lacking(error):
            raise
        return Row(image_id, filename, Status.CRASHED, line_of(error)), ""
    unread = row.status in UNREAD and row.extra.get("source_bytes") is None
    return row, (row.error or row.status) if unread else ""


def blamed(stage: Extract, image_id: int, filename: str, reason: str) -> Row:
    """Return the row of an image that crashed its worker, or needs too much memory even when tried alone.

    Args:
        stage: extract, with its limits.
        image_id: of the image.
        filename: of the image.
        reason: what the engine knows.
    """
    if limit_met(reason) is CPU:
        return Row(image_id, filename, Status.CRASHED, CPU_OVER.format(stage.max_seconds))
    if limit_met(reason) is CLOCK:
        waited = CLOCK_OVER.format(BY_THE_CLOCK * stage.max_seconds)
        return Row(image_id, filename, Status.UNREADABLE, unread_twice(waited))
    return crashed(image_id, filename, reason)


def crashed(image_id: int, filename: str, reason: str) -> Row:
    """Return a row of status ``crashed``."""
    error = "out of memory, with no other image at work" if reason == MEMORY else died(reason)
    return Row(image_id, filename, Status.CRASHED, error)
