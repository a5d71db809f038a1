"""The formats of `export`: one file each, and all of them in one tuple.

To add a format, write its file and name it in `FORMATS`.
"""

from __future__ import annotations

from featurestore.exchange.exporters.arrow import Arrow
from featurestore.exchange.exporters.base import Exporter, ImageExporter, Job, ModelExporter
from featurestore.exchange.exporters.joblib import Joblib
from featurestore.exchange.exporters.model import Model
from featurestore.exchange.exporters.npy import Npy
from featurestore.exchange.exporters.npz import Npz
from featurestore.exchange.exporters.parquet import FlatParquet, Parquet
from featurestore.exchange.exporters.vecs import Bvecs, Fvecs

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
