"""What every format of export keeps to, whatever is in its files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.catalog import Context
from featurestore.cli.exchange import FORMATS as NAMES
from featurestore.errors import OutputError, QueryError
from featurestore.exchange import export_images, export_models, find_format
from featurestore.exchange.exporters import FORMATS, Exporter, ImageExporter, ModelExporter
from featurestore.progress import StageSummary
from featurestore.query import select_images

EVERY = pytest.mark.parametrize("exporter", FORMATS, ids=lambda exporter: exporter.name)
OF_IMAGES = pytest.mark.parametrize(
    "exporter", [one for one in FORMATS if isinstance(one, ImageExporter)], ids=lambda exporter: exporter.name
)


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.expected, self.done, self.summaries = 0, 0, list[StageSummary | None]()

    def begin(self, stage: str, n_images: int) -> None:
        self.expected = n_images

    def advance(self, n_images: int) -> None:
        self.done += n_images

    def say(self, line: str) -> None:
        raise AssertionError(line)

    def end(self, summary: StageSummary | None) -> None:
        self.summaries.append(summary)


def contents(path: Path) -> dict[str, str]:
    """The digest of every file at or below a path."""
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    return {one.name if path.is_dir() else "": hashlib.sha256(one.read_bytes()).hexdigest() for one in paths}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_command_line_knows_every_format() -> None:
    assert tuple(exporter.name for exporter in FORMATS) == NAMES


@EVERY
def test_it_says_what_it_is(exporter: Exporter) -> None:
    assert find_format(exporter.name) is exporter
    assert exporter.about
    assert "\n" not in exporter.about


def test_an_unknown_format_is_named(finished: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"^there is no format 'csv'; the formats are npz, npy, parquet"):
        finished.export(tmp_path / "out", "csv")


@EVERY
def test_the_same_export_is_the_same_bytes(finished: FeatureStore, exporter: Exporter, tmp_path: Path) -> None:
    summary = finished.export(tmp_path / "one", exporter.name)
    finished.export(tmp_path / "two", exporter.name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert set(exporter.members) <= set(contents(tmp_path / "one")) | {""}
    size = sum(path.stat().st_size for path in (tmp_path / "one").rglob("*")) or (tmp_path / "one").stat().st_size
    assert summary.n_bytes == size


@OF_IMAGES
def test_it_tells_how_far_it_is(finished: FeatureStore, exporter: ImageExporter, tmp_path: Path) -> None:
    heard = Heard()
    own = finished._context(heard)
    selection = select_images(own, where="photo = 'china'")
    summary = export_images(own, selection, tmp_path / "out", exporter, force=False)
    assert heard.expected >= 12
    assert heard.done % heard.expected == 0, "a format may go over the images twice, but not over some of them"
    assert heard.done
    assert heard.summaries == [summary]
    assert summary.n_images == heard.expected


@EVERY
def test_what_is_there_stays_unless_it_is_to_be_replaced(
    finished: FeatureStore, exporter: Exporter, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    finished.export(out, exporter.name)
    before = contents(out)
    damaged = out / exporter.members[0] if exporter.members else out
    damaged.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"out exists already; choose another name, or replace it with --force"):
        finished.export(out, exporter.name)
    assert damaged.read_bytes() == b"old"
    finished.export(out, exporter.name, force=True)
    assert contents(out) == before
    assert names(tmp_path) == ["out"]


@EVERY
def test_a_file_and_a_folder_do_not_replace_each_other(
    finished: FeatureStore, exporter: Exporter, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.write_text("mine") if exporter.members else out.mkdir()
    with pytest.raises(
        OutputError, match=rf"{exporter.name} is a (file, and .* is a folder|folder, and .* is a file);"
    ):
        finished.export(out, exporter.name, force=True)
    assert out.exists()


class Stopped(Exception):
    """What happens in the middle."""


def export_to(context: Context, out: Path, exporter: Exporter) -> None:
    if isinstance(exporter, ImageExporter):
        export_images(context, select_images(context), out, exporter, force=True)
    else:
        assert isinstance(exporter, ModelExporter)
        export_models(context, out, exporter, None, force=True)


@EVERY
@pytest.mark.parametrize("replaced", [False, True])
def test_what_is_broken_off_leaves_nothing(
    finished: FeatureStore, exporter: Exporter, tmp_path: Path, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    if replaced:
        finished.export(out, exporter.name)
    before = contents(out) if replaced else {}
    method = "write" if isinstance(exporter, ImageExporter) else "write_models"
    write = getattr(type(exporter), method)

    def stop(*arguments: Any) -> None:
        write(*arguments)
        raise Stopped

    monkeypatch.setattr(type(exporter), method, stop)
    heard = Heard()
    with pytest.raises(Stopped):
        export_to(finished._context(heard), out, exporter)
    assert heard.summaries == [None]
    assert names(tmp_path) == (["out"] if replaced else [])
    assert (contents(out) if replaced else {}) == before


@OF_IMAGES
def test_only_what_was_chosen_is_written(finished: FeatureStore, exporter: Exporter, tmp_path: Path) -> None:
    expected = finished.sql(
        "SELECT count(*), sum(n_descriptors) FROM descriptor_counts WHERE stage = 'quantize' AND subset = 'test'"
    ).fetchall()
    summary = finished.export(tmp_path / "out", exporter.name, where="subset = 'test'")
    assert [(summary.n_images, summary.n_descriptors)] == expected


@OF_IMAGES
def test_nothing_is_nothing_to_export(finished: FeatureStore, exporter: Exporter, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"^where \"photo = 'x'\" chooses no image, so there is nothing to export"):
        finished.export(tmp_path / "out", exporter.name, where="photo = 'x'")
    assert names(tmp_path) == []


@OF_IMAGES
def test_images_without_descriptors_are_no_obstacle(finished: FeatureStore, exporter: Exporter, tmp_path: Path) -> None:
    summary = finished.export(tmp_path / "out", exporter.name, where="filename IN ('blank.jpg', 'broken.jpg')")
    assert (summary.n_images, summary.n_descriptors) == (2, 0)


@EVERY
def test_it_stays_out_of_the_store(finished: FeatureStore, exporter: Exporter) -> None:
    with pytest.raises(OutputError, match=r"lies in the store, which manages its own files"):
        finished.export(finished.path / "models" / "out", exporter.name)
