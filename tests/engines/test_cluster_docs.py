"""What docs/cluster.md offers to start a cluster with: certificates, manifests for Kubernetes, a program for SLURM."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featurestore.cli.program import cli
from featurestore.engines import dispatch_tasks
from featurestore.engines.dask import DaskEngine
from featurestore.errors import EngineLost
from featurestore.testing.tasks import Squares
from tests.small import digests, make_small, small_store

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
ROLES = ("client", "scheduler", "worker")


def command_of_openssl() -> list[str]:
    """Return the command that the page has."""
    lines = (DOCS / "cluster.md").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.strip().startswith("openssl "))
    return line.split()


@pytest.mark.cluster
@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_a_cluster_with_certificates(tmp_path: Path) -> None:
    from dask import config
    from distributed import LocalCluster, Security

    subprocess.run(command_of_openssl(), cwd=tmp_path, check=True, capture_output=True)
    tls, cert, key = "distributed.comm.tls", str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    parts = [(f"{tls}.{role}.{what}", file) for role in ROLES for what, file in (("cert", cert), ("key", key))]
    options: dict[str, Any] = {"protocol": "tls", "processes": False, "dashboard_address": ":0"}
    with (
        config.set(dict([(f"{tls}.ca-file", cert), *parts])),
        LocalCluster(n_workers=1, threads_per_worker=1, security=Security(), **options) as cluster,
    ):
        engine = DaskEngine(cluster.scheduler_address)
        assert cluster.scheduler_address.startswith("tls://")
        assert [len(results) for _, results in dispatch_tasks(engine, [Squares((1, 2))])] == [2]
        engine.close()
        with config.set({f"{tls}.ca-file": None}), pytest.raises(EngineLost, match=r"\(.*TLS.*\)"):
            DaskEngine(cluster.scheduler_address).submit(Squares((1,)))


def manifests() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    files = sorted((DOCS / "kubernetes").glob("*.yaml"))
    return [manifest for file in files for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def test_the_parts_of_the_manifests_find_each_other() -> None:
    found = manifests()
    assert [manifest["kind"] for manifest in found] == ["Service", "Deployment", "Deployment", "NetworkPolicy", "Job"]
    service, scheduler, worker, policy, job = (manifest["spec"] for manifest in found)
    labels = [part["template"]["metadata"]["labels"] for part in (scheduler, worker, job)]
    assert service["selector"] == scheduler["selector"]["matchLabels"] == labels[0]
    assert worker["selector"]["matchLabels"] == labels[1]
    for of_pod in labels:
        assert policy["podSelector"]["matchLabels"].items() <= of_pod.items()
    (run,) = job["template"]["spec"]["containers"]
    (at_work,) = worker["template"]["spec"]["containers"]
    address = f"tcp://{found[0]['metadata']['name']}:8786"
    assert address in at_work["args"]
    assert at_work["args"][at_work["args"].index("--nthreads") + 1] == at_work["resources"]["requests"]["cpu"]
    parsed = cli.commands[run["args"][1]].make_context("run", run["args"][2:]).params
    assert (parsed["engine"], parsed["scheduler"], str(parsed["store"])) == ("dask", address, "/store/paintings")
    mounts = [{mount["name"]: mount["mountPath"] for mount in part["volumeMounts"]} for part in (run, at_work)]
    assert mounts[0].items() <= mounts[1].items(), "the store and the images are at the same paths"


def test_the_manifests_are_those_of_kubernetes() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for manifest in manifests():
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


SBATCH = """#!/bin/bash
# Runs a job at once. Like SLURM's, it copies the script, which dask-jobqueue then deletes.
number=$(( $(ls "$FOLDER"/job-* 2>/dev/null | wc -l) + 1 ))
cp "$1" "$FOLDER/job-$number"
SLURM_JOB_ID=$number setsid bash "$FOLDER/job-$number" >"$FOLDER/log-$number" 2>&1 </dev/null &
echo $! >"$FOLDER/pid-$number"
echo "Submitted batch job $number"
"""
SCANCEL = """#!/bin/bash
for number; do kill -TERM -- "-$(cat "$FOLDER/pid-$number")" 2>/dev/null; done
exit 0
"""


@pytest.mark.cluster
def test_the_program_for_slurm_makes_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    make_small(tmp_path / "images", n=9)
    alone, store = (small_store(tmp_path / name, tmp_path / "images", chunk_size=3) for name in ("alone", "store"))
    alone.run(workers=0)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    program = (DOCS / "slurm-dask.py").read_text(encoding="utf-8")
    smaller = program.replace("cores=32", "cores=2").replace('"64GB"', '"4GB"')
    assert smaller != program
    (tmp_path / "program.py").write_text(smaller, encoding="utf-8")
    path = f"{folder}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "FOLDER": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "program.py", str(store.path), "2"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("job-*"))
    assert digests(store) == digests(alone)
