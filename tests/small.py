"""Small images and a small recipe: a whole flow in a second, with every batch and every chunk boundary still in it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tomlkit
from click.testing import CliRunner, Result

from featurestore import FeatureStore
from featurestore.catalog import ModelRow, WritableContext
from featurestore.cli.program import cli
from featurestore.progress import Reporter, Silent
from featurestore.rows import OUTSIDE, Row
from featurestore.stages import Extract
from featurestore.storage import PartitionFile, Root, Writer, block_names, read_block
from tests.broken_images import encoded, picture

# Pictures of 160 x 120 have about 550 descriptors: some are drawn and some left, and batches end within chunks.
SMALL: dict[str, dict[str, Any]] = {
    "fit_pca": {"n_components": 16, "samples_per_image": 300, "batch_size": 700},
    "project": {"top": 200},
}


class StopAfter(Silent):
    """Ends a run as a kill does, after so many chunks of a fit."""

    def __init__(self, n_chunks: int) -> None:
        self.left = n_chunks

    def advance(self, n_images: int) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def make_small(folder: Path, *, n: int = 13, first: int = 0, size: tuple[int, int] = (160, 120)) -> Path:
    """Write ``n`` pictures and a ``dataset.csv`` that names them; every fourth is ``test``. Return the CSV.

    Pictures of 80 x 60 have some 120 descriptors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["filename,subset"]
    for number in range(first, first + n):
        name = f"{number:03d}.png"
        (folder / name).write_bytes(encoded(".png", picture(*size, seed=number)))
        lines.append(f"{name},{'test' if number % 4 == 3 else 'train'}")
    return write_dataset(folder, lines)


def write_dataset(folder: Path, lines: list[str]) -> Path:
    """Write ``dataset.csv`` and return its path."""
    path = folder / "dataset.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def small_store(
    path: Path, images: Path, *, chunk_size: int = 5, recipe: dict[str, dict[str, Any]] = SMALL
) -> FeatureStore:
    """Make a store of a folder of `make_small`, with the small recipe."""
    store = FeatureStore.create(path, images=images, dataset=images / "dataset.csv", chunk_size=chunk_size)
    change_recipe(store, recipe)
    return store


def tiny_store(folder: Path) -> FeatureStore:
    """Make a finished store of three pictures below ``folder``."""
    make_small(folder / "images", n=3)
    recipe: dict[str, dict[str, Any]] = {"fit_pca": {"n_components": 4}, "project": {"top": 20}}
    store = small_store(folder / "store", folder / "images", recipe=recipe)
    store.run(workers=0)
    return store


def copy(store: FeatureStore, path: Path) -> FeatureStore:
    """Return a copy of a store, which the test may change."""
    return FeatureStore(shutil.copytree(store.path, path))


def make_old_partition(path: Path) -> None:
    """Rewrite a partition as an earlier version wrote it, without the column."""
    with PartitionFile(path) as file:
        manifest, layout = {**file.manifest, "format": 1}, file.layout
    metadata = {"dim": str(layout.dim), "dtype": layout.dtype, "featurestore": json.dumps(manifest, sort_keys=True)}
    table = pq.read_table(path).drop_columns(list(OUTSIDE))
    pq.write_table(table.replace_schema_metadata(metadata), path)


def make_old_partitions(store: FeatureStore) -> None:
    """Rewrite all partitions of extract as `make_old_partition` does, and the catalog."""
    for path in (store.path / "partitions" / "extract").rglob("*.parquet"):
        make_old_partition(path)
    store.rebuild()


def configure(store: FeatureStore, stage: str, **values: Any) -> None:
    """Change parameters of a stage in the recipe; a dictionary changes keys of a table."""
    change_recipe(store, {stage: values})


def change_recipe(store: FeatureStore, recipe: dict[str, dict[str, Any]]) -> None:
    """Change parameters of stages in the recipe; a dictionary changes keys of a table."""
    path = store.path / "featurestore.toml"
    document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    for stage, values in recipe.items():
        for key, value in values.items():
            if isinstance(value, dict):
                document[stage][key].update(value)
            else:
                document[stage][key] = value
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


class Unlocked(Writer):
    """A writer that no run lock has given: with it a test changes a folder that no other process knows."""

    def check(self) -> None:
        """Make sure of nothing."""


def context_of(store: FeatureStore, reporter: Reporter | None = None) -> WritableContext:
    """Return what the runner is handed for a store."""
    context = store._context(reporter or Silent())
    return context.changed_by(Unlocked(store.path, context.root.partitions))


def rows_of(store: FeatureStore, stage: str, *, chunk: int | None = None) -> list[Row]:
    """Return the rows of a stage's current partitions, in ``image_id`` order."""
    where = "" if chunk is None else f"AND chunk_id = {chunk}"
    paths = store.sql(f"SELECT path FROM partitions WHERE stage = '{stage}' AND current {where} ORDER BY chunk_id")
    found: list[Row] = []
    for (path,) in paths.fetchall():
        with PartitionFile(store.path / path) as file:
            found += file.rows()
    return found


def in_blocks(store: FeatureStore) -> list[int]:
    """Return the images that are in finished blocks, in order."""
    root = Root(store.path)
    return sorted(i for named in block_names(root) for i in read_block(root, named).block.image_ids)


def note_extractions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every image is added that is extracted from here on, in this process."""
    found: list[int] = []
    original = Extract.extract

    def extract(stage: Extract, image_id: int, filename: str, path: str) -> Row:
        found.append(image_id)
        return original(stage, image_id, filename, path)

    monkeypatch.setattr(Extract, "extract", extract)
    return found


def digests(store: FeatureStore, *patterns: str) -> dict[str, str]:
    """Return the SHA-256 of every file below ``partitions`` and ``models``, or of those that match."""
    paths = [p for pattern in patterns or ("partitions/**/*", "models/**/*") for p in store.path.glob(pattern)]
    return {
        path.relative_to(store.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if path.is_file()
    }


def current_model(store: FeatureStore, stage: str) -> ModelRow:
    """Return the model that is current for a fit stage."""
    (model,) = (status.model for status in store.status().stages if status.stage == stage)
    assert model is not None
    return model


def invoke(*arguments: object) -> Result:
    """Type a command, whose errors are the result's ``exception``."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=True)
