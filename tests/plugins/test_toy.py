"""A package outside of featurestore adds a plug-in of every kind, and nothing of featurestore is changed for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.testing.pictures import write_pictures
from tests.conftest import LONG
from tests.warm import run_warm

TOY = Path(__file__).parent / "toy"
ROOT = Path(__file__).parent.parent.parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]

RECIPE = """
[extract.patches]
step = 12

[unit]

[fit_mean]

[signs]
above = 200
"""


def install(site: Path) -> None:
    """Do what pip does with the toy package: its module, and its metadata."""
    project = tomllib.loads((TOY / "pyproject.toml").read_text("utf-8"))["project"]
    site.mkdir()
    shutil.copy(TOY / "featurestore_toy.py", site)
    info = site / f"featurestore_toy-{project['version']}.dist-info"
    info.mkdir()
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(about, "utf-8")
    (info / "top_level.txt").write_text("featurestore_toy\n", "utf-8")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups]
    (info / "entry_points.txt").write_text("\n".join(lines), "utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which Python imports, with the toy package in it."""
    folder = tmp_path_factory.mktemp("site") / "packages"
    install(folder)
    return folder


def run_in(site: Path | None, module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a module in a process that has what is installed in ``site``."""
    return run_warm(module, *arguments, environment=environment(site))


def typed_in(site: Path | None, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in such a process."""
    return run_in(site, "featurestore", *arguments)


def environment(site: Path | None) -> dict[str, str]:
    path = os.pathsep.join(map(str, [*([site] if site else []), ROOT]))
    return {**os.environ, "PYTHONPATH": path}


def test_it_keeps_to_the_contracts(site: Path) -> None:
    chosen = [] if LONG else ["-k", "not PoorIn"]  # which the suite of the engine that it extends is asked
    done = run_in(site, "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, TOY / "contracts.py", *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.fixture(scope="module")
def store(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was made with all of it."""
    folder = tmp_path_factory.mktemp("toy")
    dataset = write_pictures(folder / "images", n=8)
    path = folder / "store"
    arguments = ["--images", folder / "images", "--dataset", dataset, "--chunk-size", 4]
    assert typed_in(site, "init", path, *arguments).returncode == 0
    recipe = path / "featurestore.toml"
    text = recipe.read_text("utf-8").replace('extractor = "sift"', 'extractor = "patches"')
    recipe.write_text(text.replace("n_components = 64", "n_components = 4") + RECIPE, "utf-8")
    done = typed_in(site, "run", path, "--engine", "toy", "--workers", 2, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    return path


ASK = """
import json, sys
from featurestore import FeatureStore

store = FeatureStore(sys.argv[1])
print(json.dumps([store.sql(question).fetchall() for question in sys.argv[2:]]))
"""


def ask(site: Path, store: Path, *questions: str) -> list[list[list[Any]]]:
    done = run_in(site, "tests.plugins.program", ASK, store, *questions)
    assert done.returncode == 0, done.stderr
    answers: list[list[list[Any]]] = json.loads(done.stdout)
    return answers


def test_every_stage_is_done_and_seen(site: Path, store: Path) -> None:
    shown = typed_in(site, "status", store)
    assert shown.returncode == 0
    rows = [line.split()[:2] for line in shown.stdout.splitlines()]
    done = ["extract", "project", "quantize", "unit", "signs"]
    assert [row for row in rows if row and row[0] in done] == [[name, "3/3"] for name in done]
    statuses, bounds, absent, signed = ask(
        site,
        store,
        "SELECT stage, status, count(*) FROM descriptor_counts "
        "WHERE stage IN ('unit', 'signs') GROUP BY ALL ORDER BY ALL",
        "SELECT min(n), max(n) FROM "
        "(SELECT array_inner_product(descriptor, descriptor) AS n FROM normalized_descriptors)",
        "SELECT DISTINCT angle, response, octave FROM extracted_descriptors",
        "SELECT count(*) > 0 FROM signed WHERE n_above > 0",
    )
    assert statuses == [
        [stage, status, n] for stage in ("signs", "unit") for status, n in (("ok", 9), ("unreadable", 1))
    ]
    assert bounds == [[pytest.approx(1, abs=1e-5)] * 2]
    assert absent == [[-1.0, 0.0, 0]]
    assert signed == [[True]]


def test_a_second_run_has_nothing_to_do_and_every_file_is_right(site: Path, store: Path) -> None:
    again = typed_in(site, "run", store, "--engine", "inline")
    assert again.returncode == 0
    assert "everything is up to date" in again.stdout
    verified = typed_in(site, "verify", store)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_lost_catalog_comes_back(site: Path, store: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    (copy / "catalog.duckdb").unlink()
    rebuilt = typed_in(site, "rebuild", copy)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "everything is up to date" in typed_in(site, "run", copy).stdout


def test_its_codes_are_loaded_exported_and_made_of_new_images(site: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "lines.txt"
    done = typed_in(site, "export", store, out, "--format", "toy", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(" ") for line in out.read_text("utf-8").splitlines())
    assert len(lines) == 10
    code = """if True:
        import sys; from featurestore import FeatureStore
        store = FeatureStore(sys.argv[1]); codes = store.descriptors("00.png")
        values = sorted(set(codes.ravel().tolist()))
        print((codes == store.encode(sys.argv[2])).all(), codes.shape, values, codes.tobytes().hex())
    """
    made = run_in(site, "tests.plugins.program", code, store, store.parent / "images" / "00.png")
    assert made.stdout.strip() == f"True (117, 16) [0, 200] {lines['00.png']}", made.stderr


def test_the_help_lists_what_is_installed(site: Path) -> None:
    about_run = typed_in(site, "run", "--help").stdout.split()
    assert "quantize fit_words words fit_mean signs unit; default" in " ".join(about_run)
    assert "|toy]" in "".join(typed_in(site, "export", "--help").stdout.split())


def test_a_store_whose_stage_is_not_installed_says_so(store: Path) -> None:
    done = typed_in(None, "status", store)
    assert done.returncode == 1
    assert done.stderr == (
        "error: featurestore.toml: unknown table [unit]; the tables are store, extract, fit_pca, project, fit_scale, "
        "quantize, fit_words, words. If it is of a stage that a package brings, install that into this Python with: "
        "pip install\n"
    )


def test_an_extractor_that_is_not_installed_is_named(store: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    recipe = copy / "featurestore.toml"
    recipe.write_text(recipe.read_text("utf-8").replace(RECIPE, ""), "utf-8")
    done = typed_in(None, "status", copy)
    assert done.stderr == (
        "error: featurestore.toml: [extract] extractor: there is no extractor 'patches'; the extractors are sift, "
        "rootsift, colmap. If a package brings it (as an entry point of featurestore.extractors), install that into "
        "this Python with: pip install\n"
    )


def test_an_engine_that_is_not_installed_is_named(fresh: FeatureStore) -> None:
    done = typed_in(None, "run", fresh.path, "--engine", "toy")
    assert done.stderr.startswith(
        "error: there is no engine 'toy'; the engines are inline, local, dask. If a package brings"
    )
