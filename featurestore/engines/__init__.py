"""Engines: where work runs, chosen here and nowhere else.

An engine is one file with a class like `Engine`. What all have in common, a bounded window of tasks and finding out
which task kills its worker, is in `dispatch`.
"""

from __future__ import annotations

from featurestore.engines.dispatch import dispatch
from featurestore.engines.engine import Engine, Task
from featurestore.engines.inline import InlineEngine
from featurestore.engines.local import LocalEngine, all_cores

__all__ = ["Engine", "InlineEngine", "LocalEngine", "Task", "all_cores", "dispatch", "open_engine"]


def open_engine(workers: int) -> Engine:
    """Return an engine of ``workers`` processes; 0 works in this process, without protection against crashes."""
    return LocalEngine(workers) if workers else InlineEngine()
