"""What the verbs of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from featurestore.store import FeatureStore

STORE = click.argument("store", type=click.Path(path_type=Path))


def open_store(path: Path) -> FeatureStore:
    """Open the store that a verb was given; imported late, so that ``--help`` is quick."""
    from featurestore.store import FeatureStore

    return FeatureStore(path)


def as_json(value: Any) -> str:
    """Return a report as JSON, for people and programs."""
    import json

    return json.dumps(value, indent=2, default=str, ensure_ascii=False)
