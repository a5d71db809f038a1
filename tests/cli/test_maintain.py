"""`verify`, `rebuild`, `merge` and `prune` as people type them, and --untrusted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from featurestore import FeatureStore
from featurestore.storage import CATALOG, CONFIG
from tests.small import copy, invoke


def damaged(store: FeatureStore) -> Path:
    path = sorted((store.path / "partitions" / "quantize").rglob("*.parquet"))[-1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def test_verify_says_what_is_wrong_and_exits_1(tiny: FeatureStore, tmp_path: Path) -> None:
    store = copy(tiny, tmp_path / "store")
    ended = invoke("verify", store.path)
    assert ended.exit_code == 0
    assert ended.stdout.endswith(" and 3 images checked: nothing is wrong\n")
    name = damaged(store).relative_to(store.path).as_posix()
    ended = invoke("verify", store.path)
    assert ended.exit_code == 1
    assert ended.stdout.splitlines()[0] == (
        f"partition: {name}: the file is damaged: its SHA-256 is not what was recorded; with --repair it is dropped, "
        f"and featurestore run {store.path} recomputes it"
    )
    assert ended.stdout.endswith("checked: 1 problem\n")
    ended = invoke("verify", store.path, "--deep", "--json")
    assert ended.exit_code == 1
    assert [problem["name"] for problem in json.loads(ended.stdout)["problems"]] == [name]
    ended = invoke("verify", store.path, "--repair")
    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[0] == f"repaired: {name}: dropped"
    next_step = f"featurestore run {store.path} recomputes what was dropped"
    assert ended.stdout.endswith(f"nothing is wrong any more; {next_step}\n")


def test_rebuild_says_what_it_knows(store: FeatureStore) -> None:
    (store.path / CATALOG).unlink()
    ended = invoke("rebuild", store.path)
    assert ended.exit_code == 0
    first, last = ended.stdout.splitlines()
    assert first == ("runs are as far as the manifests tell, without hosts and durations: there is no old catalog")
    assert last == "the catalog was rebuilt: 26 images, 12 partitions, 2 models, 3 runs"


def test_merge_says_what_it_took(store: FeatureStore, finished: FeatureStore, fresh: FeatureStore) -> None:
    ended = invoke("merge", fresh.path, finished.path, store.path)
    assert ended.exit_code == 0
    first, second = ended.stdout.splitlines()
    assert first.startswith(f"{finished.path}: 12 partitions and 2 models copied (")
    assert first.endswith(" MB), 0 partitions here already")
    assert second == f"{store.path}: 0 partitions and 0 models copied, 12 partitions here already"
    assert invoke("merge", fresh.path).exit_code == 2
    (report,) = json.loads(invoke("merge", fresh.path, store.path, "--json").stdout)
    assert (report["store"], report["n_partitions"], report["n_here"]) == (str(store.path), 0, 12)


def test_prune_says_what_it_frees_and_what_that_costs(store: FeatureStore) -> None:
    ended = invoke("prune", store.path, "--keep", "quantize", "--dry-run")
    assert ended.exit_code == 0
    lines = ended.stdout.splitlines()
    assert lines[0].split() == ["what", "files", "frees", "to", "recompute", "it"]
    assert lines[2].startswith("descriptors of extract ")
    assert lines[-1].endswith(" would be freed")
    report = json.loads(invoke("prune", store.path, "--keep", "quantize", "--dry-run", "--json").stdout)
    assert report["n_bytes"] == sum(item["n_bytes"] for item in report["items"]) > 0
    assert report["items"][0]["what"].startswith("descriptors of extract ")
    assert invoke("prune", store.path, "--keep", "quantize").stdout.endswith(" freed\n")
    assert invoke("prune", store.path, "--keep", "quantize").stdout == "there is nothing to prune\n"


def test_untrusted_warns_of_what_it_leaves_out(store: FeatureStore) -> None:
    name = damaged(store).name
    ended = invoke("status", store.path, "--untrusted")
    assert ended.exit_code == 0
    assert "quantize        3/4" in ended.stdout
    assert ended.stderr.startswith("warning: left out: ")
    assert name in ended.stderr
    ended = invoke("sql", store.path, "SELECT count(*) AS n FROM quantized", "--csv", "--untrusted")
    assert ended.stdout == "n\n24\n"
    assert invoke("info", store.path, "china/whole-000.jpg", "--untrusted").exit_code == 0
    ended = invoke("verify", store.path, "--untrusted")
    assert ended.exit_code == 1
    assert "the image files were not checked: the store is untrusted" in ended.stdout
    out = store.path.parent / "out"
    ended = invoke("export", store.path, out, "--format", "npy", "--untrusted", "--allow-missing")
    assert ended.exit_code == 0, ended
    assert out.is_dir()


def test_check_images_is_planned_and_run(store: FeatureStore, samples: object, tmp_path: Path) -> None:
    recipe = (store.path / CONFIG).read_text(encoding="utf-8")
    old = next(line.split('"')[1] for line in recipe.splitlines() if line.startswith("images = "))
    images = shutil.copytree(old, tmp_path / "images")
    (store.path / CONFIG).write_text(recipe.replace(old, str(images)), encoding="utf-8")
    assert "everything is up to date" in invoke("run", store.path, "--check-images", "--dry-run").stdout
    shutil.copy(images / "blank.jpg", images / "flower" / "left-090.jpg")
    assert "image files were replaced" in invoke("run", store.path, "--check-images", "--dry-run").stdout
    ended = invoke("run", store.path, "--check-images", "--workers", 0)
    assert ended.exit_code == 0
    assert ended.stdout.startswith("extract    1 image")
