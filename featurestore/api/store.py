"""`FeatureStore`: the facade that users hold. Every verb of the command line is one method of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from featurestore.api.maintain import Upkeep
from featurestore.api.run import Running
from featurestore.api.show import Showing
from featurestore.config import StoreSettings, check_given, initial, render
from featurestore.errors import DatasetError, FeatureStoreError, StoreExists
from featurestore.images import existing_images
from featurestore.stages import FLOW
from featurestore.storage import (
    CONFIG,
    FOLDERS,
    Root,
    own_partitions,
    partitions_at,
    refuse_owned,
)
from featurestore.system import StrPath, command_line, is_text, located, replacing, shown, store_folder


class FeatureStore(Showing, Upkeep, Running):
    """A store of local image descriptors in a folder.

    Example::

        store = FeatureStore.create("wikiart", images="images/", dataset="dataset.csv")
        store.run()
        store.sql("SELECT subset, sum(n_descriptors) FROM descriptor_counts GROUP BY ALL").df()

    ``ingested`` is the report of the last ingest through this object, `create` included.
    """

    @classmethod
    def create(
        cls,
        path: StrPath,
        *,
        images: StrPath,
        dataset: StrPath | None = None,
        filename_column: str = "filename",
        split: str = "subset",
        chunk_size: int = 1000,
        partitions: str = "",
        types: Mapping[str, str] | None = None,
    ) -> FeatureStore:
        """Make a store and ingest its dataset; the folder appears when both have succeeded.

        Args:
            path: the new folder.
            images: the folder of images, or a file that holds them, see ``docs/sources.md``.
            dataset: the dataset, a CSV, Parquet or JSON file; None scans the folder of images, and holds nothing out.
            filename_column: the dataset's column of paths below ``images``.
            split: SQL over the dataset's columns that gives ``'train'`` or ``'test'``.
            chunk_size: images in a chunk.
            partitions: where partitions are kept: in the folder, or at an address like ``s3://bucket/prefix``, which no
                other store may have. See ``docs/object-store.md``.
            types: types of dataset columns by name, instead of the inferred ones: VARCHAR, BIGINT, DOUBLE, BOOLEAN,
                DATE or TIMESTAMP. The recipe keeps them.

        Raises:
            UnusablePath: the system, or DuckDB, can't open such a path.
            StoreExists: ``path`` exists and is not empty.
            NotWritable: the folder can't be created.
            DatasetError: the CSV, the split or the folder of images can't be used.
            ConfigError: ``partitions`` can't be used, or another store has it.
            MissingDependency: an address needs the extra ``s3``.
            UnreadableFile: the service at the address does not answer.
        """
        target = store_folder(path)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            is_store = (target / CONFIG).exists()
            other = f", or go on with: {command_line('run', path)}" if is_store else ": it is no store, and not empty"
            raise StoreExists(f"{target} exists already; choose another folder{other}")
        where = existing_images(images)
        settings = {
            "images": _for_the_recipe(where),
            "dataset": _for_the_recipe(located(dataset, "the dataset")) if dataset is not None else "",
            "filename_column": filename_column,
            "split": split,
            "chunk_size": chunk_size,
            "partitions": partitions,
            "types": dict(types or {}),
        }
        check_given(settings)
        elsewhere = partitions_at(partitions)
        if elsewhere is not None:
            refuse_owned(elsewhere)
        with replacing(target, str(target), owned=True) as draft:
            _lay_out(draft, StoreSettings(**{**settings, "partitions": ""}))  # type: ignore[arg-type]
            made = cls(draft)
            made.ingest()
            _write_recipe(draft, StoreSettings(**settings))  # type: ignore[arg-type]
            own_partitions(Root(draft, elsewhere), called=target)  # last: nothing is taken by a store that is not made
        store = cls(target)
        store.ingested = made.ingested
        return store


def _for_the_recipe(path: StrPath) -> str:
    if not is_text(path):
        raise DatasetError(f"{shown(path)} is not UTF-8, and the recipe, which names it, is; rename the file or folder")
    return str(path)


def _lay_out(folder: Path, settings: StoreSettings) -> None:
    folder.mkdir()
    for name in FOLDERS:
        (folder / name).mkdir()
    _write_recipe(folder, settings)


def _write_recipe(folder: Path, settings: StoreSettings) -> None:
    stages = [(stage.name, initial(stage)) for stage in FLOW]
    (folder / CONFIG).write_text(render([("store", settings), *stages]), encoding="utf-8")


__all__ = ["FeatureStore", "FeatureStoreError"]
