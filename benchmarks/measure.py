"""Measuring: alternating repetitions, ratios with their spread, memory of processes, and what it was measured on."""

from __future__ import annotations

import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from featurestore.catalog import versions

ROOT = Path(__file__).parent.parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
T = TypeVar("T")


@dataclass(frozen=True)
class Bench:
    """How to measure."""

    scratch: Path  # for all data that is made
    quick: bool  # only check that the benchmark runs
    repetitions: int


@dataclass(frozen=True)
class Finding:
    """One line of a table."""

    what: str
    measured: str
    aim: str = ""
    met: bool | None = None


def clock(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@dataclass(frozen=True)
class Spent:
    """What some work took."""

    wall: float  # seconds
    cpu: float  # seconds, user and system, of this process and of the processes that it started and waited for
    own: float = 0.0  # those of this process; 0 if they were not measured apart


def spend(work: Callable[[], object]) -> Spent:
    """Return the wall and CPU seconds that ``work`` takes."""
    own, others = (_cpu_seconds(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    wall = clock(work)
    own = _cpu_seconds(resource.RUSAGE_SELF) - own
    return Spent(wall, own + _cpu_seconds(resource.RUSAGE_CHILDREN) - others, own)


def _cpu_seconds(*whose: int) -> float:
    usages = map(resource.getrusage, whose)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def spent(costs: Sequence[Spent]) -> str:
    """Return wall and CPU seconds with their spread: ``12.3 s (11.9 to 12.8), CPU 20.1 s (19.8 to 20.3)``."""
    return f"{spread([c.wall for c in costs], ' s')}, CPU {spread([c.cpu for c in costs], ' s')}"


def walls(costs: Sequence[Spent]) -> list[float]:
    """Return the wall seconds of each."""
    return [cost.wall for cost in costs]


def child_seconds(work: Callable[[], object]) -> float:
    """Return the processor time, user and system, of the processes that ``work`` starts and waits for."""
    before = _cpu_seconds(resource.RUSAGE_CHILDREN)
    work()
    return _cpu_seconds(resource.RUSAGE_CHILDREN) - before


def alternate(arms: Mapping[str, Callable[[], T]], repetitions: int) -> dict[str, list[T]]:
    """Measure each arm once a repetition, in turns, so that whatever else the machine does falls on all of them."""
    found: dict[str, list[T]] = {name: [] for name in arms}
    for number in range(repetitions):
        for name in list(arms)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(arms[name]())
    return found


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return the ratio of every repetition."""
    return [a / b for a, b in zip(above, below, strict=True)]


def spread(values: Sequence[float], unit: str = "") -> str:
    """Return median, least and greatest: ``12.3 (11.9 to 12.8)``."""
    if len(values) == 1:
        return f"{values[0]:.3g}{unit}"
    middle, least, greatest = (f"{v:.3g}" for v in (statistics.median(values), min(values), max(values)))
    return f"{middle}{unit} ({least} to {greatest})"


def at_least(what: str, values: Sequence[float], aim: float, unit: str = "x") -> Finding:
    """Return the finding that the median of ``values`` should reach ``aim``."""
    return Finding(what, spread(values, unit), f">= {aim:g}{unit}", statistics.median(values) >= aim)


def at_most(what: str, values: Sequence[float], aim: float, unit: str = "x") -> Finding:
    """Return the finding that the median of ``values`` should stay below ``aim``."""
    return Finding(what, spread(values, unit), f"<= {aim:g}{unit}", statistics.median(values) <= aim)


def in_time(what: str, costs: Sequence[Spent], aim: float) -> Finding:
    """Return the finding that the median of the wall seconds should stay below ``aim``, with the CPU seconds."""
    return Finding(what, spent(costs), f"<= {aim:g} s", statistics.median(walls(costs)) <= aim)


def python(*arguments: str) -> str:
    """Run Python in a process of its own, in the checkout, and return what it prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def peak_bytes() -> int:
    """Return the most memory that this process has had, in bytes (Linux: VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


class Watch(threading.Thread):
    """Looks at this process's children ten times a second, and knows the most memory that one of them has had.

    What the system says of children that ended (``ru_maxrss``) counts in what their parent had when it forked them.
    """

    def __init__(self) -> None:
        """Begin to look."""
        super().__init__(daemon=True)
        self.peak, self._over = 0, threading.Event()
        self.start()

    def run(self) -> None:
        """Look until the end."""
        while not self._over.wait(0.1):
            for task in Path("/proc/self/task").iterdir():
                for child in _read(task / "children").split():
                    found = re.search(r"VmHWM:\s+(\d+) kB", _read(Path("/proc", child, "status")))
                    self.peak = max(self.peak, int(found[1]) * 1024 if found else 0)

    def end(self) -> int:
        """Stop looking; return the peak in bytes."""
        self._over.set()
        self.join()
        return self.peak


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:  # it has just ended
        return ""


def machine() -> str:
    """Return what it was measured on: processor, cores, Python and libraries."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].strip() if names else model
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{model}, {CORES} cores, {platform.system()}, Python {platform.python_version()}; {libraries}"


@contextmanager
def load_average() -> Iterator[list[float]]:
    """Yield a list that holds the load average before, and at the end also the one after."""
    loads = [os.getloadavg()[0]]
    yield loads
    loads.append(os.getloadavg()[0])


class AnonymousPeak(threading.Thread):
    """Looks at this process a hundred times a second, and knows the most memory it has had that is no file's."""

    def __init__(self) -> None:
        """Begin to look."""
        super().__init__(daemon=True)
        self.peak, self._over = 0, threading.Event()
        self.start()

    def run(self) -> None:
        """Look until the end."""
        while not self._over.wait(0.01):
            found = re.search(r"RssAnon:\s+(\d+) kB", _read(Path("/proc/self/status")))
            self.peak = max(self.peak, int(found[1]) * 1024 if found else 0)

    def end(self) -> int:
        """Stop looking; return the peak in bytes."""
        self._over.set()
        self.join()
        return self.peak
