"""The recorded models."""

from __future__ import annotations

import numpy as np
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from featurestore.arrow_arrays import numpy_array
from featurestore.catalog.statements import query_arrow, query_column
from featurestore.catalog.table_rows import ModelRow, query_row, query_rows


def find_model(connection: DuckDBPyConnection, model_id: str | None) -> ModelRow | None:
    """Return a model, or None."""
    return query_row(connection, ModelRow, "SELECT * FROM models WHERE model_id = $id", {"id": model_id})


def newest_model(connection: DuckDBPyConnection, variant: str | None) -> ModelRow | None:
    """Return the newest model of a fit variant, or None."""
    if variant is None:  # it waits for the model of another stage
        return None
    # Not by ORDER BY and LIMIT: of a few rows that takes DuckDB twice as long, since it would read their columns later.
    found = query_rows(connection, ModelRow, "SELECT * FROM models WHERE variant = $variant", {"variant": variant})
    return min(found, key=lambda model: (-model.generation, model.model_id), default=None)


def models_that_learnt(connection: DuckDBPyConnection, image_id: int) -> list[ModelRow]:
    """Return the models that have learnt from an image, by stage, older ones first."""
    query = """SELECT m.* FROM training_images t JOIN models m ON m.model_id = t.model_id
               WHERE t.image_id = $id ORDER BY m.stage, m.generation, m.model_id"""
    return query_rows(connection, ModelRow, query, {"id": image_id})


def models_of(connection: DuckDBPyConnection, variant: str | None) -> list[ModelRow]:
    """Return the models of a fit variant, older ones first."""
    query = "SELECT * FROM models WHERE variant = $variant ORDER BY generation"
    return query_rows(connection, ModelRow, query, {"variant": variant})


def all_models(connection: DuckDBPyConnection) -> list[ModelRow]:
    """Return all models, in the order of their files."""
    return query_rows(connection, ModelRow, "SELECT * FROM models ORDER BY path")


def is_fitted(connection: DuckDBPyConnection, *, variant: str, parent_id: str | None) -> bool:
    """Return whether a fit variant has a model whose parent is ``parent_id`` (None: without a parent)."""
    query = "SELECT 1 FROM models WHERE variant = $variant AND parent_id IS NOT DISTINCT FROM $parent"
    return bool(query_column(connection, query, {"variant": variant, "parent": parent_id}))


def learnt_images(connection: DuckDBPyConnection, model_id: str) -> NDArray[np.int64]:
    """Return the ids of the images that a model learnt from, int64, ascending."""
    query = "SELECT image_id FROM training_images WHERE model_id = $id ORDER BY image_id"
    return numpy_array(query_arrow(connection, query, {"id": model_id})["image_id"])
