"""Run the benchmarks: ``python -m benchmarks.run [--quick] [SECTION ...]``.

Prints a table for each section and writes it into ``docs/benchmarks.md``, where the sections that were not run stay as
they are. All data goes to a temporary folder, or to $FEATURESTORE_BENCH_DIR, where inputs are kept for the next time.
"""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

SECTIONS = {
    "extract": "Extract, against bare OpenCV",
    "sources": "Reading images from a folder, zip, tar and Parquet",
    "after": "Everything after extract, against the notebook's way",
    "sizes": "Bytes on disk, against the notebook's files",
    "pca": "The solvers of fit_pca",
    "stages": "An image at each stage after extract, in CPU time",
    "load": "Loading",
    "search": "Search",
    "search_time": "Search among 100,000 images",
    "memory": "Peak memory",
    "dispatch": "Workers in use",
    "cluster": "Many machines",
    "maintenance": "Verify, rebuild, merge and export",
    "growth": "Growth of the catalog",
    "ingest": "Reading the dataset",
    "million": "A million images",
    "start": "Starting",
}
HEAD = """# Benchmarks

Written by `make bench`, which anyone can run; `make bench ARGS="pca start"` measures some sections only. Times are wall
clock, or CPU where that is said: median, least and greatest of alternating repetitions in one run, or ratios of them.
Aims are those that the project set itself; *no* is an aim that was not reached on this machine. Other work ran on the
machine in the meantime, as the load average beside a section tells: CPU seconds and ratios can be compared, wall times
of two sections can't.
"""


def main() -> None:
    """Run the sections that are named, or all."""
    from benchmarks.measure import ROOT, Bench

    parser = argparse.ArgumentParser(description="Measure featurestore.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="only see that they run; nothing is written")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"there is no section {', '.join(sorted(unknown))}; they are {', '.join(SECTIONS)}")
    names = [name for name in SECTIONS if not options.sections or name in options.sections]
    with tempfile.TemporaryDirectory(prefix="featurestore-bench-") as temporary:
        scratch = Path(os.environ.get("FEATURESTORE_BENCH_DIR") or temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        bench = Bench(scratch, options.quick, 1 if options.quick else options.repetitions)
        for name in names:
            text = measured(name, bench)
            print(text, flush=True)
            if not options.quick:
                write(ROOT / "docs" / "benchmarks.md", name, text)


def measured(name: str, bench: Any) -> str:
    """Run one section and return it as Markdown, with the text ``MISSED`` of its module if an aim was not reached."""
    from benchmarks.measure import load_average, machine

    section = importlib.import_module(f"benchmarks.{name}")
    with load_average() as loads:
        findings = section.run(bench)
    met = {True: "yes", False: "no", None: ""}
    lines = [f"| {f.what} | {f.measured} | {f.aim} | {met[f.met]} |" for f in findings]
    table = "\n".join(["| | measured | aim | met |", "|---|---|---|---|", *lines])
    load = f"load average {loads[0]:.1f} before and {loads[1]:.1f} after"
    about = f"Times: {bench.repetitions} repetitions; {load}. {machine()}."
    missed = any(finding.met is False for finding in findings)
    why = f"{section.MISSED}\n\n" if missed and hasattr(section, "MISSED") else ""
    return f"## {SECTIONS[name]}\n\n{table}\n\n{why}{about}\n"


def write(path: Path, name: str, text: str) -> None:
    """Put a section's text in its place in the document; the others stay."""
    known = {part.splitlines()[0]: f"## {part}" for part in _parts(path)}
    known[SECTIONS[name]] = text
    ordered = [known[title].rstrip() + "\n" for title in SECTIONS.values() if title in known]
    path.write_text("\n".join([HEAD, *ordered]), encoding="utf-8")


def _parts(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n## ")[1:] if path.is_file() else []


if __name__ == "__main__":
    main()
