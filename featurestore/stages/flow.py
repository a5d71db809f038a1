"""The flow: all stages, in order.

::

    images -> extract -> project -> quantize
                 |        ^   |        ^
                 v        |   v        |
               fit_pca ---+  fit_scale-+
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurestore.config import build
from featurestore.stages.base import Stage
from featurestore.stages.extract import Extract
from featurestore.stages.fit_pca import FitPca
from featurestore.stages.fit_scale import FitScale
from featurestore.stages.project import Project
from featurestore.stages.quantize import Quantize

FLOW: tuple[type[Stage], ...] = (Extract, FitPca, Project, FitScale, Quantize)


def flow_from(tables: Mapping[str, Mapping[str, Any]]) -> tuple[Stage, ...]:
    """Return the stages with the parameters of the recipe's tables.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of range.
    """
    return tuple(build(stage, tables.get(stage.name, {}), where=stage.name) for stage in FLOW)
