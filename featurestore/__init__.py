"""featurestore: a database-backed store of local image descriptors.

`FeatureStore`, the `Images` that it selects and the errors are all that is public. They are imported on first use, so
that a worker process and ``featurestore --help`` load no more than they need.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from featurestore._version import __version__

if TYPE_CHECKING:
    from featurestore import errors
    from featurestore.api import FeatureStore, Images
    from featurestore.errors import FeatureStoreError

__all__ = ["FeatureStore", "FeatureStoreError", "Images", "__version__", "errors"]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # what becomes of records is the program's choice

_HOMES = {
    "FeatureStore": "featurestore.api.store",
    "FeatureStoreError": "featurestore.errors",
    "Images": "featurestore.api.images",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "errors":
        return importlib.import_module("featurestore.errors")
    raise AttributeError(f"module 'featurestore' has no attribute {name!r}")
