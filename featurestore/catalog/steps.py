"""The stages of the recipe with their variants and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from featurestore.catalog.models import newest_model
from featurestore.catalog.table_rows import ModelRow, VariantRow, query_rows
from featurestore.stages import FitStage, Stage


@dataclass(frozen=True)
class Step:
    """A stage of the recipe, with its variant and model.

    ``variant`` is None until the models that it depends on are fitted. ``current_model`` is the newest model
    of a fit stage, and ``model`` that of ``model_id``; steps of an older variant do not have them.
    """

    stage: Stage
    variant: str | None
    reads_variant: str | None
    model_id: str | None
    current_model: ModelRow | None = None
    model: ModelRow | None = None


def resolve(connection: DuckDBPyConnection, flow: Sequence[Stage]) -> tuple[Step, ...]:
    """Return the flow with its current variants and models."""
    steps: dict[str, Step] = {}
    for stage in flow:
        reads = "" if stage.reads == "images" else steps[stage.reads].variant
        model = steps[stage.model].current_model if stage.model else None
        model_id = model.model_id if model else None
        known = reads is not None and (stage.model is None or model is not None)
        variant = stage.variant(reads=reads, model_id=model_id) if known and reads is not None else None
        newest = newest_model(connection, variant) if isinstance(stage, FitStage) else None
        steps[stage.name] = Step(stage, variant, reads, model_id, newest, model)
    return tuple(steps.values())


def steps_of(connection: DuckDBPyConnection, flow: Sequence[Stage], variant: str) -> tuple[Step, ...]:
    """Return the flow up to a recorded variant, as it was when that variant was made."""
    known = {row.variant: row for row in query_rows(connection, VariantRow, "SELECT * FROM variants")}
    stages = {stage.name: stage for stage in flow}
    steps, name = [], variant
    while name in known:  # extract reads images, whose variant is empty
        row = known[name]
        steps.append(Step(stages[row.stage].as_recorded(row.parameters), name, row.reads_variant, row.model_id))
        name = row.reads_variant
    return tuple(reversed(steps))
