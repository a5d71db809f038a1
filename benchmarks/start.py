"""How long it takes to begin: ``featurestore --help``, and ``status`` of a small store."""

from __future__ import annotations

from benchmarks import data
from benchmarks.measure import Bench, Finding, alternate, at_most, clock, python, ratios, spread

LIBRARIES = "import duckdb, sqlalchemy"


def run(bench: Bench) -> list[Finding]:
    """Measure whole processes."""
    store = data.finished(bench.scratch, 6)
    found = alternate(
        {
            "libraries": lambda: clock(lambda: python("-c", LIBRARIES)),
            "help": lambda: clock(lambda: python("-m", "featurestore", "--help")),
            "status": lambda: clock(lambda: python("-m", "featurestore", "status", str(store.path))),
        },
        max(bench.repetitions, 2),
    )
    return [
        at_most("featurestore --help", found["help"], 0.3, " s"),
        Finding(f'python -c "{LIBRARIES}"', spread(found["libraries"], " s")),
        at_most("featurestore status, times that", ratios(found["status"], found["libraries"]), 2),
    ]
