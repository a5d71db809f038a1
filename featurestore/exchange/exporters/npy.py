"""npy: one matrix for memory mapping, the offset of each image, and a table of the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.arrow_arrays import arrow_array
from featurestore.errors import CorruptFile
from featurestore.exchange.exporters.base import ImageExporter, Job
from featurestore.rows import blob_bytes

CODES, OFFSETS, IMAGES = "codes.npy", "offsets.npy", "images.parquet"


@dataclass(frozen=True)
class Npy(ImageExporter):
    """A folder of ``codes.npy`` ``(N, dim)``, ``offsets.npy`` ``(n_images + 1,)`` int64 and ``images.parquet``.

    The descriptors of the image in row ``i`` of ``images.parquet`` are ``codes[offsets[i]:offsets[i + 1]]``.
    """

    name: ClassVar[str] = "npy"
    about: ClassVar[str] = "a folder of codes.npy, offsets.npy and images.parquet, to be mapped into memory"
    dataset_columns: ClassVar[bool] = True
    members: ClassVar[tuple[str, ...]] = (CODES, OFFSETS, IMAGES)

    def write(self, job: Job, path: Path) -> None:
        """Write the folder's files; the matrix is written as it is read."""
        header = {
            "descr": np.lib.format.dtype_to_descr(job.dtype),
            "fortran_order": False,
            "shape": (job.n_descriptors, job.dim),
        }
        written, statuses = 0, []
        with (path / CODES).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for table in job.tables(["status", "descriptors"]):
                statuses += table["status"].chunks
                for blobs in table["descriptors"].chunks:
                    written += file.write(blob_bytes(blobs)[1].data)
        if written != job.n_bytes:
            raise CorruptFile(
                f"the partitions hold {written:,} bytes of descriptors, and the catalog says {job.n_bytes:,}; look for "
                "what is damaged with: featurestore verify STORE"
            )
        offsets = np.zeros(len(job.counts) + 1, np.int64)
        np.cumsum(job.counts, out=offsets[1:])
        np.save(path / OFFSETS, offsets, allow_pickle=False)
        images = job.selection.images.drop_columns(["chunk_id"])
        images = images.append_column("status", pa.chunked_array(statuses, pa.string()))
        images = images.append_column("n_descriptors", arrow_array(job.counts.astype(np.int32)))
        with (path / IMAGES).open("wb") as file:  # Arrow takes no path that is not UTF-8
            pq.write_table(images, file)
