"""The copy of the catalog that an open store keeps for its next question, until the catalog or the recipe changes.

Most of a question's time goes into a DuckDB of its own, 20 ms, and into the copy. Nothing of the store is open or
locked in between. Each question has a connection, and with it temporary views and tables, of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from featurestore.catalog import (
    CATALOG_VIEWS,
    Catalog,
    Context,
    Instance,
    Version,
    WritableCatalog,
    attach_copy,
    file_version,
    make_catalog_views,
    make_plan,
    resolve,
)
from featurestore.errors import QueryError
from featurestore.query.exact import answer_table
from featurestore.query.explain import explain
from featurestore.query.views import MISSING, lock_down, make_missing, set_up
from featurestore.system import lasting_scratch_folder


class KeptCopy:
    """A copy of the catalog in a DuckDB that is locked down, so that questions leave nothing behind."""

    def __init__(self, context: Context, *, planned: bool) -> None:
        """Copy the catalog; with the plan of a run if ``planned``."""
        self._flow = context.flow
        self._instance = Instance()
        folder = lasting_scratch_folder()
        weakref.finalize(self, _put_away, self._instance, folder, os.getpid())
        with self._instance.connect() as connection:
            set_up(connection, folder)
            with context.catalog.reading() as catalog:
                self._version = file_version(context.catalog.path)
                self._steps = resolve(catalog, context.flow)
                self._plans = make_plan(catalog, self._steps) if planned else None
                attach_copy(connection, catalog, folder)
            lock_down(connection, [])

    def serves(self, context: Context, version: Version | None, *, planned: bool) -> bool:
        """Return whether it is what a new copy would be."""
        return (
            self._instance.is_open  # not in a forked process
            and version is not None
            and version == self._version
            and context.flow == self._flow
            and (self._plans is not None or not planned)
        )

    @contextmanager
    def connect(self, names: Collection[str]) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection with those of the catalog's views that are among ``names``."""
        with self._instance.connect() as connection:
            if MISSING in names and self._plans is not None:
                make_missing(connection, self._plans)
            if views := [view for view in CATALOG_VIEWS if view in names]:
                make_catalog_views(connection, views, self._steps)
            yield connection
        try:
            with self._instance.connect() as other:  # the first one may have the unread rest of a result
                other.execute(f"DROP TABLE IF EXISTS {answer_table(connection)}")
        except duckdb.Error:
            self._instance.close()


def can_keep(catalog: Catalog) -> bool:
    """Return whether a copy may be kept: of a store's own catalog that is not large, since it stays in memory."""
    return not isinstance(catalog, WritableCatalog) and catalog.is_small


@contextmanager
def kept_copy(context: Context, text: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection to a copy of the catalog with the views that ``text`` names, all of `SNAPSHOT_VIEWS`.

    After an error the copy is not used again.

    Raises:
        QueryError: DuckDB can't make the views.
    """
    catalog, names = context.catalog, set(re.findall(r"\w+", text.lower()))
    try:
        copy = _copy(context, planned=MISSING in names)
        with copy.connect(names) as connection:
            yield connection
    except BaseException as error:
        catalog.kept = None  # DuckDB may accept no more statements
        if isinstance(error, duckdb.Error):
            raise QueryError(explain(error, context.flow)) from None
        raise


def _copy(context: Context, *, planned: bool) -> KeptCopy:
    found = context.catalog.kept  # other threads may replace it at any time
    if isinstance(found, KeptCopy):
        if found.serves(context, context.catalog.version(), planned=planned):
            return found
        context.catalog.kept = found = None
    made = KeptCopy(context, planned=planned)
    context.catalog.kept = made
    return made


def _put_away(instance: Instance, folder: Path | None, pid: int) -> None:
    if pid == os.getpid():  # both belong to the process that made them
        with suppress(duckdb.Error):  # at the end of a process, another thread may be asking: its question ends with it
            instance.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
