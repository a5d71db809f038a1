"""The models that are recorded."""

from __future__ import annotations

import sqlalchemy as sa

from featurestore.catalog.table_rows import ModelRow, query_rows


def find_model(connection: sa.Connection, model_id: str | None) -> ModelRow | None:
    """Return a model, None if there is no such one."""
    found = query_rows(connection, ModelRow, "SELECT * FROM models WHERE model_id = $id", {"id": model_id})
    return found[0] if found else None


def newest_model(connection: sa.Connection, variant: str | None) -> ModelRow | None:
    """Return the newest model of a fit variant, or None."""
    query = "SELECT * FROM models WHERE variant = $variant ORDER BY generation DESC, model_id LIMIT 1"
    found = query_rows(connection, ModelRow, query, {"variant": variant})
    return found[0] if found else None


def models_that_learnt(connection: sa.Connection, image_id: int) -> list[ModelRow]:
    """Return the models that have learnt from an image, by stage, older ones first."""
    query = """SELECT m.* FROM training_images t JOIN models m ON m.model_id = t.model_id
               WHERE t.image_id = $id ORDER BY m.stage, m.generation, m.model_id"""
    return query_rows(connection, ModelRow, query, {"id": image_id})
