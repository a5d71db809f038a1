"""Stages by name: those of every store, and those of installed packages. `flow_from` chooses those of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurestore.registry import Registry

if TYPE_CHECKING:
    from featurestore.stages.base import Stage

STAGES: Registry[type[Stage]] = Registry(
    "stage",
    "featurestore.stages",
    {
        "extract": "featurestore.stages.extract:Extract",
        "fit_pca": "featurestore.stages.fit_pca:FitPca",
        "project": "featurestore.stages.project:Project",
        "fit_scale": "featurestore.stages.fit_scale:FitScale",
        "quantize": "featurestore.stages.quantize:Quantize",
        "fit_words": "featurestore.stages.fit_words:FitWords",
        "words": "featurestore.stages.words:Words",
    },
)
