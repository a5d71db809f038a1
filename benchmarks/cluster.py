"""Many machines: what the process that holds the store, and Dask's scheduler, spend on each task and each chunk.

The engine, the scheduler and the workers' side of the connection are real; the work is not. Slots are threads that
sleep, so that a thousand of them fit on a machine with few cores. How a chunk is recorded is measured by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import growth
from benchmarks.dispatch import Sleep
from benchmarks.measure import ROOT, Bench, Finding, at_most, python
from featurestore import FeatureStore
from featurestore.catalog import Work, partition_manifest, resolve
from featurestore.engines import dispatch_tasks
from featurestore.engines.dask import DaskEngine
from featurestore.pipeline import ChunkWriter
from featurestore.progress import Silent
from featurestore.stages import Extract

SLOTS = (100, 1000)
PER_WORKER = 200  # slots of one process
TASKS = 10_000
CHUNKS = 300  # of the catalog; a larger one takes no longer (`growth`)
RATE = 100  # tasks a second: what two cores do for the coordinator, the scheduler and all workers together


def run(bench: Bench) -> list[Finding]:
    """Measure a hundred and a thousand slots."""
    findings = []
    for slots in (4,) if bench.quick else SLOTS:
        n = 20 if bench.quick else TASKS
        with cluster(bench.scratch / f"cluster-{slots}", slots) as found:
            text = python("-m", "benchmarks.cluster", "tasks", found.address, str(slots), str(n), str(found.pid))
            costs = json.loads(text.splitlines()[-1])
            what = f"{n:,} tasks that sleep, {slots:,} slots"
            findings += [
                at_most(f"{what}: CPU of the coordinator a task", [costs["coordinator"]], 20, " ms"),
                at_most(f"{what}: CPU of the scheduler a task", [costs["scheduler"]], 20, " ms"),
            ]
    folder = bench.scratch / "cluster-catalog"
    found = json.loads(
        python("-m", "benchmarks.cluster", "chunks", str(folder), str(bench.repetitions)).splitlines()[-1]
    )
    shutil.rmtree(folder)
    findings.append(
        at_most("publishing and recording a chunk of 1,000 images: CPU of the coordinator", found, 20, " ms")
    )
    return findings


@dataclass(frozen=True)
class Running:
    """A cluster that runs."""

    address: str
    pid: int  # of the scheduler


@contextmanager
def cluster(folder: Path, slots: int) -> Iterator[Running]:
    """Start a scheduler, and workers whose slots are threads."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    with ExitStack() as stack:
        address = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show", "--scheduler-file", str(file))
        scheduler = stack.enter_context(_started(folder / "scheduler.log", "scheduler", *address))
        while not (file.is_file() and file.read_text().rstrip().endswith("}")):
            time.sleep(0.05)
        for number in range(-(-slots // PER_WORKER)):
            threads = str(min(PER_WORKER, slots - number * PER_WORKER))
            options = ("--nthreads", threads, "--no-nanny", "--no-dashboard", "--memory-limit", "0")
            more = ("--preload", "benchmarks.sleepers", "--local-directory", str(folder), "--scheduler-file", str(file))
            stack.enter_context(_started(folder / f"worker-{number}.log", "worker", *options, *more))
        yield Running(json.loads(file.read_text())["address"], scheduler.pid)


@contextmanager
def _started(log: Path, verb: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        command = [sys.executable, "-m", "dask", verb, *options]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tasks(address: str, slots: int, n: int, scheduler: int) -> dict[str, float]:
    """Return the CPU milliseconds a task of this process and of the scheduler."""
    engine = DaskEngine(address)
    while engine.workers < slots:
        time.sleep(0.1)
    before = time.process_time(), cpu_of(scheduler)
    seconds = slots / RATE
    for _ in dispatch_tasks(engine, (Sleep(i, seconds) for i in range(n))):
        pass
    found = time.process_time() - before[0], cpu_of(scheduler) - before[1]
    engine.close()
    return {"coordinator": 1000 * found[0] / n, "scheduler": 1000 * found[1] / n}


def chunks(path: Path, repetitions: int) -> list[float]:
    """Return the CPU milliseconds to publish and record each of some chunks of extract, the first one left out."""
    growth.make(path, CHUNKS)
    found = []
    with FeatureStore(path)._held("measure", Silent()) as context:
        with context.catalog.reading() as connection:
            extract = resolve(connection, context.flow)[0]
        assert isinstance(extract.stage, Extract)
        for chunk_id in range(CHUNKS, CHUNKS + repetitions + 1):
            ids = np.arange(growth.CHUNK, dtype=np.int64) + chunk_id * growth.CHUNK
            payload, zeros = f"{chunk_id:016x}", np.zeros(len(ids), np.int32)
            work = Work(chunk_id, int(ids[0]), len(ids), "never run", payload, input_path=None, input_ready=True)
            manifest = partition_manifest(extract, work, origin="run")
            writer = ChunkWriter(context.root, layout=extract.stage.layout(), manifest=manifest)
            writer.target.path.touch()
            counts = {"n_descriptors": zeros, "width": zeros, "height": zeros}
            errors = pa.nulls(len(ids), pa.string())
            facts = pa.table({"image_id": ids, "status": ["ok"] * len(ids), "error": errors, **counts})
            begun = time.process_time()
            writer.publish(context.catalog, payload, "c" * 64, facts)
            found.append(1000 * (time.process_time() - begun))
    return found[1:]


if __name__ == "__main__":
    verb, place, *numbers = sys.argv[1:]
    print(json.dumps(chunks(Path(place), *map(int, numbers)) if verb == "chunks" else tasks(place, *map(int, numbers))))
