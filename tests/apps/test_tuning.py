"""What bytes are worth: trials of settings agree with searches of the store, and a proposal keeps its budget."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.apps import Grid, plot_tuning, propose, tune, with_recipe
from featurestore.apps.degraded import degraded_part
from featurestore.apps.kept_queries import file_of, kept_queries
from featurestore.apps.setting_bytes import ROW
from featurestore.apps.trial import Query, Setting, measure, rounded
from featurestore.apps.tuning import LESS, Trial, Tuning, _extract
from featurestore.apps.tuning_sample import Asked, Sample, draw_sample
from featurestore.errors import ImagesGone, NothingUsable, NotReady, OutputError, QueryError
from featurestore.rows import Row, Status
from featurestore.stages import Quantize
from tests.conftest import TOP
from tests.once import copied
from tests.small import change_recipe, configure, context_of, copy, invoke

GRID = Grid(tops=(40, TOP), selects=("norm", "mix"), dims=(16, 64), bits=(8,), images=24, queries=6)
OPTIONS = ["--top", f"40,{TOP}", "--select", "norm,mix", "--dims", "16,64", "--bits", 8, "--sample", 24, "--queries", 6]
STORED = Setting(TOP, "norm", 64, 8)  # of the recipe
TIMES = ("seconds", "encode")


@pytest.fixture(scope="module")
def tuned(finished: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    """The trials of the shared store. Not to be changed."""

    def make(folder: Path) -> None:
        tune(finished, folder / "trials.jsonl", GRID)

    return tune(finished, copied(tmp_path_factory, "tuned", make) / "trials.jsonl", GRID)  # only reads


@pytest.fixture(scope="module")
def sample(finished: FeatureStore) -> Sample:
    """The sample of these trials: all images."""
    return draw_sample(finished, n_images=GRID.images, n_queries=GRID.queries, seed=GRID.seed)


def outcomes_of(tuning: Tuning, setting: Setting) -> dict[str, Any]:
    """Return the outcomes of a setting in the file, by query."""
    lines = map(json.loads, tuning.path.read_text().splitlines())
    (found,) = (line for line in lines if Setting(**line["setting"]) == setting)
    return {one["query"]: one for one in found["outcomes"]}


def without_times(tuning: Tuning) -> list[Any]:
    """Return the trials but for what differs from one time to the next."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(one) for name, one in value.items() if name not in TIMES}
        return [plain(one) for one in value] if isinstance(value, list | tuple) else value

    return [plain(one) for one in tuning.as_dict()["trials"]]


def test_a_setting_finds_what_a_search_of_such_a_store_finds(
    finished: FeatureStore, tuned: Tuning, sample: Sample
) -> None:
    assert len(sample.names) == sample.n_usable
    found = outcomes_of(tuned, STORED)
    for asked in sample.asked:
        assert asked.part is not None
        name, kind, seed = asked.part
        result = finished.search(degraded_part(finished.pixels(name), kind, seed=seed), top=100, method="exact")
        one = found[asked.name]
        assert one["ranks"] == [hit.rank for hit in result.hits if hit.filename == name]
        assert one["found"] + one["wrong"] == sorted(
            (hit.filename for hit in result.found), key=lambda filename: filename != name
        )


def test_the_halves_share_no_query_and_no_image(finished: FeatureStore, sample: Sample, tuned: Tuning) -> None:
    every = draw_sample(finished, n_images=GRID.images - 1, n_queries=3 * GRID.images, seed=2)  # three parts of each
    assert len(every.asked) == 3 * (GRID.images - 1)
    refs = [{ref for asked in every.asked if asked.half == half for ref in asked.refs} for half in (0, 1)]
    assert refs[0]
    assert refs[1]
    assert refs[0].isdisjoint(refs[1])
    counts = [sum(asked.half == half for asked in sample.asked) for half in (0, 1)]
    kinds = {asked.kind for asked in sample.asked if asked.half == 1}
    for trial in tuned.trials:
        assert [trial.chosen.n, trial.reported[-1].n] == counts
        assert [one.kind for one in trial.reported] == [*sorted(kinds), "all"]
        assert sum(one.n for one in trial.reported[:-1]) == trial.reported[-1].n


def test_bytes_are_those_of_codes_keypoints_and_index(tuned: Tuning) -> None:
    sizes = {trial.setting: trial.bytes.image for trial in tuned.trials}
    less, more = Setting(40, "mix", 16, 8), Setting(40, "mix", 64, 8)
    assert sizes[more] - sizes[less] == 40 * 48
    assert sizes[less] == 40 * (16 + 24 + 16) + ROW


@pytest.mark.parametrize("bits", [8, 4])
def test_values_are_rounded_as_quantize_rounds_them(finished: FeatureStore, bits: Literal[8, 4]) -> None:
    values, model = finished.descriptors("china/whole-000.jpg", "project"), finished.model("fit_scale")
    stage = Quantize(bits=bits)
    codes = stage.apply(Row(0, "", Status.OK, None, values, None), model).descriptors
    assert codes is not None
    found = rounded(values, low=model["low"], span=model["high"] - model["low"], bits=bits)
    np.testing.assert_array_equal(found, stage.floats(codes, model))


def test_every_setting_is_tried_once_in_order(tuned: Tuning) -> None:
    assert [trial.setting for trial in tuned.trials] == list(GRID.settings())
    assert len(tuned.trials) == 8
    best = max(trial.worth for trial in tuned.trials)
    front = sorted((trial for trial in tuned.trials if trial.front), key=lambda trial: trial.bytes.image)
    assert front[-1].worth == best
    assert [trial.worth for trial in front] == sorted({trial.worth for trial in front})
    assert all(trial.bytes.image > front[-1].bytes.image for trial in tuned.trials if trial.worth > front[-1].worth)


def test_it_goes_on_after_a_kill(
    finished: FeatureStore, tuned: Tuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trials.jsonl"
    tried, said = list[Setting](), list[str]()

    def killed(flow: Any, setting: Setting, images: Any, queries: Any) -> Any:
        if len(queries) == GRID.queries:  # and not a few of them, for the estimate
            tried.append(setting)
            if len(tried) == 4:
                raise KeyboardInterrupt
        return measure(flow, setting, images, queries)

    monkeypatch.setattr("featurestore.apps.tuning.measure", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(finished, path, GRID)
    with path.open("a") as file:
        file.write('{"setting": {"top"')  # what a kill left behind
    monkeypatch.setattr(FeatureStore, "extracted", None)  # nothing is extracted twice
    monkeypatch.setattr("featurestore.apps.tuning.LONG", 0.0)
    again = tune(finished, path, GRID, say=said.append)
    assert said[0].startswith(
        f"writing {path}, a line for each setting; trials.jsonl.progress and trials.jsonl.queries"
    )
    assert said[1].startswith("5 settings with ")
    assert said[1].endswith(LESS)
    assert again.n_before == 3
    assert tried[3] == tried[4] == GRID.settings()[3]
    assert len(tried) == 9
    assert without_times(again) == without_times(tuned)


def test_queries_that_a_killed_call_has_extracted_are_not_extracted_again(
    finished: FeatureStore, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, extracted, path = Sample.query, list[str](), tmp_path / "trials.jsonl"

    def killed(of: Sample, asked: Asked) -> Query:
        extracted.append(asked.name)
        if len(extracted) == 4:
            raise KeyboardInterrupt
        return made(of, asked)

    monkeypatch.setattr("featurestore.apps.tuning.KEEP", 0.0)
    monkeypatch.setattr(Sample, "query", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(finished, path, GRID)
    queries = kept_queries(file_of(path), sample)
    assert [query.name for query in queries] == extracted[:3]
    _extract(queries, sample, file_of(path), lambda line: None)
    names = [asked.name for asked in sample.asked]
    assert extracted == [*names[:4], *names[3:]]
    assert [query.name for query in kept_queries(file_of(path), sample)] == names


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_that_is_gone_ends_it(finished: FeatureStore, tmp_path: Path, packed: bool) -> None:
    """As a query that is not found it would make all settings worse, in a file that is kept."""
    images = Path(context_of(finished).images)
    where = Path(shutil.make_archive(str(tmp_path / "images"), "zip", images)) if packed else tmp_path / "images"
    if not packed:
        shutil.copytree(images, where)
    store = copy(finished, tmp_path / "store")
    change_recipe(store, {"store": {"images": str(where)}})
    asked = draw_sample(store, n_images=GRID.images, n_queries=GRID.queries, seed=GRID.seed).asked
    name = asked[0].refs[0]
    gone, away = (where, tmp_path / "away.zip") if packed else (where / name, tmp_path / "away")
    gone.rename(away)
    error = "there is no file .*images.zip" if packed else f"{name} can't be drawn: .*named by: featurestore verify "
    with pytest.raises(ImagesGone if packed else NothingUsable, match=error):
        tune(store, tmp_path / "trials.jsonl", GRID)
    sample = draw_sample(store, n_images=GRID.images, n_queries=GRID.queries, seed=GRID.seed)
    assert kept_queries(file_of(tmp_path / "trials.jsonl"), sample) == []
    away.rename(gone)
    assert sample.query(asked[0]).error is None


def test_kept_queries_are_those_of_the_sample_or_none(
    finished: FeatureStore, sample: Sample, tuned: Tuning, tmp_path: Path
) -> None:
    queries = kept_queries(file_of(tuned.path), sample)
    for kept, asked in zip(queries, sample.asked, strict=True):
        made = sample.query(asked)
        assert (kept.name, kept.refs, kept.half, kept.error) == (made.name, made.refs, made.half, made.error)
        assert made.raw is not None
        assert kept.raw is not None
        np.testing.assert_array_equal(kept.raw.descriptors, made.raw.descriptors)
        np.testing.assert_array_equal(kept.raw.keypoints, made.raw.keypoints)
    other = draw_sample(finished, n_images=GRID.images, n_queries=GRID.queries, seed=1)
    assert kept_queries(file_of(tuned.path), other) == []
    broken = tmp_path / "broken.npz"
    broken.write_bytes(file_of(tuned.path).read_bytes()[:-100])
    assert kept_queries(broken, sample) == []


def test_a_complete_file_is_only_read(finished: FeatureStore, tuned: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("featurestore.apps.tuning.measure")
    again = tune(finished, tuned.path, GRID, images=1_000_000)
    assert again.n_before == len(GRID.settings())
    assert again.n_images == 1_000_000
    assert [one.chosen for one in again.trials] == [one.chosen for one in tuned.trials]
    with pytest.raises(OutputError, match="was begun with grid"):
        tune(finished, tuned.path, Grid(images=24, queries=4))


def test_the_proposal_is_the_best_within_the_budget(finished: FeatureStore, tuned: Tuning) -> None:
    sizes = sorted(trial.bytes.collection for trial in tuned.trials)
    for budget in (sizes[0], sizes[len(sizes) // 2], sizes[-1]):
        trial = propose(finished, tuned, budget).trial
        assert trial.bytes.collection <= budget

        def better(other: Trial, than: Trial = trial, most: int = budget) -> bool:
            return other.bytes.collection <= most and other.worth > than.worth

        assert not any(map(better, tuned.trials))
    (stored,) = (trial for trial in tuned.trials if trial.setting == STORED)
    same = propose(finished, replace(tuned, trials=(stored,)), sizes[-1])
    assert (same.changes, same.stale) == ({}, ())
    assert not with_recipe(finished, same).written
    with pytest.raises(QueryError, match="no setting fits into 10 B; the smallest takes"):
        propose(finished, tuned, 10)


def test_a_run_of_the_proposal_keeps_the_budget(store: FeatureStore, tuned: Tuning) -> None:
    before = (store.path / "featurestore.toml").read_text()
    largest = max(trial.bytes.collection for trial in tuned.trials if trial.setting.top == 40)
    proposal = propose(store, tuned, largest)
    assert proposal.trial.setting.top == 40
    assert (store.path / "featurestore.toml").read_text() == before
    assert proposal.stale[-3:] == ("project", "fit_scale", "quantize")
    with_recipe(store, proposal)
    after = (store.path / "featurestore.toml").read_text()
    assert [line.partition("#")[2] for line in after.splitlines()][: len(before.splitlines())] == [
        line.partition("#")[2] for line in before.splitlines()
    ]
    assert tomllib.loads(after)["project"]["top"] == 40
    assert {one.stage for one in store.plan()} == set(proposal.stale)
    store.index()
    store.run(workers=0)
    files = store.sql("SELECT path FROM partitions WHERE stage = 'quantize' AND current").fetchall()
    index = list((store.path / "index").iterdir())
    assert index
    n_bytes = sum(path.stat().st_size for path in [*(store.path / name for (name,) in files), *index])
    assert n_bytes <= proposal.trial.bytes.collection


def test_pairs_are_searched_for_too(finished: FeatureStore, tmp_path: Path) -> None:
    china, flower = "china/whole-000.jpg", "flower/whole-000.jpg"
    (tmp_path / "pairs.csv").write_text(
        f"query,ref,class\n{china},china/whole-090.jpg,turned\n{flower},flower/left-000.jpg,\n"
    )
    grid = Grid(tops=(TOP,), selects=("norm",), dims=(64,), bits=(8, 4), images=24, queries=4)
    found = tune(finished, tmp_path / "trials.jsonl", grid, pairs=tmp_path / "pairs.csv")
    outcomes = outcomes_of(found, STORED)
    names = [hit.filename for hit in finished.search(china, top=100, method="exact").hits]
    assert outcomes[china]["kind"] == "turned"
    assert outcomes[china]["ranks"] == [names.index("china/whole-090.jpg") + 1]
    assert outcomes[flower]["kind"] == "pairs"


def test_what_can_not_be_tuned(finished: FeatureStore, tiny: FeatureStore, fresh: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    with pytest.raises(NotReady, match="needs at least 10 images with descriptors of extract, and 3 images of 3 has"):
        tune(tiny, path)
    with pytest.raises(NotReady, match="the model of fit_pca has not been fitted yet"):
        tune(fresh, path)
    with pytest.raises(QueryError, match="dims are from 1 to 64"):
        tune(finished, path, Grid(dims=(65,)))
    with pytest.raises(QueryError, match="bits are 8 or 4"):
        tune(finished, path, Grid(bits=(3,)))
    assert not path.exists()


def test_queries_need_no_model_but_the_pca(store: FeatureStore, tmp_path: Path) -> None:
    grid = Grid(tops=(40,), selects=("norm",), dims=(64,), bits=(8,), images=24, queries=4)
    before = tune(store, tmp_path / "before.jsonl", grid)
    configure(store, "project", top=TOP - 1)  # as a proposal that was written, and has not been run
    assert {one.stage for one in store.plan()} >= {"project", "fit_scale"}
    assert without_times(tune(store, tmp_path / "after.jsonl", grid)) == without_times(before)


def test_what_the_store_lacks_is_not_counted_as_not_found(
    finished: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: Any) -> None:
        raise NotReady("pruned meanwhile")

    monkeypatch.setattr(FeatureStore, "extracted", lacking)
    with pytest.raises(NotReady, match="pruned meanwhile"):
        tune(finished, tmp_path / "trials.jsonl", GRID)
    assert not file_of(tmp_path / "trials.jsonl").exists()


def test_pruned_partitions_are_one_line(store: FeatureStore, tmp_path: Path) -> None:
    store.prune(keep="quantize")
    result = invoke("tune", store.path, "-o", tmp_path / "trials.jsonl")
    assert result.exit_code != 0
    assert "extract" in str(result.exception)
    assert "pruned" in str(result.exception)


def test_the_verb_writes_only_if_told_so(
    finished: FeatureStore, tuned: Tuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = copy(finished, tmp_path / "store")
    recipe = changed.path / "featurestore.toml"
    before = recipe.read_bytes()
    monkeypatch.setenv("COLUMNS", "80")
    command = ["tune", changed.path, "-o", tuned.path, *OPTIONS]
    result = invoke(*command, "--budget", "150kB", "--plot", tmp_path / "plot.svg")
    assert result.exit_code == 0, result.exception
    assert "--yes writes it; then stale: " in result.stdout
    assert (tmp_path / "plot.svg").stat().st_size > 1000
    again = invoke(*command, "--plot", tmp_path / "plot.svg")
    assert "plot.svg exists already; choose another name" in str(again.exception)
    assert recipe.read_bytes() == before
    told = json.loads(invoke(*command, "--budget", "150kB", "--json").stdout)
    assert told["proposal"]["written"] is False
    assert len(told["trials"]) == 8
    assert recipe.read_bytes() == before
    assert invoke(*command, "--yes").exit_code == 2
    assert "written to featurestore.toml; stale: " in invoke(*command, "--budget", "150kB", "--yes").stdout
    assert recipe.read_bytes() != before


def test_the_plot_has_every_setting_with_its_interval_and_the_front(tuned: Tuning) -> None:
    axes = plot_tuning(tuned)
    for ax, of in zip(axes.figure.axes, ("recall", "found"), strict=True):
        bars = {str(bar.get_label()): bar for bar in ax.containers}
        assert sorted(bars) == ["mix", "norm"]
        for select, bar in bars.items():
            trials = [trial for trial in tuned.trials if trial.setting.select == select]
            scores = [trial.reported[-1] for trial in trials]
            wanted = [one.found if of == "found" else one.recall[1] for one in scores]
            points, _, (lines,) = bar.lines  # type: ignore[attr-defined]
            np.testing.assert_allclose(
                np.array(points.get_xdata(), float), [trial.bytes.image / 1000 for trial in trials]
            )
            np.testing.assert_allclose(np.array(points.get_ydata(), float), wanted)
            ends = [one.found_interval if of == "found" else one.recall_interval for one in scores]
            np.testing.assert_allclose(np.array([line[:, 1] for line in lines.get_segments()], float), ends)
        (front,) = (line for line in ax.lines if line.get_label() == "front")
        assert len(front.get_xdata()) == sum(trial.front for trial in tuned.trials)  # type: ignore[arg-type]
