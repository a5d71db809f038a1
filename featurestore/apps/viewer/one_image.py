"""The page of one image: its results of every stage, its row of the dataset, and the models that learnt from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.api import FeatureStore
from featurestore.apps.html_report.parts import Column, Note, Section, Table
from featurestore.errors import QueryError

MOST_CELL = 5000  # characters
STAGES = (
    Column("stage", "name"),
    Column("variant", "code"),
    Column("of the recipe", "name"),
    Column("status", "name"),
    Column("descriptors", "number"),
    Column("reason"),
    Column("model", "code"),
    Column("file"),
)


@dataclass(frozen=True)
class About:
    """The content of the page of an image.

    Args:
        filename: of the image.
        lead: a line about it.
        stage: whose keypoints are shown.
        stages: that have descriptors of it.
        n_descriptors: of ``stage``.
        sections: its tables.
    """

    filename: str
    lead: str
    stage: str
    stages: Sequence[str]
    n_descriptors: int
    sections: Sequence[Section]


def describe_image(store: FeatureStore, filename: str, stage: str | None) -> About:
    """Return the content of the page of an image.

    Args:
        store: that is asked.
        filename: of the image.
        stage: whose keypoints are shown; None is the last that has some.

    Raises:
        QueryError: there is no such image, or no such stage.
    """
    info = store.info(filename)
    counts = {one.stage: one.n_descriptors for one in info.stages if one.current and one.n_descriptors}
    known = [one.stage for one in info.stages if one.current]
    if stage is not None and stage not in known:
        raise QueryError(f"there is no stage {stage!r} of images; the stages are {', '.join(known)}")
    shown = stage or next(reversed(counts), known[-1])
    rows = [
        (
            one.stage,
            one.variant,
            "yes" if one.current else "no",
            one.status,
            one.n_descriptors,
            one.error,
            one.model_id,
            one.partition,
        )
        for one in info.stages
    ]
    query = f"store.info({filename!r})"
    results: list[Table | Note] = [Table("Results of every stage", STAGES, rows, query, "Python")]
    results += [Note(f"{fit} learnt from it: model {model_id}.") for fit, model_id in info.trained]
    cells = [(name, None if value is None else str(value)[:MOST_CELL]) for name, value in info.dataset.items()]
    dataset = Table("Its row of the dataset", (Column("column"), Column("value")), cells, f"{query}.dataset", "Python")
    left = "" if info.removed_by is None else "; it has left the dataset"
    return About(
        filename,
        f"Image {info.image_id}, {info.subset}, in chunk {info.chunk_id}{left}.",
        shown,
        list(counts),
        counts.get(shown, 0),
        [Section("results", "Results", results)] + ([Section("dataset", "Dataset", [dataset])] if cells else []),
    )
