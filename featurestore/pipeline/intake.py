"""The input of an ingest: the rows of the dataset file, the file's state, and a check that the images exist."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.catalog import Context, Observed, WritableContext, first_leakage, path_key, resolve
from featurestore.config import with_types
from featurestore.errors import ConfirmationNeeded, DatasetError, UnreadableFile
from featurestore.storage import CONFIG, Writer
from featurestore.system import changed_ns, file_digest, is_file

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.pipeline.ingest import IngestReport
    from featurestore.system import Spill


def take_in(
    context: WritableContext, path: Path | None, confirm: Callable[[str], bool], *, types: Mapping[str, str]
) -> IngestReport:
    """Ingest a dataset file, or with None the folder of images; return the report.

    ``types`` gives types of columns in addition to the recipe's, and is stored there.

    Raises:
        ConfirmationNeeded: ``confirm`` did not agree.
        DatasetError: the dataset, the split or the folder of images can't be used.
    """
    import pyarrow.compute as pc

    from featurestore.dataset import (
        is_subset,
        read_images,  # imported late: `status` needs none of these
    )
    from featurestore.images import open_source, shards_of
    from featurestore.pipeline.ingest import ingest_rows
    from featurestore.system import Spill

    spill, settings, observed = Spill(context.root.path), context.settings, None
    if path is None:
        source, given = open_source(context.images), {**settings.types, **types}
        if types and not shards_of(source):
            raise DatasetError("There is no dataset, so no column can have a type. Give one with --dataset.")
        rows = read_images(source, split=settings.split, types=given, spill=spill)
        is_train = pc.all(pc.equal(rows["subset"], "train")).as_py()
        warnings = ["there is no dataset CSV, so every image is train, and none is test"] if is_train else []
    else:
        observed = observe(path)
        rows = _read(context, path, {**settings.types, **types}, spill)
        warnings = look_for_new(context, rows)
    with _recipe_with(context.root, types):
        report = ingest_rows(
            context.root,
            context.catalog,
            rows,
            chunk_size=settings.chunk_size,
            computed=not is_subset(settings.split),
            confirm=confirm,
            spill=spill,
        )
        record(context, observed)
    with context.catalog.reading() as connection:
        leakage = first_leakage(connection, resolve(connection, context.flow))
    if leakage is not None:
        warnings.append(leakage)
    others = [f"{n:,} {name}" for name, n in report.subsets.items() if name not in ("train", "test")]
    if others:
        what = f"the split gives other names than train and test ({', '.join(others)})"
        warnings.append(f"{what}; nothing is learnt from these")
    return replace(report, warnings=warnings)


@contextmanager
def _recipe_with(root: Writer, types: Mapping[str, str]) -> Iterator[None]:
    """Write types of columns into the recipe before their ingest, and restore the recipe if the ingest fails."""
    before = root.local(CONFIG).read_text(encoding="utf-8")
    if types:
        _write_recipe(root, with_types(before, types))
    try:
        yield
    except ConfirmationNeeded:
        if types:
            _write_recipe(root, before)
        raise


def _write_recipe(root: Writer, text: str) -> None:
    with root.publishing(CONFIG) as temporary:
        temporary.write_text(text, encoding="utf-8")
        shutil.copymode(root.local(CONFIG), temporary)


def _read(context: Context, path: Path, types: Mapping[str, str], spill: Spill) -> pa.Table:
    from featurestore.catalog import column_types
    from featurestore.dataset import read_dataset

    settings = context.settings
    with context.catalog.reading() as connection:
        known = column_types(connection)
    return read_dataset(
        path,
        filename_column=settings.filename_column,
        split=settings.split,
        known=known,
        types=types,
        spill=spill,
    )


def look_for_new(context: Context, rows: pa.Table) -> list[str]:
    """Look for the files of new images, and return a warning if some are absent.

    Raises:
        DatasetError: the store is new, and not one of them exists.
    """
    from featurestore.catalog import new_filenames
    from featurestore.images import MOST_NAMES, look_for_images, why_absent

    if why_absent(context.images) is not None:  # the run reports it; an ingest does not need the images
        return []
    with context.catalog.reading() as connection:
        names = new_filenames(connection, rows, MOST_NAMES)
    found = look_for_images(context.source, names)
    if found.n_absent == found.n_looked and not context.root.files("dataset", ".parquet"):
        text = str(found)
        raise DatasetError(f"{text}{'' if text.endswith('?') else '.'} Nothing was made")
    return [str(found)] if found.n_absent else []


def observe(path: Path) -> Observed | None:
    """Return the size, time and digest of a dataset file; call it before reading the file.

    None if it can't be read; the reader then raises the error.
    """
    try:
        if not is_file(path):
            return None
        found = path.stat()
        return Observed(path_key(path), n_bytes=found.st_size, mtime_ns=changed_ns(found), digest=file_digest(path))
    except (OSError, UnreadableFile):
        return None


def record(context: WritableContext, observed: Observed | None) -> None:
    """Record a dataset file that was read."""
    from featurestore.catalog import record_observed

    if observed is not None:
        with context.catalog.transaction() as connection:
            record_observed(connection, observed)
