"""Everything that the store knows about one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from featurestore.catalog import (
    ChunkState,
    Context,
    ImageResult,
    Step,
    chunk_states,
    dataset_values,
    find_image,
    image_table,
    models_that_learnt,
    resolve,
    results_of_image,
    why_missing,
)
from featurestore.notebook import Tabular
from featurestore.query.exact import exact_columns
from featurestore.query.names import checked_name, no_such_image
from featurestore.query.result_files import as_json_value
from featurestore.query.selection import PENDING, partition_of
from featurestore.stages import ChunkStage
from featurestore.system import is_text


@dataclass(frozen=True)
class ImageStage:
    """The result of one variant of a stage for an image."""

    stage: str
    variant: str | None
    current: bool  # of the current recipe
    status: str
    error: str | None
    n_descriptors: int
    model_id: str | None  # the model that was used
    partition: str | None  # its file, below the store; None for one that was pruned or is not there

    @property
    def pruned(self) -> bool:
        """Whether the stage was run, and its partition was pruned."""
        return self.partition is None and self.status != PENDING


@dataclass(frozen=True)
class ImageInfo(Tabular):
    """One image: its row of the dataset, the results of the stages, and the models it trained."""

    image_id: int
    filename: str
    subset: str
    chunk_id: int
    dataset: Mapping[str, Any]  # the CSV's other columns
    stages: tuple[ImageStage, ...]  # current variants in the order of the flow, then older ones
    trained: tuple[tuple[str, str], ...]  # fit stage and model_id
    removed_by: int | None = None  # the ingest that removed it

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        dataset = {name: as_json_value(value) for name, value in self.dataset.items()}
        return {**dataclasses.asdict(self), "dataset": dataset}


def image_info(context: Context, filename: str) -> ImageInfo:
    """Return everything about an image.

    Raises:
        QueryError: there is no such image; the message has the most similar name.
    """
    with context.catalog.reading() as connection:
        image = find_image(connection, filename) if is_text(checked_name(filename)) else None
        if image is None:
            raise no_such_image(context, image_table(connection), filename)
        image_id = image.image_id
        columns = exact_columns(dataset_values(connection, image_id)).to_arrow_table().to_pylist()
        steps = [step for step in resolve(connection, context.flow) if isinstance(step.stage, ChunkStage)]
        made = results_of_image(connection, image_id)
        trained = models_that_learnt(connection, image_id)
        states = {s.stage: s for s in chunk_states(connection, steps) if s.chunk_id == image.chunk_id}
        current = [_current(context, connection, step, states[step.stage.name], made) for step in steps]
    variants = {stage.variant for stage in current}
    older = [_made(row, current=False) for row in made if row.variant not in variants]
    dataset = {name: value for name, value in (columns[0] if columns else {}).items() if name != "image_id"}
    pairs = tuple((model.stage, model.model_id) for model in trained)
    return ImageInfo(**vars(image), dataset=dataset, stages=(*current, *older), trained=pairs)


def _made(row: ImageResult, *, current: bool) -> ImageStage:
    return ImageStage(**row._asdict(), current=current)


def _current(
    context: Context, connection: DuckDBPyConnection, step: Step, state: ChunkState, made: list[ImageResult]
) -> ImageStage:
    never = why_missing(connection, step) if state.payload is None else ""
    _, why = partition_of(context, state, never)
    found = [row for row in made if row.variant == step.variant]
    if found and (not why or state.pruned):
        return _made(found[0], current=True)
    return ImageStage(step.stage.name, step.variant, True, PENDING, why, 0, step.model_id, None)
