"""Every format of export keeps to the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import QueryError
from featurestore.exchange import export_images, find_format
from featurestore.exchange.exporters.base import Exporter, ImageExporter
from featurestore.exchange.registry import EXPORTERS
from featurestore.progress import StageSummary
from featurestore.query import select_images
from featurestore.testing import ExporterContract, ImageExporterContract

FORMATS = [find_format(name) for name in EXPORTERS.names()]
OF_IMAGES = [one for one in FORMATS if isinstance(one, ImageExporter)]
OF_MODELS = [one for one in FORMATS if not isinstance(one, ImageExporter)]


class OfFinished:
    """A contract's store is the finished one."""

    @pytest.fixture
    def store(self, finished: FeatureStore) -> FeatureStore:
        return finished


class TestImageExporter(OfFinished, ImageExporterContract):
    @pytest.fixture(params=OF_IMAGES, ids=lambda exporter: exporter.name)
    def exporter(self, request: pytest.FixtureRequest) -> Exporter:
        found: Exporter = request.param
        return found


class TestModelExporter(OfFinished, ExporterContract):
    @pytest.fixture(params=OF_MODELS, ids=lambda exporter: exporter.name)
    def exporter(self, request: pytest.FixtureRequest) -> Exporter:
        found: Exporter = request.param
        return found


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.expected, self.done, self.summaries = 0, 0, list[StageSummary | None]()
        self.said: list[str] = []

    def begin(self, stage: str, n_images: int) -> None:
        self.expected = n_images

    def advance(self, n_images: int) -> None:
        self.done += n_images

    def say(self, line: str) -> None:
        self.said.append(line)

    def end(self, summary: StageSummary | None) -> None:
        self.summaries.append(summary)


@pytest.mark.parametrize("exporter", OF_IMAGES, ids=lambda exporter: exporter.name)
def test_it_tells_how_far_it_is(finished: FeatureStore, exporter: ImageExporter, tmp_path: Path) -> None:
    heard = Heard()
    own = finished._context(heard)
    selection = select_images(own, where="photo = 'china'", stage=exporter.stage)
    summary = export_images(own, selection, tmp_path / "out", exporter, force=False)
    assert heard.expected >= 12
    assert heard.done % heard.expected == 0, "a format may go over the images twice, but not over some of them"
    assert heard.done
    assert heard.summaries == [summary]
    assert all(line.startswith("left out") for line in heard.said)
    assert summary.n_images == heard.expected


def test_an_unknown_format_is_named(finished: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"^there is no format 'csv'; the formats are npz, npy, parquet"):
        finished.export(tmp_path / "out", "csv")
