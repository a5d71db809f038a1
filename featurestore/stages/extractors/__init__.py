"""Extractors: one file each, from an image's pixels to keypoints and descriptors.

An extractor is a subclass of `Extractor`. Those of installed packages are found by their entry points.
"""

from __future__ import annotations

from featurestore.registry import Registry
from featurestore.stages.extractors.base import Extractor
from featurestore.stages.extractors.colmap import Colmap
from featurestore.stages.extractors.rootsift import RootSift
from featurestore.stages.extractors.sift import Sift

__all__ = ["EXTRACTORS", "Colmap", "Extractor", "RootSift", "Sift"]

EXTRACTORS = Registry[type[Extractor]](
    "extractor",
    "featurestore.extractors",
    {
        "sift": "featurestore.stages.extractors.sift:Sift",
        "rootsift": "featurestore.stages.extractors.rootsift:RootSift",
        "colmap": "featurestore.stages.extractors.colmap:Colmap",
    },
)
