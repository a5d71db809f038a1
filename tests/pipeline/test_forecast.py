"""The plan is what the run does: the same stages, chunks and images, or the same refusal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner

from featurestore import FeatureStore
from featurestore.cli.program import cli
from featurestore.cli.text import plan_text
from featurestore.errors import ConfirmationNeeded, FeatureStoreError, NotEnoughSpace, NotReady
from featurestore.pipeline import Options, estimate_costs
from featurestore.pipeline.forecast import FOLLOWS
from featurestore.pipeline.runner import plan_of
from featurestore.stages import FitPca
from featurestore.storage import Root
from tests.broken_images import encoded, picture
from tests.conftest import LONG
from tests.once import copied
from tests.small import SMALL, configure, context_of, copy, digests, make_small, small_store

SIZE = (80, 60)  # pixels of pictures with some 120 descriptors
RECIPE = SMALL | {"project": {"top": 60}}
Change = Callable[[FeatureStore, Path], None]
Arguments = tuple[tuple[str, ...], dict[str, Any]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A finished store of six images in three chunks; beside it images and a store without a run. Not to be changed."""

    def make(folder: Path) -> None:
        make_small(folder / "images", n=6, size=SIZE)
        (folder / "images" / "001.png").unlink()
        (folder / "images" / "005.png").write_bytes(encoded(".png", picture(40, 30, seed=5)))
        begun = small_store(folder / "begun", folder / "images", chunk_size=2, recipe=RECIPE)
        configure(begun, "store", images="../images", dataset="../images/dataset.csv")
        copy(begun, folder / "store").run(workers=0)

    return FeatureStore(copied(tmp_path_factory, "forecast", make) / "store")


def own(base: FeatureStore, folder: Path) -> tuple[FeatureStore, Path]:
    """Return a store and images that the test may change."""
    images = Path(shutil.copytree(base.path.parent / "images", folder / "images"))
    copy(FeatureStore(base.path.with_name("begun")), folder / "begun")
    return copy(base, folder / "store"), images


def begin_again(store: FeatureStore, images: Path) -> None:
    shutil.rmtree(store.path)
    store.path.with_name("begun").rename(store.path)


def extract_only(store: FeatureStore, images: Path) -> None:
    begin_again(store, images)
    store.run("extract", workers=0)


def one_chunk_only(store: FeatureStore, images: Path) -> None:
    begin_again(store, images)
    store.run("extract", chunks=[1], workers=0)


def until_pca(store: FeatureStore, images: Path) -> None:
    extract_only(store, images)
    store.run("fit_pca", workers=0)


def grow(store: FeatureStore, images: Path) -> None:
    make_small(images, n=3, first=6, size=SIZE)
    lines = [f"{i:03d}.png,{'test' if i % 4 == 3 else 'train'}" for i in range(9)]
    (images / "dataset.csv").write_text("\n".join(["filename,subset", *lines]) + "\n")
    store.ingest()


def mend(store: FeatureStore, images: Path) -> None:
    (images / "001.png").write_bytes(encoded(".png", picture(*SIZE, seed=1)))


def exchange(store: FeatureStore, images: Path) -> None:
    (images / "004.png").write_bytes(encoded(".png", picture(*SIZE, seed=40)))


def prune_to(*keep: str) -> Change:
    def prune(store: FeatureStore, images: Path) -> None:
        store.prune(keep)

    return prune


def set_to(stage: str, **values: Any) -> Change:
    return lambda store, images: configure(store, stage, **values)


STATES: dict[str, list[Change]] = {
    "new": [begin_again],
    "extracted": [extract_only],
    "one chunk extracted": [one_chunk_only],
    "with a PCA": [until_pca],
    "finished": [],
    "grown": [grow],
    "mended": [mend],
    "exchanged": [exchange],
    "another top": [set_to("project", top=50)],
    "another PCA": [set_to("fit_pca", n_components=12)],
    "another policy": [set_to("extract", max_pixels=2_500)],
    "pruned": [prune_to("quantize")],
    "pruned, project kept": [prune_to("project")],
    "pruned and grown": [prune_to("quantize"), grow],
    "pruned and exchanged": [prune_to("quantize"), exchange],
    "pruned, another top": [prune_to("quantize"), set_to("project", top=50)],
}
# What each of them meets in the short form, by its place among ARGUMENTS: every one of those meets at least one.
SHORT: dict[str, tuple[int, ...]] = {
    "new": (0, 6),
    "extracted": (8,),
    "one chunk extracted": (11,),
    "with a PCA": (9,),
    "finished": (7,),
    "grown": (4, 1),
    "mended": (2,),
    "exchanged": (3,),
    "another top": (1,),
    "another PCA": (0,),
    "another policy": (5, 2),
    "pruned": (10,),
    "pruned, project kept": (2,),
    "pruned and grown": (0,),
    "pruned and exchanged": (3,),
    "pruned, another top": (0,),
}
CHANGED = ("mended", "another policy")  # where images come out otherwise whenever they are made again
ARGUMENTS: list[Arguments] = [
    ((), {}),
    ((), {"chunks": [0]}),
    ((), {"retry_failed": True}),
    ((), {"check_images": True}),
    ((), {"update": True}),
    (("extract",), {}),
    (("extract", "project"), {}),
    (("extract", "fit_pca"), {"update": True}),
    (("fit_pca", "project"), {"partial": True}),
    (("project", "quantize"), {"chunks": [1, 2]}),
    (("extract", "project", "quantize"), {"retry_failed": True, "chunks": [0]}),
    (("quantize",), {}),
]


def planned(store: FeatureStore, arguments: Arguments) -> list[list[tuple[Any, ...]]] | list[str]:
    """Return what is planned, and the same without what depends on how images come out that are made again.

    That is chunk 0, and models that would learn such images.
    """
    names, options = arguments
    try:
        estimates = store.plan(*names, **options)
    except FeatureStoreError as error:
        return [str(error)]
    follows = [(FOLLOWS, "chunk 0") in e.why for e in estimates]
    without = [told(e.stage, len(e.chunks) - f, e.n_images - 2 * f) for e, f in zip(estimates, follows, strict=True)]
    whole = [told(e.stage, len(e.chunks), e.n_images) for e in estimates]
    learnt = any(e.stage.startswith("fit_") and {why for why, _ in e.why} == {FOLLOWS} for e in estimates)
    unlearnt = [what for what in whole if not (learnt and what[0].startswith("fit_"))]
    return [whole, [what for what in without if what[1]], unlearnt]


def done(store: FeatureStore, arguments: Arguments) -> list[tuple[Any, ...]] | str:
    names, options = arguments
    try:
        found = store.run(*names, **options, workers=0, yes=True)
    except FeatureStoreError as error:
        return str(error)
    return [told(s.stage, s.n_chunks, s.n_images) for s in found]


def told(stage: str, n_chunks: int, n_images: int) -> tuple[Any, ...]:
    return (stage, n_chunks) if stage.startswith("fit_") else (stage, n_chunks, n_images)


@pytest.mark.parametrize("state", STATES)
def test_the_plan_is_what_the_run_does(base: FeatureStore, tmp_path: Path, state: str) -> None:
    store, images = own(base, tmp_path / "0")
    for change in STATES[state]:
        change(store, images)
    chosen = ARGUMENTS if LONG else [ARGUMENTS[place] for place in SHORT[state]]
    for number, arguments in enumerate(chosen, start=1):
        folder = tmp_path / str(number)
        shutil.copytree(images, folder / "images")
        ours = copy(store, folder / "store")
        said = planned(ours, arguments)
        found = done(ours, arguments)
        assert found in said, arguments
        if state in CHANGED and isinstance(found, list):
            assert found in (said[0], said[2]), f"{arguments}: the image has come out otherwise"
        shutil.rmtree(folder)


def test_what_is_pruned_and_asked_for_by_name_is_counted(base: FeatureStore, tmp_path: Path) -> None:
    store, _ = own(base, tmp_path)
    before = {stage.stage: stage.n_bytes for stage in store.status().stages}
    store.prune("quantize")
    estimates = {e.stage: e for e in store.plan("extract", "project")}
    assert list(estimates) == ["extract", "project"]
    assert all(e.n_bytes > 0 for e in estimates.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Root, "free_bytes", lambda root: 1000)
        with pytest.raises(NotEnoughSpace):
            store.run("extract", "project", workers=0)
    store.run("extract", "project", workers=0)
    assert {stage.stage: stage.n_bytes for stage in store.status().stages} == before


@pytest.mark.parametrize("how", [{"retry_failed": True}, {"check_images": True}])
def test_pruned_chunks_are_extracted_again_for_single_images_only_where_that_is_agreed(
    base: FeatureStore, tmp_path: Path, how: dict[str, Any]
) -> None:
    store, images = own(base, tmp_path)
    store.prune("quantize")
    mend(store, images)
    exchange(store, images)
    before, asked = digests(store), list[str]()
    with pytest.raises(ConfirmationNeeded, match="agree with --yes"):
        store.run(workers=0, **how)
    with pytest.raises(ConfirmationNeeded):
        store.run(workers=0, yes=lambda question: bool(asked.append(question)), **how)  # type: ignore[func-returns-value]
    chunks, n = ("chunk 0", 1) if "retry_failed" in how else ("chunks 0, 2", 2)
    assert asked[0].startswith(
        f"{n} image{'s' if n > 1 else ''} of {chunks} would be extracted again, and the descriptors of the others were "
        f"pruned: so all {2 * n} images will be, which takes about "
    )
    assert digests(store) == before
    assert store.run(workers=0, yes=True, **how)[0].n_images == 2 * n


def test_nothing_is_asked_where_nothing_was_pruned(base: FeatureStore, tmp_path: Path) -> None:
    store, images = own(base, tmp_path)
    mend(store, images)
    assert store.run("extract", workers=0, retry_failed=True)[0].n_images == 1


@pytest.mark.parametrize(
    ("solver", "n_chunks", "is_told"), [("gram", 1001, True), ("gram", 1000, False), ("covariance", 1001, False)]
)
def test_what_one_core_takes_for_more_than_a_million_images_is_told(
    base: FeatureStore, solver: Literal["gram", "covariance"], n_chunks: int, is_told: bool
) -> None:
    context = context_of(base)
    plan = plan_of(context, Options())["fit_pca"]
    works = tuple(replace(plan.inputs[0], chunk_id=i, first_image_id=1000 * i, n_images=1000) for i in range(n_chunks))
    step = replace(plan.step, stage=FitPca(solver=solver))
    with context.catalog.reading() as connection:
        estimates = estimate_costs(connection, {"fit_pca": replace(plan, step=step, todo=works)})
    told = plan_text(estimates).splitlines()[-1]
    assert ('fit_pca with solver = "gram" learns one image after another, on one core' in told) == is_told
    assert (
        'for 1,001,000 images. With "covariance" all workers share about 35 min 02 s of CPU time' in told
    ) == is_told


def test_a_dry_run_ends_as_the_run_would(base: FeatureStore, tmp_path: Path) -> None:
    store, images = own(base, tmp_path)
    begin_again(store, images)
    with pytest.raises(NotReady, match="extract is not up to date for chunks 0-2"):
        store.plan("fit_pca")
    said = [CliRunner().invoke(cli, ["run", str(store.path), "fit_pca", *more]) for more in ([], ["--dry-run"])]
    assert [str(ended.exception) for ended in said] == [str(said[0].exception)] * 2
    assert all(isinstance(ended.exception, NotReady) for ended in said)
