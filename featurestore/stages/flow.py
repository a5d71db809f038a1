"""The flow of a store: the stages of every store, and those of plug-ins that its recipe names.

::

    images -> extract -> project -> quantize
                 |        ^   |        ^
                 v        |   v        |
               fit_pca ---+  fit_scale-+

The stages of an index, ``fit_words`` and ``words``, and those of other packages are in the flow of a store whose
``featurestore.toml`` has their table, and of no other. They come after the stages of every store, and after their
input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from featurestore.config import build
from featurestore.errors import PluginError
from featurestore.rows import Layout
from featurestore.stages.base import ChunkStage, FitStage, Stage
from featurestore.stages.extract import Extract
from featurestore.stages.fit_pca import FitPca
from featurestore.stages.fit_scale import FitScale
from featurestore.stages.fit_words import FitWords
from featurestore.stages.project import Project
from featurestore.stages.quantize import Quantize
from featurestore.stages.registry import STAGES
from featurestore.stages.words import Words

FLOW: tuple[type[Stage], ...] = (Extract, FitPca, Project, FitScale, Quantize)
INDEX: tuple[type[Stage], ...] = (FitWords, Words)  # of a store with an index
IMAGES = "images"  # the input of the first stage


def flow_from(tables: Mapping[str, Mapping[str, Any]]) -> tuple[Stage, ...]:
    """Return the stages with the parameters of the recipe's tables, each after its input and its model.

    Raises:
        ConfigError: an unknown table or key, a wrong type, or a value out of range.
        PluginError: a stage of a package can't be used.
    """
    known = {stage.name for stage in FLOW}
    others = [STAGES.find(name) for name in tables if name not in known]
    flow = (*FLOW, *_in_order(sorted(others, key=lambda stage: stage.name)))
    _refuse_one_view_twice(flow)
    return tuple(build(stage, tables.get(stage.name, {}), where=stage.name) for stage in flow)


def _in_order(stages: Sequence[type[Stage]]) -> Iterator[type[Stage]]:
    there, waiting = {stage.name for stage in FLOW}, list(stages)
    while waiting:
        ready = next((stage for stage in waiting if {stage.reads, stage.model or stage.reads} <= there), None)
        if ready is None:
            stage = waiting[0]
            absent = sorted({stage.reads, stage.model or stage.reads} - there)[0]
            raise PluginError(
                f"the stage {stage.name} needs {absent}, which is not in the flow of this store; add the table "
                f"[{absent}] to featurestore.toml, or remove [{stage.name}]"
            )
        waiting.remove(ready)
        there.add(ready.name)
        yield ready


def _refuse_one_view_twice(flow: Sequence[type[Stage]]) -> None:
    views: dict[str, str] = {}
    for stage in flow:
        if issubclass(stage, ChunkStage):
            other = views.setdefault(stage.view, stage.name)
            if other != stage.name or not stage.view.isidentifier() or stage.view != stage.view.lower():
                raise PluginError(
                    f"the view {stage.view!r} of the stage {stage.name} is that of {other}, or no plain name in lower "
                    "case; have its package give it another"
                )


def fit_of(flow: Sequence[Stage], stage: Stage) -> FitStage | None:
    """Return the stage whose model a stage uses, if any."""
    found = next((other for other in flow if other.name == stage.model), None)
    assert found is None or isinstance(found, FitStage)
    return found


def upstream_of(flow: Sequence[Stage], name: str) -> tuple[Stage, ...]:
    """Return the stages from images to ``stage``, inclusive."""
    stages = {stage.name: stage for stage in flow}
    found: list[Stage] = []
    while name != IMAGES:
        found.insert(0, stages[name])
        name = stages[name].reads
    return tuple(found)


def codes_of(flow: Sequence[Stage]) -> ChunkStage:
    """Return the stage that makes the codes: the last in the flow that says so."""
    return next(stage for stage in reversed(flow) if isinstance(stage, ChunkStage) and stage.codes)


def layouts_of(flow: Sequence[Stage]) -> dict[str, Layout]:
    """Return the columns of every chunk stage's partitions by the current recipe, computed or not."""
    layouts: dict[str, Layout] = {}
    for stage in flow:
        if isinstance(stage, ChunkStage):
            layouts[stage.name] = stage.layout(layouts.get(stage.reads), fit_of(flow, stage))
    return layouts
