"""How long it takes to begin: ``featurestore --help``, and verbs that read a small store."""

from __future__ import annotations

from benchmarks import data
from benchmarks.measure import Bench, Finding, alternate, at_most, child_seconds, python, ratios, spread

LIBRARIES = "import duckdb, pyarrow"
COUNT = "SELECT count(*) FROM images"


def run(bench: Bench) -> list[Finding]:
    """Measure whole processes."""
    store = str(data.finished(bench.scratch, 6).path)
    commands = {
        "libraries": ("-c", LIBRARIES),
        "help": ("-m", "featurestore", "--help"),
        "status": ("-m", "featurestore", "status", store),
        "sql": ("-m", "featurestore", "sql", store, COUNT),
    }
    arms = {name: lambda command=command: child_seconds(lambda: python(*command)) for name, command in commands.items()}
    found = alternate(arms, max(bench.repetitions, 2))
    return [
        at_most("featurestore --help, processor time", found["help"], 0.3, " s"),
        Finding(f'python -c "{LIBRARIES}", processor time', spread(found["libraries"], " s")),
        at_most("featurestore status, times that", ratios(found["status"], found["libraries"]), 2),
        at_most(f'featurestore sql "{COUNT}", times that', ratios(found["sql"], found["libraries"]), 2),
    ]
