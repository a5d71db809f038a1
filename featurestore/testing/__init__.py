"""testing: the contracts of plug-ins, as classes for pytest. A plug-in's tests make a subclass of its kind's.

Example::

    from featurestore.testing import ExtractorContract

    class TestSuperPoint(ExtractorContract):
        @pytest.fixture
        def extractor(self):
            return SuperPoint()

pytest is needed: ``pip install featurestore[testing]``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.testing.chunk_stages import ChunkStageContract
    from featurestore.testing.engines import EngineContract
    from featurestore.testing.exporters import ExporterContract, ImageExporterContract
    from featurestore.testing.extractors import ExtractorContract
    from featurestore.testing.fit_stages import FitStageContract

__all__ = [
    "ChunkStageContract",
    "EngineContract",
    "ExporterContract",
    "ExtractorContract",
    "FitStageContract",
    "ImageExporterContract",
]

_HOMES = {
    "ChunkStageContract": "chunk_stages",
    "EngineContract": "engines",
    "ExporterContract": "exporters",
    "ExtractorContract": "extractors",
    "FitStageContract": "fit_stages",
    "ImageExporterContract": "exporters",
}


def __getattr__(name: str) -> Any:
    """Import a suite on first use: a worker that loads a task of `featurestore.testing.tasks` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'featurestore.testing' has no attribute {name!r}")
    import pytest

    home = f"featurestore.testing.{_HOMES[name]}"
    pytest.register_assert_rewrite(home)  # before it is imported
    return getattr(importlib.import_module(home), name)
