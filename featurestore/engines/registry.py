"""The choice of an engine."""

from __future__ import annotations

from featurestore.engines.base import Engine
from featurestore.engines.inline import InlineEngine
from featurestore.engines.local import LocalEngine


def open_engine(workers: int) -> Engine:
    """Return an engine of ``workers`` processes; 0 works in this process, without protection against crashes."""
    return LocalEngine(workers) if workers else InlineEngine()
