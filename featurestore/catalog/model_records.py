"""Records of committed models: the same for a run, an adopted orphan and a rebuilt catalog."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.arrow_arrays import arrow_array, arrow_column
from featurestore.catalog.catalog import WritableCatalog
from featurestore.catalog.records import record_variant
from featurestore.catalog.statements import delete_rows, insert_arrow, upsert
from featurestore.catalog.table_rows import ModelRow
from featurestore.errors import CorruptFile
from featurestore.formatting import counted
from featurestore.storage import IMAGES, MODEL, Root, check_manifest, from_bitmap, model_id, model_name, read_arrays
from featurestore.system import file_digest, file_size

LOG = logging.getLogger("featurestore.catalog")


@dataclass(frozen=True)
class DescribedModel:
    """The catalog's record of a model."""

    manifest: dict[str, Any]
    row: ModelRow
    images: NDArray[np.int64]  # ids of its training images, ascending


def record_model(root: Root, catalog: WritableCatalog, name: str) -> ModelRow:
    """Record the committed model ``name`` and the images it learnt from; return its row.

    Raises:
        CorruptFile: the file is not a model, or does not match its name.
    """
    described = describe_model(root, name)
    model, images = described.row, described.images
    ids = arrow_column([model.model_id] * len(images), pa.string())
    learnt = pa.table({"model_id": ids, "image_id": arrow_array(images)})
    with catalog.transaction() as connection:
        record_variant(connection, {**described.manifest, "model_id": None})
        upsert(connection, "models", vars(model))
        delete_rows(connection, "training_images", {"model_id": model.model_id})
        insert_arrow(connection, "training_images", learnt)
    LOG.info("recorded %s: a model of %s", model.path, counted(model.n_images, "image"))
    return model


def describe_model(root: Root, name: str) -> DescribedModel:
    """Return the record of a model, from its arrays and the digest of its bytes.

    Raises:
        CorruptFile: the file is not a model, or does not match its name.
    """
    path = root.local(name)
    arrays, manifest = read_arrays(path)
    check_manifest(manifest, MODEL, name)
    if model_name(manifest["stage"], manifest["variant"], model_id(manifest["variant"], arrays)) != name:
        raise CorruptFile(f"{name} does not hold the arrays that its name promises")
    bitmap = arrays.get(IMAGES)
    if bitmap is None or bitmap.dtype != np.uint8 or bitmap.ndim != 1:
        raise CorruptFile(f"{name} does not say which images it learnt from")
    images = from_bitmap(bitmap)
    row = ModelRow(
        model_id=path.stem,
        **{key: manifest[key] for key in ("stage", "variant", "parent_id", "generation", "partial", "summary")},
        path=name,
        checksum=file_digest(path),
        n_bytes=file_size(path),
        n_images=len(images),
    )
    return DescribedModel(manifest, row, images)
