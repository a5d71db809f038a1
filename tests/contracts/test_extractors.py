"""Every extractor keeps to the contract."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.stages.extractors import EXTRACTORS, Extractor
from featurestore.testing import ExtractorContract

COMPUTING = [name for name in EXTRACTORS.names() if not EXTRACTORS.find(name).imported_by]


class TestExtractor(ExtractorContract):
    @pytest.fixture(params=COMPUTING)
    def extractor(self, request: pytest.FixtureRequest) -> Extractor:
        return EXTRACTORS.find(request.param)()

    @pytest.mark.parametrize("shape", [(60, 80, 3), (1, 1, 3), (2, 300, 3)])
    def test_an_image_without_keypoints_gives_none(self, extractor: Extractor, shape: tuple[int, ...]) -> None:
        keypoints, descriptors = extractor.detect_and_compute(np.full(shape, 128, np.uint8))
        assert keypoints.shape == (0,)
        assert descriptors.shape == (0, extractor.dim)
