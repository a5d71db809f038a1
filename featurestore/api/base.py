"""An open store: its folder, its recipe, and the lock under which it may be changed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from featurestore.catalog import Catalog, Context, WritableContext
from featurestore.config import StoreSettings, build, check_format, check_names, read_tables
from featurestore.errors import NotAStore, UntrustedStore
from featurestore.progress import Reporter, Silent
from featurestore.stages import STAGES, flow_from
from featurestore.storage import CONFIG, Root, exclusive, own_partitions, partitions_at
from featurestore.system import StrPath, is_file, status_of, store_folder, typed


class OpenStore:
    """The base class of `FeatureStore`: an open store."""

    left_out: tuple[str, ...] = ()
    _vetted: Catalog | None = None  # only of an untrusted store
    _catalog: Catalog | None = None  # kept for its DuckDB, which takes 20 ms to make

    def __init__(self, path: StrPath, *, untrusted: Literal[False] = False) -> None:
        """Open the store at ``path``. Only its recipe is read, and nothing is locked.

        Args:
            path: the store's folder.
            untrusted: no longer supported; use `open_untrusted`.

        Raises:
            UnusablePath: the system, or DuckDB, can't open such a path.
            NotAStore: there is no ``featurestore.toml`` in the folder.
            ConfigError: the recipe can't be used.
            FormatError: the store was made by a newer version.
            UntrustedStore: ``untrusted`` was given.
            UnreadableFile: the folder or the recipe can't be read.
        """
        if untrusted:
            raise UntrustedStore(
                f"{type(self).__name__}(path, untrusted=True) does not open untrusted stores any more; open this one "
                f"with {type(self).__name__}.open_untrusted(path)"
            )
        self.path = store_at(path)
        self._context(Silent())

    @classmethod
    def open_untrusted(cls, path: StrPath) -> Self:
        """Open an untrusted store for reading only.

        Its catalog is ignored. A new one is built in memory from the files that pass all checks, which takes as long
        as reading them all. ``left_out`` has a line for each of the others.

        Raises:
            UnusablePath: the system, or DuckDB, can't open such a path.
            NotAStore: there is no ``featurestore.toml`` in the folder.
            ConfigError: the recipe can't be used.
            FormatError: the store was made by a newer version.
            UntrustedStore: it holds links or devices, or its partitions are elsewhere.
            CorruptFile: its dataset files can't be used.
            UnreadableFile: the folder, the recipe or a dataset file can't be read.
        """
        from featurestore.maintenance import refuse_links, vetted_catalog

        folder = store_at(path)
        refuse_links(folder)  # before reading the recipe, which might be a link
        store = cls(folder)
        if not store._context(Silent()).root.partitions.is_local:
            raise UntrustedStore(
                f"{folder} has its partitions elsewhere, and of an untrusted store only its own folder is read; copy "
                "them into it, and take `partitions` out of featurestore.toml"
            )
        store._vetted, store.left_out = vetted_catalog(store._context(Silent()).root)
        return store

    def _context(self, reporter: Reporter) -> Context:
        # Read again for every verb: the user may have edited the recipe.
        if status_of(self.path) is None:
            raise NotAStore(f"{self.path} does not exist any more; if the store was moved, open it where it is now")
        tables = read_tables(self.path / CONFIG)
        check_format(tables)
        check_names(tables, ["store", *STAGES.names()])
        settings = build(StoreSettings, tables.get("store", {}), where="store")
        root = Root(self.path, partitions_at(settings.partitions))
        catalog = self._vetted or self._catalog
        if catalog is None:
            catalog = self._catalog = Catalog(root)
        return Context(
            root,
            catalog,
            settings,
            flow_from({name: table for name, table in tables.items() if name != "store"}),
            reporter,
        )

    @contextmanager
    def _changing(self, verb: str, reporter: Reporter) -> Iterator[WritableContext]:
        from featurestore.maintenance import recover_store

        with self._held(verb, reporter) as context:
            context.catalog.migrate()
            recover_store(context)
            yield context

    @contextmanager
    def _held(self, verb: str, reporter: Reporter) -> Iterator[WritableContext]:
        """Hold the run lock for the length of ``verb``.

        Raises:
            UntrustedStore: the store was opened as one, and can't be changed.
            StoreBusy: another process holds it.
        """
        self._refuse_untrusted(verb)
        context = self._context(reporter)
        with exclusive(context.root, verb, say=reporter.say) as writer:
            own_partitions(writer)
            yield context.changed_by(writer)

    def _refuse_untrusted(self, verb: str) -> None:
        if self._vetted is not None:
            raise UntrustedStore(
                f"{self.path} was opened as untrusted, so {verb} can't change it; "
                "if you trust it, open it without --untrusted (in Python: FeatureStore(path))"
            )


def store_at(path: StrPath, *, is_other: bool = False) -> Path:
    """Return the folder of a store; ``is_other``: it was named beside one, and to make it is no way out.

    Raises:
        UnusablePath: the system, or DuckDB, can't open such a path.
        NotAStore: there is no ``featurestore.toml`` in it.
        UnreadableFile: it can't be read.
    """
    folder = store_folder(path)
    if not is_file(folder / CONFIG):
        found, where = status_of(folder), "STORE"  # `init` makes no store where something is
        if found is None:
            what, where = "does not exist", typed(folder)
        elif stat.S_ISDIR(found.st_mode):
            what = "is not a store: it has no featurestore.toml"
        else:
            what = "is a file, and not the folder of a store"
        advice = "" if is_other else f"; make one with: featurestore init {where} --images DIR --dataset CSV"
        raise NotAStore(f"{folder} {what}{advice}")
    return folder
