"""The contract of export formats, whatever their files hold."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from featurestore.api import FeatureStore
from featurestore.errors import OutputError, QueryError
from featurestore.exchange import Exporter, ImageExporter, find_format
from featurestore.testing.pictures import write_pictures


def contents(path: Path) -> dict[str, str]:
    """Return the digest of every file at or below a path."""
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    return {one.name if path.is_dir() else "": hashlib.sha256(one.read_bytes()).hexdigest() for one in paths}


def names(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


class Stopped(Exception):
    """The error in the middle."""


class ExporterContract:
    """The suite of a format: give the fixture ``exporter``. Its package has to be installed."""

    @pytest.fixture
    def exporter(self) -> Exporter:
        """Return the format."""
        raise NotImplementedError(f"{type(self).__name__}.exporter")

    @pytest.fixture(scope="class")
    def store(self, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
        """Return a small store in which every stage is done. Not to be changed."""
        folder = tmp_path_factory.mktemp("store")
        dataset = write_pictures(folder / "images")
        made = FeatureStore.create(folder / "store", images=folder / "images", dataset=dataset, chunk_size=4)
        recipe = made.path / "featurestore.toml"
        text = recipe.read_text("utf-8")
        text = text.replace("n_components = 64", "n_components = 8").replace("top = 1800", "top = 50")
        recipe.write_text(text, "utf-8")
        made.run(workers=0)
        return made

    def test_it_says_what_it_is(self, exporter: Exporter) -> None:
        assert find_format(exporter.name) == exporter
        assert exporter.about
        assert "\n" not in exporter.about

    def test_the_same_export_is_the_same_bytes(self, store: FeatureStore, exporter: Exporter, tmp_path: Path) -> None:
        summary = store.export(tmp_path / "one", exporter.name)
        store.export(tmp_path / "two", exporter.name)
        assert contents(tmp_path / "one") == contents(tmp_path / "two")
        assert set(exporter.members) <= set(contents(tmp_path / "one")) | {""}
        size = sum(path.stat().st_size for path in (tmp_path / "one").rglob("*")) or (tmp_path / "one").stat().st_size
        assert summary.n_bytes == size

    def test_existing_files_stay_unless_they_are_to_be_replaced(
        self, store: FeatureStore, exporter: Exporter, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        store.export(out, exporter.name)
        before = contents(out)
        damaged = out / exporter.members[0] if exporter.members else out
        damaged.write_bytes(b"old")
        with pytest.raises(OutputError, match=r"out exists already; choose another name, or replace it with --force"):
            store.export(out, exporter.name)
        assert damaged.read_bytes() == b"old"
        store.export(out, exporter.name, force=True)
        assert contents(out) == before
        assert names(tmp_path) == ["out"]

    def test_a_file_and_a_folder_do_not_replace_each_other(
        self, store: FeatureStore, exporter: Exporter, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        out.write_text("mine") if exporter.members else out.mkdir()
        with pytest.raises(
            OutputError, match=rf"{exporter.name} is a (file, and .* is a folder|folder, and .* is a file);"
        ):
            store.export(out, exporter.name, force=True)
        assert out.exists()

    @pytest.mark.parametrize("replaced", [False, True])
    def test_what_is_broken_off_leaves_nothing(
        self,
        store: FeatureStore,
        exporter: Exporter,
        tmp_path: Path,
        replaced: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        out = tmp_path / "out"
        if replaced:
            store.export(out, exporter.name)
        before = contents(out) if replaced else {}
        method = "write" if hasattr(exporter, "write") else "write_models"
        write = getattr(type(exporter), method)

        def stop(*arguments: Any) -> None:
            write(*arguments)
            raise Stopped

        monkeypatch.setattr(type(exporter), method, stop)
        with pytest.raises(Stopped):
            store.export(out, exporter.name, force=True)
        assert names(tmp_path) == (["out"] if replaced else [])
        assert (contents(out) if replaced else {}) == before

    def test_it_stays_out_of_the_store(self, store: FeatureStore, exporter: Exporter) -> None:
        with pytest.raises(OutputError, match=r"lies in the store, which manages its own files"):
            store.export(store.path / "models" / "out", exporter.name)


class ImageExporterContract(ExporterContract):
    """The suite of a format that holds descriptors of images: give the fixture ``exporter``."""

    def test_only_what_was_chosen_is_written(
        self, store: FeatureStore, exporter: ImageExporter, tmp_path: Path
    ) -> None:
        expected = store.sql(
            "SELECT count(*), sum(n_descriptors) FROM descriptor_counts "
            f"WHERE stage = '{exporter.stage or 'quantize'}' AND subset = 'test'"
        ).fetchall()
        summary = store.export(tmp_path / "out", exporter.name, where="subset = 'test'")
        assert [(summary.n_images, summary.n_descriptors)] == expected

    def test_nothing_is_nothing_to_export(self, store: FeatureStore, exporter: Exporter, tmp_path: Path) -> None:
        with pytest.raises(QueryError, match=r"^where \"filename = 'x'\" chooses no image, so there is nothing"):
            store.export(tmp_path / "out", exporter.name, where="filename = 'x'")
        assert names(tmp_path) == []

    def test_images_without_descriptors_are_no_obstacle(
        self, store: FeatureStore, exporter: ImageExporter, tmp_path: Path
    ) -> None:
        none = f"SELECT image_id FROM descriptor_counts WHERE stage = '{exporter.stage or 'quantize'}'"
        where = f"image_id IN ({none} AND n_descriptors = 0)"
        summary = store.export(tmp_path / "out", exporter.name, where=where)
        assert summary.n_images > 0
        assert summary.n_descriptors == 0
