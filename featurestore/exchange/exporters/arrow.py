"""arrow: an IPC file with one row per image, to be mapped into memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from featurestore.exchange.exporters.base import ImageExporter, Job
from featurestore.exchange.exporters.parquet import image_columns
from featurestore.query import write_arrow


@dataclass(frozen=True)
class Arrow(ImageExporter):
    """The same columns as parquet, uncompressed, in record batches of about 4 MB."""

    name: ClassVar[str] = "arrow"
    about: ClassVar[str] = "one row per image in an Arrow IPC file, to be mapped into memory"
    dataset_columns: ClassVar[bool] = True

    def check(self, job: Job, *, force: bool) -> None:
        """Refuse a dataset column with the name of a keypoint column."""
        image_columns(job.selection)

    def write(self, job: Job, path: Path) -> None:
        """Write the file, a record batch at a time."""
        columns = image_columns(job.selection)
        with path.open("wb") as file:
            write_arrow(job.tables(columns), job.selection.schema(columns), file)
