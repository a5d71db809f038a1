"""The lasting names that plug-ins build on: ``from featurestore.plugins import Extractor, option``.

``docs/plugins.md`` shows a plug-in of each kind. Names are imported on first use, so that a module which uses some
loads no more than these need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.config import option
    from featurestore.engines import Engine, Task, TaskDied, begin_worker
    from featurestore.errors import NothingUsable, PluginError, QueryError
    from featurestore.exchange import Exporter, ImageExporter, Job, ModelExporter
    from featurestore.rows import KEYPOINT, Layout, Row
    from featurestore.stages import (
        Arrays,
        ChunkStage,
        Extractor,
        FitStage,
        JoinableLearner,
        Learner,
        TransformStage,
    )

_HOMES = {
    "config": ("option",),
    "engines": ("Engine", "Task", "TaskDied", "begin_worker"),
    "errors": ("NothingUsable", "PluginError", "QueryError"),
    "exchange": ("Exporter", "ImageExporter", "Job", "ModelExporter"),
    "rows": ("KEYPOINT", "Layout", "Row"),
    "stages": ("Arrays", "ChunkStage", "Extractor", "FitStage", "JoinableLearner", "Learner", "TransformStage"),
}

__all__ = [
    "KEYPOINT",
    "Arrays",
    "ChunkStage",
    "Engine",
    "Exporter",
    "Extractor",
    "FitStage",
    "ImageExporter",
    "Job",
    "JoinableLearner",
    "Layout",
    "Learner",
    "ModelExporter",
    "NothingUsable",
    "PluginError",
    "QueryError",
    "Row",
    "Task",
    "TaskDied",
    "TransformStage",
    "begin_worker",
    "option",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"featurestore.{home}"), name)
    raise AttributeError(f"module 'featurestore.plugins' has no attribute {name!r}")
