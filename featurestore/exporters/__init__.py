"""The formats of `export`: one file each, and all of them in one tuple.

To add a format, write its file and name it in `FORMATS`.
"""

from __future__ import annotations

from featurestore.exporters.arrow import Arrow
from featurestore.exporters.exporter import Exporter, ImageExporter, Job, ModelExporter
from featurestore.exporters.joblib import Joblib
from featurestore.exporters.model import Model
from featurestore.exporters.npy import Npy
from featurestore.exporters.npz import Npz
from featurestore.exporters.parquet import FlatParquet, Parquet
from featurestore.exporters.vecs import Bvecs, Fvecs

__all__ = ["FORMATS", "Exporter", "ImageExporter", "Job", "ModelExporter"]

FORMATS: tuple[Exporter, ...] = (
    Npz(),
    Npy(),
    Parquet(),
    FlatParquet(),
    Arrow(),
    Fvecs(),
    Bvecs(),
    Model(),
    Joblib(),
)
