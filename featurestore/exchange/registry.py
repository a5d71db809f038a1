"""Formats of `export` by name: one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurestore.errors import QueryError
from featurestore.registry import Registry

if TYPE_CHECKING:
    from featurestore.exchange.exporters.base import Exporter

_FOLDER = "featurestore.exchange.exporters"
EXPORTERS: Registry[type[Exporter]] = Registry(
    "format",
    "featurestore.exporters",
    {
        "npz": f"{_FOLDER}.npz:Npz",
        "npy": f"{_FOLDER}.npy:Npy",
        "parquet": f"{_FOLDER}.parquet:Parquet",
        "parquet-flat": f"{_FOLDER}.parquet:FlatParquet",
        "arrow": f"{_FOLDER}.arrow:Arrow",
        "fvecs": f"{_FOLDER}.vecs:Fvecs",
        "bvecs": f"{_FOLDER}.vecs:Bvecs",
        "colmap": f"{_FOLDER}.colmap:Colmap",
        "hloc": f"{_FOLDER}.hloc:Hloc",
        "model": f"{_FOLDER}.model:Model",
        "joblib": f"{_FOLDER}.joblib:Joblib",
    },
    error=QueryError,
)
