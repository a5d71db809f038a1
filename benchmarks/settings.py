"""Changing one value of a store's recipe."""

from __future__ import annotations

from typing import Any

import tomlkit

from featurestore import FeatureStore
from featurestore.storage import CONFIG


def set_option(store: FeatureStore, stage: str, name: str, value: object) -> None:
    """Set ``[stage] name = value`` in ``featurestore.toml``."""
    path = store.path / CONFIG
    document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    document[stage][name] = value
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
