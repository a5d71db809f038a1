"""testing: the contracts of plug-ins, as classes for pytest. A plug-in's tests make a subclass of its kind's.

Example::

    from featurestore.testing import ExtractorContract

    class TestSuperPoint(ExtractorContract):
        @pytest.fixture
        def extractor(self):
            return SuperPoint()

pytest is needed: ``pip install featurestore[testing]``.
"""

import pytest

_MODULES = ("extractors", "chunk_stages", "fit_stages", "engines", "exporters")
pytest.register_assert_rewrite(*(f"featurestore.testing.{module}" for module in _MODULES))

from featurestore.testing.chunk_stages import ChunkStageContract  # noqa: E402 - after their asserts are registered
from featurestore.testing.engines import EngineContract  # noqa: E402
from featurestore.testing.exporters import ExporterContract, ImageExporterContract  # noqa: E402
from featurestore.testing.extractors import ExtractorContract  # noqa: E402
from featurestore.testing.fit_stages import FitStageContract  # noqa: E402

__all__ = [
    "ChunkStageContract",
    "EngineContract",
    "ExporterContract",
    "ExtractorContract",
    "FitStageContract",
    "ImageExporterContract",
]
