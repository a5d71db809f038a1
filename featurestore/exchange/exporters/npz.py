"""npz: the notebook's final file, ``descriptors_list`` and ``filenames`` as object arrays."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from featurestore.exchange.exporters.base import ImageExporter, Job
from featurestore.exchange.exporters.pickle_writer import ObjectArray
from featurestore.system import refuse_if_too_large

SPARE = 1_000_000_000  # bytes that Python needs beside the codes: an object for each image
LEVEL = 1  # compression level: codes are close to noise, and a higher one gains next to nothing


@dataclass(frozen=True)
class Npz(ImageExporter):
    """The output of the notebook's ``process_all_chunks``, always one-dimensional; None for an image without any.

    NumPy would hold everything in memory. Here it is written image by image; only its readers need the memory.
    """

    name: ClassVar[str] = "npz"
    about: ClassVar[str] = "the notebook's final file: descriptors_list and filenames, read with allow_pickle"

    def check(self, job: Job, *, force: bool) -> None:
        """Refuse a file too large to read on this machine: it can be read only as a whole."""
        if not force:
            refuse_if_too_large(
                f"an npz of {job.n_descriptors:,} descriptors can be read only as a whole, and its codes and 1 GB",
                job.n_bytes + SPARE,
                instead="export npy, which is mapped into memory; --force writes the npz for another machine",
            )

    def write(self, job: Job, path: Path) -> None:
        """Write the file, an image at a time."""
        # As savez_compressed does, but for the time that it would put into the file: the same export is the same bytes.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
            n = len(job.selection.images)
            with archive.open("descriptors_list.npy", "w", force_zip64=True) as member:
                descriptors = ObjectArray(member, n)
                for table in job.tables(["descriptors"]):
                    for matrix in job.selection.layout.matrices(table["descriptors"]):
                        if matrix is not None:
                            descriptors.array(matrix)
                        else:
                            descriptors.none()
                descriptors.close()
            with archive.open("filenames.npy", "w", force_zip64=True) as member:
                filenames = ObjectArray(member, n)
                for name in job.selection.images["filename"].to_pylist():
                    filenames.text(name)
                filenames.close()
